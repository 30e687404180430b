"""How the signal of the previous prediction enters the network (ours, not the paper's).

The signal is one vector per position, computed where the logits are: the expected
embedding under the previous clean-state prediction. Every injection is a function of
that vector without biases, so that

* the null signal is the zero vector and stays an exact zero after injection, and
* freshly initialised, the last factor being zero, the model equals its base bit for bit
  whatever the previous prediction (`table` makes the signal itself from its zeros).

The paper does not publish its injection; `embedding` is our default.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec as P

_zeros = nn.initializers.zeros_init()


def expected_row(probs: jax.Array, table: jax.Array) -> jax.Array:
  """Mean row float32 [..., D] of `table` [V, D] under `probs` float32 [..., V].

  Neither side is rounded: a bfloat16 table meets float32 probabilities and sums. On
  GPUs, whose products would make a float32 table of it every time: `row_of_halves`.
  """
  if table.dtype != jnp.bfloat16:
    return _row(probs, table)
  return jax.lax.platform_dependent(probs, table, cuda=row_of_halves, default=_row)


def _row(probs: jax.Array, table: jax.Array) -> jax.Array:
  dimensions = (((probs.ndim - 1,), (0,)), ((), ()))
  return jax.lax.dot_general(
    probs, table, dimensions, preferred_element_type=jnp.float32
  )


def row_of_halves(probs: jax.Array, table: jax.Array) -> jax.Array:
  """Returns `expected_row` by one bfloat16 product: of what rounding leaves, too.

  Two halves of 8 bits each: a weight is off by at most 2^-17 of itself.
  """
  # A cast there and back is one that compilers may leave out.
  high = jax.lax.reduce_precision(probs, exponent_bits=8, mantissa_bits=7)
  rows = _row(jnp.stack([high, probs - high]).astype(jnp.bfloat16), table)
  return rows[0] + rows[1]


class _FromEmbeddings(nn.Module):
  """The signal is the expected embedding under the previous prediction."""

  def signal(self, probs: jax.Array, table: jax.Array, mask_id: int) -> jax.Array:
    """The signal float32 [..., D] of a prediction.

    Args:
      probs: float32 [..., V].
      table: [V, D], the model's own embeddings, as a constant.
      mask_id: the row of the mask.
    """
    del mask_id
    return expected_row(probs, table)


class Embedding(_FromEmbeddings):
  """Expected embedding through a zero-initialised D x D projection."""

  vocab_size: int

  dim: int

  def setup(self):
    self.projection = nn.Dense(self.dim, use_bias=False, kernel_init=_zeros)

  def __call__(self, signal: jax.Array) -> jax.Array:
    return self.projection(signal)


class MLP(_FromEmbeddings):
  """Normalised, then a gated MLP with a last layer from zero (as DiffusionGemma)."""

  vocab_size: int
  dim: int

  def setup(self):
    self.norm = nn.RMSNorm(epsilon=1e-6)
    self.gate = nn.Dense(self.dim, use_bias=False)
    self.up = nn.Dense(self.dim, use_bias=False)
    self.down = nn.Dense(self.dim, use_bias=False, kernel_init=_zeros)

  def __call__(self, signal: jax.Array) -> jax.Array:
    x = self.norm(signal)
    return self.down(nn.gelu(self.gate(x), approximate=True) * self.up(x))


class Table(nn.Module):
  """A table of its own, V x D, from zero: the signal is already what is added."""

  vocab_size: int
  dim: int

  def setup(self):
    self.table = self.param('table', _zeros, (self.vocab_size, self.dim))

  def signal(self, probs: jax.Array, table: jax.Array, mask_id: int) -> jax.Array:
    """As of `Embedding`, of its own table."""
    del table, mask_id
    return expected_row(probs, self.table)

  def __call__(self, signal: jax.Array) -> jax.Array:
    return signal


class Gate(nn.Module):
  """Blends the mask embedding towards the expected one: m + g (p E - m), g from zero.

  The signal carries the difference `p E - m`, so that zero means "nothing known".
  """

  vocab_size: int
  dim: int

  def signal(self, probs: jax.Array, table: jax.Array, mask_id: int) -> jax.Array:
    """As of `Embedding`, less the embedding of the mask."""
    expected = expected_row(probs, table)
    # Times the sum, one for probabilities: linear in weights of any sum.
    mask_row = jnp.broadcast_to(table[mask_id], expected.shape)
    return expected - probs.sum(-1, keepdims=True) * mask_row

  @nn.compact
  def __call__(self, signal: jax.Array) -> jax.Array:
    # Made here, since `signal` is evaluated without it.
    gate = self.param('gate', _zeros, (self.dim,))
    return signal * jnp.broadcast_to(jnp.tanh(gate), signal.shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Injection:
  """The record of an injection: all that is known of it outside its module."""

  name: str
  # Made of V and D; `signal` as in `Embedding`, and `__call__`, which maps a signal
  # [..., D] to what is added to the embedding of the mask. `signal` is given no
  # parameters but those `per_token`, so that others are made in `__call__`.
  module: Callable[[int, int], nn.Module]
  splits: Mapping[str, P]  # Of every parameter, by its path; see `family.Row`.
  card: str  # Completes "the signal is ..." in the model card.
  per_token: tuple[str, ...] = ()  # Parameters with a row per token of the vocabulary.

  def __post_init__(self):
    """Refuses a record with pieces missing.

    Raises:
      ValueError: what is missing.
    """
    missing = [m for m in ('signal', '__call__') if not hasattr(self.module, m)]
    missing += [f for f in ('name', 'splits', 'card') if not getattr(self, f)]
    missing += [f'split of {p}' for p in self.per_token if p not in self.splits]
    if missing:
      raise ValueError(f'injection {self.name!r}: it has no {", ".join(missing)}')


# By name; with 'none' the previous prediction is not read.
INJECTIONS: dict[str, Injection | None] = {
  'none': None,
  'embedding': Injection(
    name='embedding',
    module=Embedding,
    splits={'projection/kernel': P('fsdp', None)},
    card='the expected embedding `p @ E`; added: `signal @ projection.kernel`',
  ),
  'mlp': Injection(
    name='mlp',
    module=MLP,
    splits={
      'norm/scale': P(),
      'gate/kernel': P('fsdp', 'tensor'),
      'up/kernel': P('fsdp', 'tensor'),
      'down/kernel': P('tensor', 'fsdp'),
    },
    card=(
      'the expected embedding `p @ E`; added: `(gelu(n @ gate.kernel) * (n @ '
      'up.kernel)) @ down.kernel` with `n` = RMS norm of the signal (eps 1e-6) times '
      '`norm.scale`, and the tanh form of gelu'
    ),
  ),
  'table': Injection(
    name='table',
    module=Table,
    splits={'table': P('tensor', 'fsdp')},
    card='the expected row `p @ table`; added as it is',
    per_token=('table',),
  ),
  'gate': Injection(
    name='gate',
    module=Gate,
    splits={'gate': P()},
    card=(
      'the difference `p @ E - m` to the embedding `m` of the mask; added: '
      '`tanh(gate) * signal`'
    ),
  ),
}


def make_injection(name: str, vocab_size: int, dim: int) -> nn.Module | None:
  """The module called `name`; None for 'none'."""
  record = INJECTIONS[name]
  return None if record is None else record.module(vocab_size, dim)
