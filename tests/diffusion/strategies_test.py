"""Strategies against plain NumPy written from the papers, exact laws, and promises."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback
from scipy import stats

from scmdm_jax.diffusion import strategies
from scmdm_jax.diffusion.sampling import Sampler, sample
from scmdm_jax.diffusion.schedules import Cosine, LogLinear
from scmdm_jax.diffusion.strategies import (
  P2,
  Ancestral,
  Confidence,
  Dream,
  EntropyBound,
  Factor,
  FirstHitting,
  Joint,
  MaskGIT,
  Plan,
  ReMDM,
  Threshold,
  View,
)
from tests.compiling import quick_jit, split_key, uniform
from tests.diffusion import exact, toys

# Failures of a right program: fewer than one run in a thousand over all tests here.
P_VALUE = 1e-5
EPS = 1e-3


def keys_of(seed, batch):
  return split_key(jax.random.key(seed), batch)


# --- `choose`, one example at a time, from the formulae ---------------------------


def best(scores, among, count):
  """The `count` highest of the positions `among`; equal ones from the left."""
  order = sorted(among, key=lambda i: (-scores[i], i))
  return set(order[: max(int(count), 0)])


def maskgit(e, strategy):
  ratio = (e.step + 1) / e.steps
  stay = math.floor(e.count * math.cos(math.pi / 2 * ratio))
  scores = e.measure + strategy.tau * (1 - ratio) * e.gumbel
  return best(scores, e.masked, max(len(e.masked) - stay, 1)), set()


def llada(e, strategy):
  base, rest = divmod(e.count, e.steps)
  return best(e.measure, e.masked, base + (1 if e.step < rest else 0)), set()


def dream(e, strategy):
  times = np.linspace(1, strategy.eps, e.steps + 1)
  number = int(len(e.masked) * (1 - times[e.step + 1] / times[e.step]))
  confidence = np.exp(e.measure) if strategy.measure == 'log_prob' else e.measure
  if strategy.alg_temp == 0:
    return best(confidence, e.masked, number), set()
  # Gumbel top-k is a draw without replacement by softmax(confidence / alg_temp).
  return best(confidence / strategy.alg_temp + e.gumbel, e.masked, number), set()


def threshold(e, strategy):
  sure = {i for i in e.masked if np.exp(e.measure[i]) >= strategy.tau}
  return sure | best(e.measure, e.masked, 1), set()


def factor(e, strategy):
  confidence = np.exp(e.measure)
  falling = sorted((confidence[i] for i in e.masked), reverse=True)
  number = 0
  for rank, c in enumerate(falling, start=1):
    if rank > 1 and c < 1 - strategy.factor / (rank + 1):
      break
    number = rank
  return best(confidence, e.masked, number), set()


def entropy_bound(e, strategy):
  entropy = -e.measure
  chosen, total = set(), 0.0
  for i in sorted(e.masked, key=lambda i: (entropy[i], i)):
    if total > strategy.bound:
      break
    chosen.add(i)
    total += entropy[i]
  return chosen, set()


def remdm(e, strategy):
  alpha_t, alpha_s = e.alphas[e.step], e.alphas[e.step + 1]
  sigma_max = min(1, (1 - alpha_s) / alpha_t) if alpha_t > 0 else 1
  if strategy.rule == 'cap':
    sigma = {i: min(strategy.eta, sigma_max) for i in range(e.length)}
  elif strategy.rule == 'rescale':
    sigma = {i: strategy.eta * sigma_max for i in range(e.length)}
  elif strategy.rule == 'conf':
    weights = {i: np.exp(-np.exp(e.certainty[i])) for i in e.revealed}
    sigma = {i: w / sum(weights.values()) * sigma_max for i, w in weights.items()}
    assert not sigma or np.isclose(sum(sigma.values()), sigma_max)
  else:
    t, s = 1 - e.step / e.steps, 1 - (e.step + 1) / e.steps
    on = t <= strategy.t_on and s > strategy.t_off
    sigma = {i: strategy.eta if on else 0 for i in range(e.length)}
  reveal = {
    i
    for i in e.masked
    if e.uniform[i] < (alpha_s - (1 - sigma.get(i, 0)) * alpha_t) / (1 - alpha_t)
  }
  return reveal, {i for i in e.revealed if e.uniform[i] < sigma[i]}


def path_planning(e, strategy):
  scores = np.where(
    np.isin(np.arange(e.length), list(e.masked)), 1, strategy.eta
  ) * np.float64(e.measure)
  writable = e.masked | e.revealed
  mask = best(-scores, writable, math.floor((1 - e.alphas[e.step + 1]) * e.count))
  # Equal scores: the sort above prefers the left for masking, the paper says nothing.
  return e.masked - mask, e.revealed & mask


class Example:
  """One example of a view, with sets of positions in place of arrays."""

  def __init__(self, view, b, noise):
    self.step, self.steps = int(view.step), view.num_steps
    self.alphas = np.float64(view.plan.alphas)
    self.count = int(view.plan.count[b])
    self.masked = set(np.flatnonzero(view.masked[b]))
    self.revealed = set(np.flatnonzero(view.revealed[b]))
    self.measure = np.float64(view.measure[b])
    self.certainty = np.float64(view.certainty[b])
    self.length = len(self.measure)
    self.gumbel, self.uniform = (np.float64(n[b]) for n in noise)


SIZE, STEPS = 9, 5


@quick_jit
def noise_of(keys):
  """What a strategy may draw: numbers by position from the example's key."""
  draw = functools.partial(jax.random.gumbel, shape=(SIZE,), mode='high')
  flat = functools.partial(jax.random.uniform, shape=(SIZE,))
  return jax.vmap(draw)(keys), jax.vmap(flat)(keys)


