"""What a strategy chooses, against plain NumPy written from the papers."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.diffusion.planning import Plan, View
from scmdm_jax.diffusion.schedules import Cosine, LogLinear
from scmdm_jax.diffusion.strategies import (
  P2,
  Ancestral,
  Confidence,
  Dream,
  EntropyBound,
  Factor,
  MaskGIT,
  ReMDM,
  Threshold,
)
from tests.compiling import quick_jit, split_key

EPS = 1e-3


def keys_of(seed, batch):
  return split_key(jax.random.key(seed), batch)


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
    self.count = int(view.plan.to_write[b])
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
      to_write=np.sum(kind < 2, -1).astype(np.int32),
    ),
    masked=kind == 0,
    revealed=kind == 1,
    measure=np.float32(measure),
    certainty=np.float32(-rng.gamma(1, 1, kind.shape)),
  )


LOG_LINEAR = [0, *(1 - (1 - EPS) * (1 - np.arange(1, STEPS) / STEPS)), 1]
# Up to alpha_on = 0.9 at t_on = 0.55, constant to t_off = 0.05, and on to 1;
# t = 1, 0.8, 0.6, 0.4, 0.2, 0.
LOOP = [0, *(0.9 * (1 - (1 - EPS) * x / 0.45) for x in (0.25, 0.05)), 0.9, 0.9, 1]


PLAIN = {
  MaskGIT: maskgit,
  Confidence: llada,
  Dream: dream,
  Threshold: threshold,
  Factor: factor,
  EntropyBound: entropy_bound,
  ReMDM: remdm,
  P2: path_planning,
}


@pytest.mark.parametrize(
  'strategy',
  [
    MaskGIT(),
    MaskGIT(tau=0.0),
    Confidence(),
    Dream(),
    Dream('log_prob', alg_temp=0.3),
    Dream('margin', alg_temp=0.3, eps=0.1),
    Threshold(0.8),
    Threshold(1.0),
    Factor(1.0),
    Factor(2.5),
    EntropyBound(0.5),
    EntropyBound(0.0),
    ReMDM('cap', eta=0.3),
    ReMDM('rescale', eta=0.6),
    ReMDM('conf'),
    ReMDM('loop', eta=0.1),
    P2(),
    P2(eta=0.2),
  ],
  ids=str,
)
def test_choose_equals_the_plain_rule(strategy):
  plain = PLAIN[type(strategy)]
  alphas = LOOP if strategy == ReMDM('loop', eta=0.1) else LOG_LINEAR
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
  wanted = np.floor((1 - LOG_LINEAR[3]) * np.asarray(view.plan.to_write))
  assert np.array_equal(left, wanted)


def test_the_loop_keeps_its_alphas():
  masked = jnp.ones((2, SIZE), bool)
  plan = quick_jit(
    lambda keys: ReMDM('loop').start(keys, masked, LogLinear(EPS), STEPS)
  )(keys_of(0, 2))
  np.testing.assert_allclose(plan.alphas, LOOP, atol=1e-6)
  # Noise levels of those alphas, as a network in training has seen them.
  levels = np.tile(-np.log(np.maximum(LOOP[:-1], EPS))[:, None], 2)
  # 1 - 0.999 in float32 is good to 6e-5 of itself.
  np.testing.assert_allclose(plan.sigmas, levels, atol=1e-4)


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
    assert plan.alphas.dtype == plan.sigmas.dtype == jnp.float32
    assert len(np.unique(wanted)) == 7
