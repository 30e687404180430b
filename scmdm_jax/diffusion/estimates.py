"""How the prediction that conditions a training example is made: the recipes.

A sampler feeds back what it predicted one step earlier, under the signal of the step
before. Training has to make such a prediction up, without gradient:

* `same_t`: one pass at the same x_t under the null signal; the paper's (SCMDM,
  arXiv 2604.26985).
* `unrolled:passes=K`: n passes at the same x_t, n uniform on 1..K, each under the
  signal of the one before, the first under the null signal. Ours.
* `earlier_t:low=a,high=b`: the pass is made at t + gap, gap log-uniform on [a, b], on a
  superset of the masks, as the sampler's was. With `passes=K` n of them, at t + n gap,
  ..., t + gap. Ours.

A pass costs a third of a vanilla training step (forward 1, backward 2), so that a step
at rate r costs 1 + r (K + 1) / 6 vanilla ones: 4/3 for `same_t` at rate 1, 5/3 for
`unrolled:passes=3`, and that at rate 0.9 1.6.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from scmdm_jax.diffusion import readout
from scmdm_jax.diffusion.network import Network, null_signal

_NAMED = {
  'same_t': {},
  'unrolled': {'passes': 3},
  'earlier_t': {'passes': 1, 'low': 0.01, 'high': 0.2},
}


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A recipe; see the module.

  passes: K, the most passes without gradient.
  low: smallest gap between the times of two passes; 0 with `high` 0: none.
  high: largest gap.
  """

  passes: int = 1
  low: float = 0.0
  high: float = 0.0

  def __post_init__(self):
    if not 1 <= self.passes <= 64:
      raise ValueError(f'passes is {self.passes}; wanted 1 to 64')
    if not (0 < self.low <= self.high <= 1 or self.low == self.high == 0):
      raise ValueError(f'gaps from {self.low} to {self.high}; wanted 0 < low <= high')

  def cost(self, rate: float) -> float:
    """Returns the cost of a step at `rate` over a vanilla one, in FLOPs."""
    return 1 + rate * (self.passes + 1) / 6


SAME_T = Estimate()


def parse(text: str) -> Estimate:
  """Returns the recipe written as NAME or NAME:field=value,... .

  Raises:
    ValueError: an unknown name or field, or a value that is not one.
  """
  name, _, written = text.partition(':')
  if name not in _NAMED:
    raise ValueError(f'{name!r} is none of {", ".join(_NAMED)}')
  values: dict[str, Any] = dict(_NAMED[name])
  for item in filter(None, written.split(',')):
    field, _, value = item.partition('=')
    if field not in values:
      raise ValueError(f'{name} has no field {field!r}')
    values[field] = int(value) if field == 'passes' else float(value)
  return Estimate(**values)


def is_estimate(text: str) -> bool:
  """Returns whether `parse` takes it."""
  try:
    parse(text)
  except ValueError:
    return False
  return True


def predict_signal(
  network: Network,
  frozen: Network,
  x_t: jax.Array,
  signal: jax.Array,
  sigma: jax.Array,
  mask_id: int,
) -> jax.Array:
  """Evaluates at `x_t` under `signal`; returns the signal of the next, [B, L, D].

  The prediction comes from `frozen` (the same network with constant parameters), so it
  needs no gradient buffers; only a signal table of `network`'s own can learn from it.
  """
  hidden = frozen.encode(x_t, jax.lax.stop_gradient(signal), sigma)
  return readout.read_prediction(network, frozen, hidden, x_t == mask_id, mask_id)


def _share(rate: float, passes: int, i: int, examples: int) -> float:
  """Returns how many of `examples` take pass number `i`, counted from 0, on average."""
  return round(rate * (passes - i) / passes * examples, 6)


def passes_taken(
  key: jax.Array, batch: int, shards: int, rate: float, passes: int
) -> jax.Array:
  """Draws how many passes each example takes, int32 [B], falling within a shard.

  Of each shard the first are conditioned, a share `rate` of all; of those a K-th takes
  each number of passes from K to 1. Where a count is not whole, the last example is
  taken with the probability that makes the expected share exact. The key is consumed.
  """
  examples = batch // shards
  u = jax.random.uniform(key)
  count = jnp.zeros(examples, jnp.int32)
  for i in range(passes):
    share = _share(rate, passes, i, examples)
    whole = math.floor(share)
    place = jnp.arange(examples)
    count += (place < whole) | ((place == whole) & (u < share - whole))
  return jnp.tile(count, shards)


def earlier_times(
  key: jax.Array, t: jax.Array, taken: jax.Array, estimate: Estimate
) -> list[jax.Array]:
  """Returns the times of passes 0, 1, ..., float32 like t: t + (n - i) gap, at most 1.

  Args:
    key: consumed.
    t: float32 [B], the times of the examples, or [B, K] of their blocks.
    taken: int32 [B], n of each; what becomes of passes beyond is of no meaning.
    estimate: see `Estimate`.
  """
  low, high = math.log(estimate.low), math.log(estimate.high)
  gap = jnp.exp(jax.random.uniform(key, t.shape, minval=low, maxval=high))
  taken = taken.reshape(-1, *[1] * (t.ndim - 1))
  return [jnp.minimum(t + (taken - i) * gap, 1) for i in range(estimate.passes)]


def mixed_signal(
  key: jax.Array,
  network: Network,
  frozen: Network,
  x_t: jax.Array,
  sigma: jax.Array,
  mask_id: int,
  rate: float,
  passes: int = 1,
  earlier: Sequence[tuple[jax.Array, jax.Array]] = (),
) -> jax.Array:
  """Returns the signal of a batch, `rate` of it conditioned, float32 [B, L, D].

  Which examples take how many passes is `passes_taken`'s: the first of the batch, and
  no work is spent on the rest, which get the null signal. Examples and times arrive in
  random order, so which come first carries no information. With shards this holds of
  each, so that all have the same work.

  Args:
    key: consumed.
    network: the denoiser; see `network.Network`.
    frozen: the same with constant parameters.
    x_t: int32 [B, L].
    sigma: float32 [B].
    mask_id: the mask token.
    rate: in [0, 1]; static.
    passes: K; static.
    earlier: (x [B, L], sigma [B]) of each pass, where it is not made at `x_t`, on
      supersets of its masks.
  """
  shards = network.placement.batch_shards
  examples = x_t.shape[0] // shards
  signal = null_signal(network, x_t)
  if rate == 0:
    return signal
  taken = passes_taken(key, x_t.shape[0], shards, rate, passes)

  def split(x: jax.Array) -> jax.Array:
    return x.reshape(shards, -1, *x.shape[1:])

  for i in range(passes):
    share = _share(rate, passes, i, examples)
    count = math.ceil(share)

    def first(x: jax.Array, count: int = count) -> jax.Array:
      x = split(x)[:, :count]
      return network.placement.constrain_batch(x.reshape(-1, *x.shape[2:]))

    x, level = earlier[i] if earlier else (x_t, sigma)
    predicted = predict_signal(
      network, frozen, first(x), first(signal), first(level), mask_id
    )
    predicted, before = split(predicted), split(signal)
    if count > share:
      chosen = split(taken)[:, count - 1, None, None] > i
      predicted = predicted.at[:, -1].set(
        jnp.where(chosen, predicted[:, -1], before[:, count - 1])
      )
    predicted = jnp.concatenate([predicted, before[:, count:]], axis=1)
    signal = network.placement.constrain(predicted.reshape(signal.shape))
  return signal