def random_view(seed, step, alphas, ties):
  """Rows with nothing, one and everything masked, and any others."""
  rng = np.random.default_rng(seed)
  kind = rng.choice(3, (12, SIZE), p=[0.5, 0.3, 0.2])  # Masked, revealed, prompt.
  kind[0], kind[1], kind[2], kind[3] = 0, 1, 2, 2
  kind[3, 4] = 0
  kind[4, :] = [1] * 8 + [0]
  measure = -rng.gamma(1, 0.5, kind.shape)
  if ties:
    # Eighths: their sums are exact, and many are equal.
    measure = np.round(8 * measure) / 8
  return View(
    keys=keys_of(seed, len(kind)),
    step=jnp.int32(step),
    num_steps=STEPS,
    plan=Plan(
      alphas=np.float32(alphas),
      sigmas=np.zeros((STEPS, len(kind)), np.float32),
      count=np.sum(kind < 2, -1).astype(np.int32),
    ),
    masked=kind == 0,
    revealed=kind == 1,
    measure=np.float32(measure),
    certainty=np.float32(-rng.gamma(1, 1, kind.shape)),
  )


LOG_LINEAR = [0, *(1 - (1 - EPS) * (1 - np.arange(1, STEPS) / STEPS)), 1]
# Up to alpha_on = 0.9 at t_on, constant, then on: t = 1, .8, .6, .4, .2, 0.
LOOP = [0, 0.9 * (1 - (1 - EPS) * 0.25 / 0.45), 0, 0.9, 0.9, 1]
LOOP[2] = 0.9 * (1 - (1 - EPS) * 0.05 / 0.45)
LOOP[1] = 0.9 * (1 - (1 - EPS) * 0.25 / 0.45)


