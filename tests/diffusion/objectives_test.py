"""The loss against entropies, quadrature and a two-pass loop written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.diffusion.network import null_signal
from scmdm_jax.diffusion.objectives import (
  T_MIN,
  diffusion_loss,
  masked_nll,
  mixed_signal,
)
from scmdm_jax.diffusion.schedules import (
  Cosine,
  LogLinear,
  Polynomial,
  antithetic_times,
  nelbo_weight,
)
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from tests.compiling import quick_jit, split_key, uniform
from tests.diffusion import exact, toys
from tests.models import parameters

SCHEDULES = [LogLinear(), Cosine(), Polynomial(2.0)]
LOG_LINEAR = SCHEDULES[0]
WEIGHTS = toys.weights(0)
bernoulli = quick_jit(jax.random.bernoulli, static_argnums=2)
quick_times = quick_jit(antithetic_times, static_argnums=(1, 2))


def expected_nelbo(schedule, table, x_0, t_min=T_MIN):
  """E_t of the loss at `x_0`, by quadrature over t and enumeration over masks."""

  def integrand(t):
    alpha = np.asarray(schedule(np.float32(t)), np.float64)
    weight = np.asarray(nelbo_weight(schedule, jnp.float32(t)), np.float64)
    return weight * exact.masked_loss(table, x_0, alpha)

  return exact.integrate(integrand, t_min, 1.0) / (1 - t_min)


def loss_settings(rate, schedule=LOG_LINEAR, mask_id=toys.MASK):
  return {'schedule': schedule, 'mask_id': mask_id, 'rate': rate}


@pytest.mark.parametrize(
  'schedule', [LogLinear(eps=0.0), Cosine(eps=0.0), Polynomial(2.0, eps=0.0)]
)
def test_exact_posterior_has_the_exact_likelihood(schedule):
  # Each order of revealing telescopes to the chain rule, so with alpha from 1 to 0 the
  # NELBO of the true conditionals is -log p(x_0) for every x_0: the bound is tight.
  joint = exact.random_joint(0, clean=3, length=3)
  table = exact.posterior_table(joint)
  for x_0 in [(0, 0, 0), (2, 0, 1), (1, 2, 2)]:
    found = expected_nelbo(schedule, table, x_0, t_min=0.0)
    # Float32 alphas and weights; cancellation in 1 - alpha near t = 0.
    assert found == pytest.approx(-np.log(joint[x_0]), rel=1e-4)


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_constant_of_the_cuts(schedule):
  # Independent tokens: the integral is (alpha(t_min) - alpha(1)) / (1 - t_min) times
  # -log p(x_0). For the log-linear schedule that is 1 - eps.
  singles = [np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.3, 0.6])]
  joint = np.multiply.outer(*singles)
  x_0 = (1, 2)
  found = expected_nelbo(schedule, exact.posterior_table(joint), x_0)
  alpha = np.asarray(schedule(np.float32([T_MIN, 1.0])), np.float64)
  constant = (alpha[0] - alpha[1]) / (1 - T_MIN)
  assert found == pytest.approx(constant * -np.log(joint[x_0]), rel=1e-5)
  assert constant == pytest.approx(1, abs=2e-3)
  if isinstance(schedule, LogLinear):
    assert constant == pytest.approx(1 - schedule.eps, rel=1e-5)


@pytest.mark.parametrize('schedule', SCHEDULES[:2])
def test_monte_carlo_against_quadrature(schedule):
  joint = exact.random_joint(1, clean=3, length=3)
  table = exact.posterior_table(joint)
  x_0 = (2, 0, 1)
  batch = jnp.broadcast_to(jnp.array(x_0, jnp.int32), (1024, 3))
  network = exact.table_network(jnp.asarray(table))
  loss = quick_jit(
    jax.vmap(
      lambda key: diffusion_loss(
        key, network, network, batch, **loss_settings(0.0, schedule, mask_id=3)
      )
    )
  )
  found = np.asarray(loss(split_key(jax.random.key(2), 64)), np.float64)
  wanted = expected_nelbo(schedule, table, x_0) / 3  # Nats per token.
  error = found.std(ddof=1) / np.sqrt(len(found))
  assert error < 0.01 * wanted
  assert abs(found.mean() - wanted) < 4 * error


def test_masked_nll():
  w = toys.weights(3)
  x_0 = toys.clean_tokens(4, 3)
  x_t = np.where(np.random.default_rng(5).random(x_0.shape) < 0.5, toys.MASK, x_0)
  signal = np.random.default_rng(6).standard_normal((3, toys.LENGTH, toys.DIM))
  signal, sigma = np.float32(signal), np.float32([0.1, 1.0, 3.0])
  found = quick_jit(masked_nll, static_argnums=(0, 5))(
    toys.network(w), x_t, x_0, signal, sigma, toys.MASK
  )
  network = toys.network_np(w)
  probs = predict(network, x_t, signal, sigma)
  wanted = np.where(x_t == toys.MASK, toys.nll_np(probs, x_0), 0)
  np.testing.assert_allclose(found, wanted, atol=1e-5)


def forward_process(key, x_0, schedule, shown=0.0):
  """x_t, sigma and weight of a batch, by the documented order of keys."""
  key_t, key_mask, key_rate = split_key(key, 3)
  t = np.asarray(quick_times(key_t, len(x_0), T_MIN), np.float64)
  alpha = 1 - (1 - schedule.eps) * t
  u = np.asarray(uniform(key_mask, x_0.shape))
  x_t = np.where(u < alpha[:, None], x_0, toys.MASK)
  if shown:
    given = bernoulli(jax.random.fold_in(key_mask, 1), shown, (len(x_0),))
    x_t[:, 0] = np.where(given, x_0[:, 0], x_t[:, 0])
  return x_t, np.float32(-np.log(alpha)), (1 - schedule.eps) / (1 - alpha), key_rate


def predict(network, x_t, signal, sigma):
  logits = network.logits(network.encode(x_t, signal, sigma))
  return toys.softmax_np(logits, toys.MASK)


def two_pass_loss(key, x_0, rate, shown=0.0):
  """The loss of SCMDM with NumPy: two passes at the same x_t for the first examples."""
  network = toys.network_np(WEIGHTS)
  x_t, sigma, weight, key_rate = forward_process(key, x_0, LogLinear(), shown)
  share = rate * len(x_0)
  conditioned = int(share)
  fraction = share - conditioned
  if fraction > 1e-6 and bernoulli(key_rate, fraction):
    conditioned += 1
  total = 0.0
  for b in range(len(x_0)):
    one, level = x_t[b : b + 1], sigma[b : b + 1]
    null = np.zeros((1, toys.LENGTH, toys.DIM))
    probs = predict(network, one, null, level)
    if b < conditioned:
      probs = predict(network, one, network.signal(probs), level)
    nll = toys.nll_np(probs, x_0[b : b + 1])
    total += weight[b] * nll[one == toys.MASK].sum()
  return total / x_0.size, conditioned


@pytest.mark.parametrize(('rate', 'batch'), [(0.0, 4), (0.5, 4), (1.0, 4), (0.4, 4)])
def test_equals_a_plain_two_pass_computation(rate, batch):
  network = toys.network(WEIGHTS)
  loss = quick_jit(
    lambda key, x_0: diffusion_loss(key, network, network, x_0, **loss_settings(rate))
  )
  seen = set()
  for seed in range(6):
    x_0 = toys.clean_tokens(seed, batch)
    key = jax.random.key(seed)
    wanted, conditioned = two_pass_loss(key, x_0, rate)
    # Float32 logits times weights up to 1 / T_MIN.
    assert loss(key, x_0) == pytest.approx(wanted, rel=1e-4)
    seen.add(conditioned)
  assert seen == ({1, 2} if rate == 0.4 else {round(rate * batch)})


@pytest.mark.parametrize('shown', [0.5, 1.0])
def test_a_class_that_is_shown_is_neither_masked_nor_scored(shown):
  network = toys.network(WEIGHTS)
  loss = quick_jit(
    lambda key, x_0: diffusion_loss(
      key, network, network, x_0, **loss_settings(1.0), shown=shown
    )
  )
  differ = 0
  for seed in range(6):
    x_0 = toys.clean_tokens(seed, 4)
    key = jax.random.key(seed)
    wanted, _ = two_pass_loss(key, x_0, 1.0, shown)
    assert loss(key, x_0) == pytest.approx(wanted, rel=1e-4)
    differ += wanted != two_pass_loss(key, x_0, 1.0)[0]
  assert differ  # Two of six at a half: where the class would have been masked.


@pytest.mark.parametrize(
  ('rate', 'batches'), [(0.0, [4]), (0.5, [2, 4]), (1.0, [4, 4]), (0.3, [2, 4])]
)
def test_first_pass_covers_only_what_it_must(rate, batches):
  seen = []
  network = toys.network(WEIGHTS, lambda x_t, *_: seen.append(x_t.shape[0]))
  x_0 = jnp.asarray(toys.clean_tokens(7, 4))
  jax.eval_shape(
    lambda key: diffusion_loss(key, network, network, x_0, **loss_settings(rate)),
    jax.random.key(0),
  )
  assert seen == batches


def conditioned_examples(keys, rate, batch):
  """Which examples have a signal, [keys, batch]."""
  network = toys.network(WEIGHTS)
  x_t = jnp.full((batch, toys.LENGTH), toys.MASK, jnp.int32)

  def signal(key):
    passes = [(x_t, jnp.ones(batch))]
    return mixed_signal(key, network, network, passes, toys.MASK, rate)

  found = np.asarray(quick_jit(jax.vmap(signal))(keys))
  assert found.dtype == np.float32
  return np.any(found != 0, axis=(2, 3))


def test_rate_half_conditions_exactly_the_first_half():
  found = conditioned_examples(split_key(jax.random.key(8), 3), 0.5, 6)
  assert np.array_equal(found, np.tile([True, True, True, False, False, False], (3, 1)))


@pytest.mark.parametrize(
  ('rate', 'batch', 'sure', 'chance'),
  [(0.3, 5, 1, 0.5), (0.1, 3, 0, 0.3), (0.7, 10, 7, 0.0)],
)
def test_fractional_rates_hold_on_average(rate, batch, sure, chance):
  n = 4000
  found = conditioned_examples(split_key(jax.random.key(9), n), rate, batch)
  assert np.all(found[:, :sure])
  assert not np.any(found[:, sure + 1 :])
  error = np.sqrt(chance * (1 - chance) / n)
  assert abs(found[:, sure].mean() - chance) <= 4 * error
  assert abs(found.mean() - rate) <= 4 * error / batch + 1e-12


def written_out_loss(w, x_t, x_0, sigma, weight, signal):
  """The second pass alone, of toy weights `w` under a given signal."""
  network = toys.network(w)
  logits = network.logits(network.encode(x_t, signal, sigma))
  log_probs = jax.nn.log_softmax(jnp.delete(logits, toys.MASK, axis=-1), axis=-1)
  column = jnp.where(x_0 > toys.MASK, x_0 - 1, x_0)  # The mask's column is gone.
  nll = -jnp.take_along_axis(log_probs, column[..., None], axis=-1)[..., 0]
  return jnp.mean(weight[:, None] * jnp.where(x_t == toys.MASK, nll, 0))


def first_pass(w, x_t, sigma):
  network = toys.network(w)
  null = jnp.zeros((*x_t.shape, toys.DIM))
  logits = network.logits(network.encode(x_t, null, sigma))
  return jax.nn.softmax(logits.at[..., toys.MASK].set(-1e30), axis=-1)


def test_gradient_holds_the_prediction_constant():
  x_0, key = toys.clean_tokens(10, 4), jax.random.key(11)
  x_t, sigma, weight, _ = forward_process(key, x_0, LogLinear())
  weight = jnp.asarray(weight, jnp.float32)

  def ours(w):
    frozen = toys.network(jax.lax.stop_gradient(w))
    return diffusion_loss(key, toys.network(w), frozen, x_0, **loss_settings(1.0))

  def constant(w, probs):
    # A table of the signal's own learns from the constant prediction.
    signal = probs @ w['table']
    return written_out_loss(w, x_t, x_0, sigma, weight, signal)

  def both(w):
    return constant(w, first_pass(w, x_t, sigma))

  probs = np.asarray(quick_jit(first_pass)(WEIGHTS, x_t, sigma))
  found, wanted, live = (
    quick_jit(jax.grad(f))(WEIGHTS)
    for f in (ours, functools.partial(constant, probs=probs), both)
  )
  for name in WEIGHTS:
    scale = np.abs(wanted[name]).max()
    assert scale > 0
    np.testing.assert_allclose(found[name], wanted[name], atol=2e-5 * scale)
    # The two-pass gradient differs in everything the first pass reads.
    if name not in ('table', 'inject'):
      assert np.abs(live[name] - wanted[name]).max() > 1e-3 * scale


def test_gradient_of_the_real_network_holds_its_signal_constant():
  arch = DiTConfig(
    vocab_size=toys.VOCAB,
    length=toys.LENGTH,
    hidden_dim=8,
    num_blocks=1,
    num_heads=2,
    cond_dim=4,
  )
  description = ModelDescription(arch, toys.MASK, tokenizer='', injection='embedding')
  params = parameters.random_params(description, seed=12, scale=0.3)
  x_0, key = toys.clean_tokens(13, 4), jax.random.key(14)
  x_t, sigma, weight, _ = forward_process(key, x_0, LogLinear())
  weight = np.float32(weight)[:, None]

  def ours(params):
    live = denoiser.bind(params, description)
    frozen = denoiser.bind(jax.lax.stop_gradient(params), description)
    return diffusion_loss(key, live, frozen, x_0, **loss_settings(1.0))

  bound = denoiser.bind(params, description)
  null = np.zeros((*x_t.shape, 8), np.float32)
  logits = quick_jit(lambda *inputs: bound.logits(bound.encode(*inputs)))
  probs = toys.softmax_np(logits(x_t, null, sigma), toys.MASK)
  signal = np.float32(probs @ params['backbone']['vocab_embed']['embedding'])

  def constant(params):
    network = denoiser.bind(params, description)
    nll = masked_nll(network, x_t, x_0, signal, sigma, toys.MASK)
    return jnp.mean(weight * nll)

  found, wanted = quick_jit(lambda p: (jax.grad(ours)(p), jax.grad(constant)(p)))(
    params
  )
  assert np.any(found['self_conditioning']['projection']['kernel'] != 0)
  # Sums of a few thousand float32 products of the size of the largest gradient.
  scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(wanted))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5 * scale, rtol=1e-3),
    found,
    wanted,
  )


def test_null_signal():
  found = null_signal(toys.network(WEIGHTS), jnp.zeros((2, 3), jnp.int32))
  assert found.shape == (2, 3, toys.DIM) and found.dtype == jnp.float32
  assert np.all(found == 0)
