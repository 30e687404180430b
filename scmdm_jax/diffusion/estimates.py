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
`unrolled:passes=3`, and that at rate 0.9 1.6. Beside an adapter, where the weights of
the base have no gradient (forward 1, backward 1), it costs half of one instead.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from scmdm_jax.diffusion import readout
from scmdm_jax.diffusion.network import Network, Placement, encode, null_signal
from scmdm_jax.diffusion.noise import Batch, shared_out

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
  mask: Any = None,
) -> jax.Array:
  """Evaluates at `x_t` under `signal`; returns the signal of the next, [B, L, D].

  The prediction comes from `frozen` (the same network with constant parameters), so it
  needs no gradient buffers; only a signal table of `network`'s own can learn from it.
  """
  hidden = encode(frozen, x_t, jax.lax.stop_gradient(signal), sigma, mask)
  return readout.read_prediction(network, frozen, hidden, x_t == mask_id, mask_id)


def passes_taken(key: jax.Array, batch: Batch, rate: float, passes: int) -> jax.Array:
  """Draws how many passes each example takes, int32 [B].

  A share `rate` is conditioned (`noise.shared_out`), and of those a K-th takes each
  number of passes from K to 1, in turn. The key is consumed.
  """
  chosen, rank = shared_out(key, batch, rate)
  return jnp.where(chosen, passes - rank % passes, 0)


def most_taking(rate: float, passes: int, i: int, examples: int) -> int:
  """Returns how many of `examples` in a row take pass `i`, from 0, at the most."""
  conditioned = math.ceil(round(rate * examples, 6))
  turns, rest = divmod(conditioned, passes)
  return turns * (passes - i) + min(rest, passes - i)


def earlier_times(
  keys: jax.Array, t: jax.Array, taken: jax.Array, estimate: Estimate
) -> list[jax.Array]:
  """Returns the times of passes 0, 1, ..., as t: t + (n - i) gap, at most 1.

  Args:
    keys: [B], consumed.
    t: float32 [B], the times of the examples, or [B, K] of their blocks.
    taken: int32 [B], n of each; what becomes of passes beyond is of no meaning.
    estimate: see `Estimate`.
  """
  low, high = math.log(estimate.low), math.log(estimate.high)
  gap = jnp.exp(
    jax.vmap(lambda k: jax.random.uniform(k, minval=low, maxval=high))(keys)
  )
  own = (-1, *[1] * (t.ndim - 1))  # Blocks of an example share its gap.
  taken, gap = taken.reshape(own), gap.reshape(own)
  return [jnp.minimum(t + (taken - i) * gap, 1) for i in range(estimate.passes)]


def mixed_signal(
  network: Network,
  frozen: Network,
  passes: Sequence[tuple[jax.Array, jax.Array]],
  mask_id: int,
  taken: jax.Array,
  rate: float,
  mask: Any = None,
) -> jax.Array:
  """Returns the signal of a batch, `rate` of it conditioned, float32 [B, L, D].

  An example that takes no pass has the null signal, and little work is spent on it:
  each shard of the batch gathers those that take a pass in front, and evaluates as many
  as there can be (`most_taking`), so that all have the same work.

  Args:
    network: the denoiser; see `network.Network`.
    frozen: the same with constant parameters.
    passes: (x int32 [B, L], sigma float32 [B]) of each of the K; each `x` is masked
      where the last one is, and may be elsewhere.
    mask_id: the mask token.
    taken: int32 [B], how many passes each example takes, of `passes_taken`.
    rate: in [0, 1]; static.
    mask: see `noise.Batch`.
  """
  signal = null_signal(network, passes[0][0])
  if rate == 0:
    return signal
  groups = _Shards(network.placement, taken)
  for i, (x, sigma) in enumerate(passes):
    count = most_taking(rate, len(passes), i, groups.size)
    inputs = [groups.first(v, count) for v in (x, signal, sigma, taken)]
    x, before, sigma, wanted = inputs
    seen = jax.tree.map(functools.partial(groups.first, count=count), mask)
    predicted = predict_signal(network, frozen, x, before, sigma, mask_id, seen)
    predicted = jnp.where(wanted[:, None, None] > i, predicted, before)
    signal = groups.put(signal, predicted, count)
  return signal


class _Shards:
  """The examples of each shard of a batch, those that take most passes in front.

  Args:
    placement: see `network.Placement`.
    taken: int32 [B], passes of each example.
  """

  def __init__(self, placement: Placement, taken: jax.Array):
    self._placement = placement
    self._number = placement.batch_shards
    self.size = len(taken) // self._number
    self._order = jnp.argsort(-taken.reshape(self._number, self.size), axis=1)

  def first(self, x: jax.Array, count: int) -> jax.Array:
    """Returns the first `count` of every shard of `x` [B, ...]."""
    if count == self.size:
      return x
    split = x.reshape(self._number, self.size, *x.shape[1:])
    found = jax.vmap(lambda x, i: x[i])(split, self._order[:, :count])
    return self._placement.constrain_batch(found.reshape(-1, *x.shape[1:]))

  def put(self, x: jax.Array, values: jax.Array, count: int) -> jax.Array:
    """Returns `x` [B, ...] with `values` where `first` found them."""
    if count == self.size:
      return values
    split = x.reshape(self._number, self.size, *x.shape[1:])
    values = values.reshape(self._number, count, *x.shape[1:])
    put = jax.vmap(lambda x, i, v: x.at[i].set(v))
    found = put(split, self._order[:, :count], values)
    return self._placement.constrain(found.reshape(x.shape))
