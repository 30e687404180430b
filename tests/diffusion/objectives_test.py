"""The loss against entropies, quadrature and a two-pass loop written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.diffusion.estimates import mixed_signal, passes_taken
from scmdm_jax.diffusion.network import null_signal
from scmdm_jax.diffusion.noise import batch_of
from scmdm_jax.diffusion.objectives import T_MIN, diffusion_loss, masked_nll
from scmdm_jax.diffusion.schedules import (
  Cosine,
  LogLinear,
  Polynomial,
  nelbo_weight,
)
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from tests.compiling import quick_jit, split_key
from tests.diffusion import drawn, exact, toys
from tests.models import parameters

SCHEDULES = [LogLinear(), Cosine(), Polynomial(2.0)]
LOG_LINEAR = SCHEDULES[0]
WEIGHTS = toys.weights(0)
bernoulli = quick_jit(jax.random.bernoulli)


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
  tokens = jnp.broadcast_to(jnp.array(x_0, jnp.int32), (1024, 3))
  network = exact.table_network(jnp.asarray(table))
  loss = quick_jit(
    jax.vmap(
      lambda key: diffusion_loss(
        key,
        network,
        network,
        batch_of(tokens),
        **loss_settings(0.0, schedule, mask_id=3),
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


def forward_process(key, batch, schedule, shown=0.0):
  """x_t, sigma and weight of a batch, by the documented order of keys."""
  key_t, key_mask, key_rate, _, key_shown = split_key(key, 5)
  x_0, t = batch.tokens, drawn.times(key_t, batch)
  alpha = 1 - (1 - schedule.eps) * t
  visible = drawn.thresholds(key_mask, batch) < alpha[:, None]
  if batch.target is not None:
    visible |= ~batch.target
  x_t = np.where(visible, x_0, toys.MASK)
  if shown:
    given = [bernoulli(k, shown) for k in drawn.keys_of(key_shown, batch)]
    x_t[:, 0] = np.where(given, x_0[:, 0], x_t[:, 0])
  return x_t, np.float32(-np.log(alpha)), (1 - schedule.eps) / (1 - alpha), key_rate


def predict(network, x_t, signal, sigma):
  logits = network.logits(network.encode(x_t, signal, sigma))
  return toys.softmax_np(logits, toys.MASK)


def two_pass_loss(key, batch, rate, shown=0.0):
  """The loss of SCMDM with NumPy: two passes at the same x_t for the chosen examples.

  LLaDA's with targets: per answer, over its own length.
  """
  network = toys.network_np(WEIGHTS)
  x_0 = batch.tokens
  x_t, sigma, weight, key_rate = forward_process(key, batch, LogLinear(), shown)
  conditioned = drawn.taken(key_rate, batch, rate)
  total = 0.0
  for b in range(len(x_0)):
    one, level = x_t[b : b + 1], sigma[b : b + 1]
    null = np.zeros((1, toys.LENGTH, toys.DIM))
    probs = predict(network, one, null, level)
    if conditioned[b]:
      probs = predict(network, one, network.signal(probs), level)
    nll = toys.nll_np(probs, x_0[b : b + 1])
    count = toys.LENGTH if batch.target is None else batch.target[b].sum()
    if count:
      total += weight[b] * nll[one == toys.MASK].sum() / count
  return total / len(x_0), sum(conditioned)


def batched(seed, size, target=None):
  tokens = toys.clean_tokens(seed, size)
  return drawn.clean(tokens, epoch=seed % 3, first=seed, target=target)


@pytest.mark.parametrize(('rate', 'size'), [(0.0, 4), (0.5, 4), (1.0, 4), (0.4, 4)])
def test_equals_a_plain_two_pass_computation(rate, size):
  network = toys.network(WEIGHTS)
  loss = quick_jit(
    lambda key, batch: diffusion_loss(
      key, network, network, batch, **loss_settings(rate)
    )
  )
  seen = set()
  for seed in range(6):
    batch, key = batched(seed, size), jax.random.key(seed)
    wanted, conditioned = two_pass_loss(key, batch, rate)
    # Float32 logits times weights up to 1 / T_MIN.
    assert loss(key, batch) == pytest.approx(wanted, rel=1e-4)
    seen.add(conditioned)
  assert seen == ({1, 2} if rate == 0.4 else {round(rate * size)})


@pytest.mark.parametrize('rate', [0.0, 0.5, 1.0])
@pytest.mark.slow
def test_only_targets_are_masked_and_answers_weigh_the_same(rate):
  network = toys.network(WEIGHTS)
  target = np.zeros((4, toys.LENGTH), bool)
  target[0, 2:], target[1, -1], target[2] = True, True, True  # The last has none.
  loss = quick_jit(
    lambda key, batch: diffusion_loss(
      key, network, network, batch, **loss_settings(rate)
    )
  )
  for seed in range(6):
    batch, key = batched(seed, 4, target), jax.random.key(seed)
    wanted, _ = two_pass_loss(key, batch, rate)
    assert loss(key, batch) == pytest.approx(wanted, rel=1e-4)
  nothing = batch._replace(target=np.zeros_like(target))
  value, gradient = quick_jit(
    jax.value_and_grad(
      lambda w: diffusion_loss(
        key, toys.network(w), network, nothing, **loss_settings(rate)
      )
    )
  )(WEIGHTS)
  assert value == 0
  assert all(np.all(g == 0) for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize('shown', [0.5, 1.0])
def test_a_class_that_is_shown_is_neither_masked_nor_scored(shown):
  network = toys.network(WEIGHTS)
  loss = quick_jit(
    lambda key, batch: diffusion_loss(
      key, network, network, batch, **loss_settings(1.0), shown=shown
    )
  )
  differ = 0
  for seed in range(6):
    batch, key = batched(seed, 4), jax.random.key(seed)
    wanted, _ = two_pass_loss(key, batch, 1.0, shown)
    assert loss(key, batch) == pytest.approx(wanted, rel=1e-4)
    differ += wanted != two_pass_loss(key, batch, 1.0)[0]
  assert differ  # Two of six at a half: where the class would have been masked.


@pytest.mark.parametrize(
  ('rate', 'batches'), [(0.0, [4]), (0.5, [2, 4]), (1.0, [4, 4]), (0.3, [2, 4])]
)
def test_first_pass_covers_only_what_it_must(rate, batches):
  seen = []
  network = toys.network(WEIGHTS, lambda x_t, *_: seen.append(x_t.shape[0]))
  jax.eval_shape(
    lambda key: diffusion_loss(
      key, network, network, batched(7, 4), **loss_settings(rate)
    ),
    jax.random.key(0),
  )
  assert seen == batches


@pytest.mark.parametrize(('rate', 'shards'), [(0.5, 1), (0.5, 3), (0.3, 2), (1.0, 2)])
def test_examples_without_a_pass_have_the_null_signal(rate, shards):
  network = toys.network(WEIGHTS)
  placement = toys.Shards(shards)
  size, key = 12, jax.random.key(8)
  batch = batched(5, size)
  x_t = jnp.full((size, toys.LENGTH), toys.MASK, jnp.int32)

  def signal(key):
    taken = passes_taken(key, batch, rate, 1)
    split = network._replace(placement=placement)
    passes = [(x_t, jnp.ones(size))]
    return mixed_signal(split, split, passes, toys.MASK, taken, rate)

  found = np.asarray(quick_jit(signal)(key))
  assert found.dtype == np.float32
  wanted = np.array(drawn.taken(key, batch, rate)) > 0
  assert np.any(found != 0, axis=(1, 2)).tolist() == wanted.tolist()
  assert abs(wanted.sum() - rate * size) < 1


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
  batch, key = batched(10, 4), jax.random.key(11)
  x_t, sigma, weight, _ = forward_process(key, batch, LogLinear())
  x_0 = batch.tokens
  weight = jnp.asarray(weight, jnp.float32)

  def ours(w):
    frozen = toys.network(jax.lax.stop_gradient(w))
    return diffusion_loss(key, toys.network(w), frozen, batch, **loss_settings(1.0))

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
  batch, key = batched(13, 4), jax.random.key(14)
  x_t, sigma, weight, _ = forward_process(key, batch, LogLinear())
  x_0 = batch.tokens
  weight = np.float32(weight)[:, None]

  def ours(params):
    live = denoiser.bind(params, description)
    frozen = denoiser.bind(jax.lax.stop_gradient(params), description)
    return diffusion_loss(key, live, frozen, batch, **loss_settings(1.0))

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