@pytest.mark.parametrize(
  ('strategy', 'plain', 'alphas'),
  [
    (MaskGIT(), maskgit, LOG_LINEAR),
    (MaskGIT(tau=0.0), maskgit, LOG_LINEAR),
    (Confidence(), llada, LOG_LINEAR),
    (Dream(), dream, LOG_LINEAR),
    (Dream('log_prob', alg_temp=0.3), dream, LOG_LINEAR),
    (Dream('margin', alg_temp=0.3, eps=0.1), dream, LOG_LINEAR),
    (Threshold(0.8), threshold, LOG_LINEAR),
    (Threshold(1.0), threshold, LOG_LINEAR),
    (Factor(1.0), factor, LOG_LINEAR),
    (Factor(2.5), factor, LOG_LINEAR),
    (EntropyBound(0.5), entropy_bound, LOG_LINEAR),
    (EntropyBound(0.0), entropy_bound, LOG_LINEAR),
    (ReMDM('cap', eta=0.3), remdm, LOG_LINEAR),
    (ReMDM('rescale', eta=0.6), remdm, LOG_LINEAR),
    (ReMDM('conf'), remdm, LOG_LINEAR),
    (ReMDM('loop', eta=0.1), remdm, LOOP),
    (P2(), path_planning, LOG_LINEAR),
    (P2(eta=0.2), path_planning, LOG_LINEAR),
  ],
  ids=str,
)
def test_choose_equals_the_plain_rule(strategy, plain, alphas):
  choose = quick_jit(lambda view: strategy.choose(view._replace(num_steps=STEPS)))
  chosen = []
  for step, ties in itertools.product(range(STEPS), [False, True]):
    view = random_view(7 * step + ties, step, alphas, ties)
    if ties and isinstance(strategy, P2):
      continue  # Which of two equal ones is masked is nobody's promise.
    choice = choose(view)
    noise = noise_of(view.keys)
    for b in range(len(view.masked)):
      reveal, remask = plain(Example(view, b, noise), strategy)
      assert set(np.flatnonzero(choice.reveal[b])) == reveal
      found = choice.remask
      found = set() if found is None else set(np.flatnonzero(found[b]))
      assert found == remask
      chosen.append((len(reveal), len(remask)))
  revealed, remasked = np.sum(chosen, 0)
  assert revealed > 0
  assert (remasked > 0) == isinstance(strategy, ReMDM | P2)


def test_p2_with_equal_scores_masks_as_many_as_it_should():
  view = random_view(3, 2, LOG_LINEAR, False)
  view = view._replace(measure=np.full_like(view.measure, -0.5))
  choice = quick_jit(lambda v: P2().choose(v._replace(num_steps=STEPS)))(view)
  left = np.sum(view.masked & ~choice.reveal, -1) + np.sum(choice.remask, -1)
  wanted = np.floor((1 - LOG_LINEAR[3]) * np.asarray(view.plan.count))
  assert np.array_equal(left, wanted)


def test_the_loop_keeps_its_alphas():
  plan = ReMDM('loop').start(
    keys_of(0, 2), jnp.ones((2, SIZE), bool), LogLinear(EPS), STEPS
  )
  np.testing.assert_allclose(plan.alphas, LOOP, atol=1e-6)
  # Noise levels of those alphas, as a network in training has seen them.
  levels = -np.log(np.maximum(LOOP[:-1], EPS))
  np.testing.assert_allclose(plan.sigmas, np.tile(levels[:, None], 2), atol=1e-5)


def test_the_step_of_revealing():
  # The uniform number of a position passes the fraction visible after that step.
  keys = keys_of(1, 40)
  masked = jnp.ones((40, SIZE), bool)
  for schedule in (LogLinear(), Cosine()):
    plan = quick_jit(lambda keys, s=schedule: Ancestral().start(keys, masked, s, 7))(
      keys
    )
    u = np.asarray(noise_of(keys)[1])
    after = np.float32(
      [*(float(schedule(jnp.float32(1 - i / 7))) for i in range(1, 7)), 1]
    )
    wanted = np.sum(u[..., None] >= after, -1)
    assert np.array_equal(plan.reveal_step, wanted)
    assert len(np.unique(wanted)) == 7


# --- Through the sampler ---------------------------------------------------------

WEIGHTS = toys.weights(0)
T = 8
EARLY = (FirstHitting(), Threshold(0.6), Factor(1.5), EntropyBound(0.7))
ALL = (
  Ancestral(),
  Joint(),
  *EARLY,
  MaskGIT(),
  Confidence(),
  Confidence('margin'),
  Dream(),
  Dream('margin', alg_temp=0.5),
  ReMDM('cap'),
  ReMDM('conf'),
  ReMDM('loop'),
  P2(),
)
calls = []


@functools.partial(quick_jit, static_argnums=(2, 3))
def run(keys, x_init, strategy, num_steps):
  network = toys.network(
    WEIGHTS, lambda *_: io_callback(lambda: calls.append(1), None, ordered=True)
  )
  noise = 'low' if isinstance(strategy, Joint) else 'high'
  sampler = Sampler(
    LogLinear(), toys.MASK, num_steps, strategy, temperature=0.8, noise=noise
  )
  found = sample(keys, network, x_init, sampler)
  return found.tokens, found.evaluations


