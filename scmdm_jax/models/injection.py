"""How the signal of the previous prediction enters the network (ours, not the paper's).

The signal is one vector per position, computed where the logits are: the expected
embedding under the previous clean-state prediction. Every injection is a function of
that vector without biases, so that

* the null signal is the zero vector and stays an exact zero after injection, and
* freshly initialised, the last factor being zero, the model equals its base bit for bit
  whatever the previous prediction (`table` makes the signal itself from its zeros).

The paper does not publish its injection; `embedding` is our default.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

_zeros = nn.initializers.zeros_init()


def expected_row(probs: jax.Array, table: jax.Array) -> jax.Array:
  """Mean row float32 [..., D] of `table` [V, D] under `probs` float32 [..., V].

  Neither side is rounded: a bfloat16 table meets float32 probabilities and sums.
  """
  dimensions = (((probs.ndim - 1,), (0,)), ((), ()))
  return jax.lax.dot_general(
    probs, table, dimensions, preferred_element_type=jnp.float32
  )


class Embedding(nn.Module):
  """Expected embedding through a zero-initialised D x D projection."""

  dim: int

  def setup(self):
    self.projection = nn.Dense(self.dim, use_bias=False, kernel_init=_zeros)

  def __call__(self, signal: jax.Array) -> jax.Array:
    return self.projection(signal)


class MLP(nn.Module):
  """Normalised, then a gated MLP with a last layer from zero (as DiffusionGemma)."""

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

  def lookup(self, probs: jax.Array) -> jax.Array:
    """Expected row [..., D] under `probs` [..., V]."""
    return expected_row(probs, self.table)

  def __call__(self, signal: jax.Array) -> jax.Array:
    return signal


class Gate(nn.Module):
  """Blends the mask embedding towards the expected one: m + g (p E - m), g from zero.

  The signal carries the difference `p E - m`, so that zero means "nothing known".
  """

  dim: int

  def setup(self):
    self.gate = self.param('gate', _zeros, (self.dim,))

  def __call__(self, signal: jax.Array) -> jax.Array:
    return signal * jnp.broadcast_to(jnp.tanh(self.gate), signal.shape)


def make_injection(name: str, vocab_size: int, dim: int) -> nn.Module:
  """The module called `name`: it maps a signal [..., D] to an addend [..., D]."""
  return {
    'embedding': lambda: Embedding(dim),
    'mlp': lambda: MLP(dim),
    'table': lambda: Table(vocab_size, dim),
    'gate': lambda: Gate(dim),
  }[name]()
