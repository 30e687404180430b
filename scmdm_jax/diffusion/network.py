"""What the method asks of a network. Nothing here knows how it is made."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from scmdm_jax.diffusion.checks import check


class Placement(Protocol):
  """Keeps arrays on their devices. Every function returns the values it is given.

  A batch may be split three ways; on one device all three counts are 1.
  """

  @property
  def batch_shards(self) -> int:
    """S: a batch is S equal runs of examples, each on devices of its own."""
    ...

  @property
  def sequence_shards(self) -> int:
    """P: the positions of an example are P equal runs, each on devices of its own."""
    ...

  @property
  def vocabulary_shards(self) -> int:
    """The scores of a position are so many equal runs, each on devices of its own."""
    ...

  def constrain(self, x: jax.Array) -> jax.Array:
    """Keeps examples and positions of `x` [B, L, ...] on their devices."""
    ...

  def constrain_batch(self, x: jax.Array) -> jax.Array:
    """Keeps the S runs of examples along the first axis of `x` on their devices."""
    ...

  def constrain_groups(self, x: jax.Array) -> jax.Array:
    """Keeps the S times P groups along the first axis of `x` on their devices."""
    ...

  def apart(
    self, function: Callable[..., Any], shared: Any, split: Any, whole: Any
  ) -> Any:
    """Returns `function(placement, shared, split, whole)`, each group for itself.

    `split` are [B, L, ...]. Gradients of `shared` are summed over the groups once.
    """
    ...


class Cached(Protocol):
  """How a network is evaluated on a run of positions, keys of all others being kept.

  A cache is a tree of arrays; nobody here looks into it.
  """

  @property
  def start(self) -> Callable[..., Any]:
    """(B, L) -> a cache that keeps nothing yet."""
    ...

  @property
  def encode(self) -> Callable[..., tuple[jax.Array, Any]]:
    """(x int32 [B, N], signal [B, N, D], sigma [B], cache, start, fresh) -> two.

    Hidden [B, N, D] of the N positions from `start` on, and the cache, which from
    `fresh` on has their keys and values in it; both int32 [], or [B] of every example.
    Queries see all that is kept, as far as the network lets them.
    """
    ...


class Network(Protocol):
  """A denoiser with its parameters bound, and where its arrays live.

  `logits` and `signal` are pytrees (`jax.tree_util.Partial`) whose leaves are the
  parameters they read, if gradients are to reach those.
  """

  @property
  def signal_dim(self) -> int:
    """D."""
    ...

  @property
  def encode(self) -> Callable[..., jax.Array]:
    """(x_t int32 [B, L], signal [B, L, D], sigma [B][, mask]) -> hidden [B, L, D].

    The signal of a visible position must not matter: nothing is predicted there. The
    mask says who attends to whom, a tree of [B, ...]; without it everybody to all.
    """
    ...

  @property
  def logits(self) -> Callable[..., jax.Array]:
    """Hidden [..., D] -> raw scores [..., V], the mask column among them."""
    ...

  @property
  def signal(self) -> Callable[..., jax.Array]:
    """Probabilities [..., V] -> what the next evaluation sees of them, [..., D].

    Linear, so that it may be given weights which sum to something else than one.
    """
    ...

  @property
  def placement(self) -> Placement:
    """Keeps arrays on their devices; see `Placement`."""
    ...

  @property
  def block_length(self) -> int:
    """N: a position sees its own block of N and all earlier ones; 0: every position."""
    ...

  @property
  def beside(self) -> Callable[..., jax.Array] | None:
    """`encode` of rows [B, 2 L]: a clean example and behind it a noised copy.

    Clean blocks see themselves and earlier clean ones, noised blocks themselves and
    earlier clean ones (BD3LM, arXiv 2503.09573). None without blocks.
    """
    ...

  @property
  def cached(self) -> Cached | None:
    """See `Cached`; None: it cannot be given a cache."""
    ...

  @property
  def of(self) -> 'Callable[[jax.Array], Network] | None':
    """Numbers int32 [N] of examples of its batch -> the network of those.

    None: it knows nothing of single examples, and is the same for all.
    """
    ...


class Pairs(NamedTuple):
  """A network of blocks on rows [B, 2 L]: clean examples and noised copies behind them.

  Its `encode` is the `beside` of the network it is made of.
  """

  encode: Callable[..., jax.Array]
  logits: Callable[..., jax.Array]
  signal: Callable[..., jax.Array]
  signal_dim: int
  placement: Placement
  block_length: int = 0
  beside: None = None
  cached: None = None
  of: None = None


def pairs_of(network: Network) -> Pairs:
  """Returns the network as it is trained; it has blocks."""
  assert network.beside is not None
  return Pairs(
    network.beside,
    network.logits,
    network.signal,
    network.signal_dim,
    network.placement,
  )


def number_of_blocks(block_length: int, length: int) -> int:
  """Returns K of examples of `length` tokens with such blocks of a network, 0: none.

  Raises:
    ValueError: blocks that do not divide the length.
  """
  block = block_length or length
  check(not length % block, 'length', length, f'a multiple of the blocks of {block}')
  return length // block


def null_signal(network: Network, x_t: jax.Array) -> jax.Array:
  """Returns the signal of "nothing predicted yet": zeros, float32 [B, L, D].

  Injections are linear or bias-free in the signal, so zero stays an exact zero behind
  them. Zero *logits* would not do: their softmax is the mean embedding.
  """
  return jnp.zeros((*x_t.shape, network.signal_dim), jnp.float32)


def encode(
  network: Network, x_t: jax.Array, signal: jax.Array, sigma: jax.Array, mask: Any
) -> jax.Array:
  """Returns `network.encode`'s hidden [B, L, D]; it is given a mask if there is one."""
  rest = () if mask is None else (mask,)
  return network.encode(x_t, signal, sigma, *rest)