def count_calls(*arguments):
  calls.clear()
  tokens, evaluations = run(*arguments)
  jax.effects_barrier()
  assert len(calls) == evaluations
  return np.asarray(tokens), int(evaluations)


def prompts(seed):
  x_init = toys.clean_tokens(seed, 6)
  x_init[np.random.default_rng(seed + 100).random(x_init.shape) < 0.5] = toys.MASK
  x_init[0] = toys.MASK
  x_init[1] = toys.clean_tokens(seed + 1, 1)
  x_init[2] = x_init[1]
  x_init[2, 3] = toys.MASK
  return x_init


@pytest.mark.parametrize('strategy', ALL, ids=str)
def test_every_strategy_keeps_the_promises_of_the_sampler(strategy):
  compilations = run._cache_size()
  x_init, keys = prompts(5), keys_of(6, 6)
  tokens, evaluations = count_calls(keys, x_init, strategy, T)
  visible = x_init != toys.MASK
  assert tokens.dtype == np.int32
  assert np.array_equal(tokens[visible], x_init[visible])
  assert not np.any(tokens == toys.MASK)
  assert np.all((tokens >= 0) & (tokens < toys.VOCAB))
  # What is evaluated is what was said.
  assert strategy.early_exit == (strategy in EARLY)
  if strategy == FirstHitting():
    assert evaluations == toys.LENGTH
  elif strategy in EARLY:
    assert 1 <= evaluations < toys.LENGTH
  else:
    assert evaluations == T
  # Nothing to write.
  done = toys.clean_tokens(8, 6)
  kept, evaluations = count_calls(keys, done, strategy, T)
  assert np.array_equal(kept, done)
  assert evaluations == (0 if strategy in EARLY else T)
  # Other neighbours in another order; the two examples are the first and last.
  others = np.roll(prompts(9), 1, axis=0)
  others[[4, 1]] = x_init[[0, 5]]
  mixed = keys_of(10, 6).at[jnp.array([4, 1])].set(keys[jnp.array([0, 5])])
  found, _ = count_calls(mixed, others, strategy, T)
  assert np.array_equal(found[[4, 1]], tokens[[0, 5]])
  assert not np.array_equal(found[[0, 5]], tokens[[0, 5]])
  assert run._cache_size() == compilations + 1


# One of each kind: drawn before the loop, early exit, one that looks back.
@pytest.mark.parametrize('strategy', [FirstHitting(), EntropyBound(0.7), P2()], ids=str)
def test_an_example_alone(strategy):
  x_init, keys = prompts(5), keys_of(6, 6)
  whole, together = count_calls(keys, x_init, strategy, T)
  evaluations = []
  for b in range(6):
    tokens, number = count_calls(keys[b : b + 1], x_init[b : b + 1], strategy, T)
    assert np.array_equal(tokens[0], whole[b])
    evaluations.append(number)
  # A batch takes as long as its slowest example.
  assert max(evaluations) == together
  if strategy.early_exit:
    assert evaluations[1] == 0 and evaluations[2] == 1


@pytest.mark.parametrize(
  'strategy', [FirstHitting(), MaskGIT(), Confidence(), Dream(), P2()], ids=str
)
@pytest.mark.parametrize('num_steps', [1, 3])
def test_fewer_steps_than_positions(strategy, num_steps):
  x_init = prompts(11)
  tokens, evaluations = count_calls(keys_of(12, 6), x_init, strategy, num_steps)
  visible = x_init != toys.MASK
  assert np.array_equal(tokens[visible], x_init[visible])
  assert not np.any(tokens == toys.MASK)
  assert evaluations == num_steps


def test_greedy_dream_reveals_the_surest_first():
  # At temperature 0 its measure is that of temperature 1: not a tie everywhere.
  probs = np.float64([[0.4, 0.6], [0.1, 0.9], [0.5, 0.5], [0.3, 0.7]])
  log_probs = jnp.log(jnp.asarray(np.pad(probs, ((0, 0), (0, 1)), constant_values=1)))
  network = toys.Toy(
    lambda x_t, signal, sigma: jnp.tile(jnp.float32(log_probs)[None], (len(x_t), 1, 1)),
    lambda hidden: hidden,
    lambda probs: jnp.zeros((*probs.shape[:-1], 1), jnp.float32),
    1,
  )
  x_init = jnp.full((1, 4), 2, jnp.int32)
  for measure in ('log_prob', 'entropy', 'margin'):
    found = quick_jit(
      lambda keys, measure=measure: sample(
        keys,
        network,
        x_init,
        Sampler(LogLinear(), 2, 8, Dream(measure), temperature=0.0, top_p=0.95),
        keep_trajectory=True,
      )
    )(keys_of(13, 1))
    states = np.asarray(found.trajectory)[:, 0]
    first = [int(np.argmax(states[:, i] != 2)) for i in range(4)]
    assert sorted(range(4), key=lambda i: first[i]) == [1, 3, 0, 2]
    assert list(states[-1]) in ([1, 1, 0, 1], [1, 1, 1, 1])


# --- Exact laws -------------------------------------------------------------------

JOINT = exact.random_joint(1, 2, 3)


@functools.partial(quick_jit, static_argnums=(1, 2))
def sample_table(key, strategy, num_steps):
  network = exact.table_network(jnp.asarray(exact.posterior_table(JOINT)))
  keys = jax.random.split(key, 2**14)
  x_init = jnp.full((len(keys), 3), 2, jnp.int32)
  return sample(keys, network, x_init, Sampler(LogLinear(), 2, num_steps, strategy))


def p_value(tokens, law):
  cells = np.ravel_multi_index(np.asarray(tokens).T, law.shape)
  counts = np.bincount(cells, minlength=law.size)
  return stats.chisquare(counts, counts.sum() * law.ravel()).pvalue


def ancestral_law(joint, alphas):
  """The law of ancestral sampling in few steps: what a step reveals is independent.

  Sum over the step at which each position is revealed.
  """
  table = exact.posterior_table(joint)
  length, clean = joint.ndim, joint.shape[0]
  law = np.zeros(joint.shape)
  steps = range(len(alphas) - 1)
  for path in itertools.product(steps, repeat=length):
    weight = np.prod(np.diff(alphas)[list(path)])
    for x in itertools.product(range(clean), repeat=length):
      p = 1.0
      for i, at in enumerate(path):
        seen = tuple(v if when < at else clean for v, when in zip(x, path, strict=True))
        p *= np.exp(np.float64(table[seen][i, x[i]]))
      law[x] += weight * p
  return law


def test_first_hitting_draws_from_the_joint_law():
  found = sample_table(jax.random.key(14), FirstHitting(), 3)
  assert found.evaluations == 3
  assert p_value(found.tokens, JOINT) > P_VALUE


def test_ancestral_draws_from_its_exact_law():
  alphas = np.array([0, 1 - (1 - EPS) * 2 / 3, 1 - (1 - EPS) / 3, 1])
  law = ancestral_law(JOINT, alphas)
  np.testing.assert_allclose(law.sum(), 1, rtol=1e-6)
  found = sample_table(jax.random.key(15), Ancestral(), 3)
  assert p_value(found.tokens, law) > P_VALUE
  # Three steps are not the joint law, and the test can tell.
  assert p_value(found.tokens, JOINT) < 1e-20


def test_ancestral_with_many_steps_draws_from_the_joint_law():
  steps = 256
  # All bias comes from two positions in one step: 3 pairs, each 1 in 256. Of 16,384
  # samples that moves at most 192, while their noise is about 45 per cell.
  found = sample_table(jax.random.key(16), Ancestral(), steps)
  alphas = np.array([0, 1 - (1 - EPS) * 0.5, 1])
  assert p_value(found.tokens, JOINT) > P_VALUE
  assert p_value(found.tokens, ancestral_law(JOINT, alphas)) < 1e-20


def test_first_hitting_order_is_a_random_permutation():
  count, masked = 20_000, np.array([True, True, False, True])
  start = quick_jit(
    lambda key: FirstHitting().start(
      jax.random.split(key, count), jnp.tile(masked[None], (count, 1)), LogLinear(), 5
    )
  )
  turns = np.asarray(start(jax.random.key(17)).reveal_step)
  orders, counts = np.unique(turns[:, masked], axis=0, return_counts=True)
  assert sorted(map(tuple, orders)) == sorted(itertools.permutations(range(3)))
  assert stats.chisquare(counts).pvalue > P_VALUE
  # What is not to be written comes after everything that is.
  assert np.all(turns[:, ~masked] == 3)


@pytest.mark.parametrize('number', [1, 4])
def test_first_hitting_times_are_order_statistics(number):
  # alpha = 1 - t: positions are masked until independent uniform times, so event i of
  # n happens at the (n - i)-th smallest, of law Beta(n - i, i + 1).
  batch, steps = 4096, 6
  masked = jnp.tile(jnp.arange(5)[None] < number, (batch, 1))
  schedule = LogLinear(eps=1e-6)
  plan = quick_jit(
    lambda key: FirstHitting().start(
      jax.random.split(key, batch), masked, schedule, steps
    )
  )(jax.random.key(18))
  sigmas = np.float64(plan.sigmas)
  assert sigmas.shape == (steps, batch)
  times = -np.expm1(-sigmas) / (1 - 1e-6)
  assert np.all(np.diff(sigmas, axis=0) <= 0)
  for i in range(number):
    law = stats.beta(number - i, i + 1)
    assert stats.kstest(times[i], law.cdf).pvalue > P_VALUE
    assert abs(times[i].mean() - law.mean()) < 4 * law.std() / np.sqrt(batch)
  assert sigmas.max() <= -np.log(1e-6) + 1e-2


PROBS = np.array([0.5, 0.3, 0.0, 0.15, 0.05])


@pytest.mark.parametrize(
  'strategy',
  [
    ReMDM('cap', eta=0.1),
    ReMDM('rescale', eta=0.5),
    ReMDM('loop', eta=0.05),
    ReMDM('conf'),
  ],
  ids=str,
)
def test_remasking_keeps_the_marginals(strategy):
  batch, length, steps = 512, 64, 8

  @quick_jit
  def trajectory(keys):
    sampler = Sampler(LogLinear(), 2, steps, strategy)
    network = toys.fixed_network(np.maximum(PROBS, 1e-38))
    x_init = jnp.full((batch, length), 2, jnp.int32)
    found = sample(keys, network, x_init, sampler, keep_trajectory=True)
    plan = strategy.start(keys, x_init == 2, LogLinear(), steps)
    return found.trajectory, plan.alphas

  states, alphas = map(np.asarray, trajectory(keys_of(19, batch)))
  n = batch * length
  left = n
  for i, x_t in enumerate(states):
    alpha_t, alpha_s = np.float64(alphas[i : i + 2])
    masked = np.sum(x_t == 2)
    wanted = n * (1 - alpha_s)
    if strategy.rule == 'conf':
      # Sums to sigma_max per example, so that one more token at most is hidden than
      # an ancestral step would leave.
      again = batch * min(1, (1 - alpha_s) / alpha_t) if i > 0 else 0
      wanted = left * (1 - alpha_s) / (1 - alpha_t) + again
    # Given the step before, the number is a sum of independent bits.
    assert abs(masked - wanted) <= 4 * np.sqrt(max(wanted * (1 - wanted / n), 1e-9))
    left = masked
    counts = np.bincount(x_t[x_t != 2], minlength=5)
    real = PROBS > 0
    assert counts[2] == 0
    expected = counts.sum() * PROBS[real]
    assert stats.chisquare(counts[real], expected).pvalue > P_VALUE
  # Something was masked again, or this shows nothing.
  again = (states[:-1] != 2) & (states[1:] == 2)
  assert again.sum() > 100


def test_draws_before_the_loop_follow_the_schedule():
  u = uniform(jax.random.key(20), (4,))
  assert np.all(u < 1)  # So that the last alpha, 1, reveals what is left.
  plan = strategies.Ancestral().start(
    keys_of(21, 2), jnp.ones((2, 3), bool), Cosine(), 1
  )
  assert not np.any(plan.reveal_step)
  assert plan.alphas.dtype == plan.sigmas.dtype == jnp.float32
