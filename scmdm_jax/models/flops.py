"""Floating point operations of a network, counted from its sizes.

A multiplication and an addition are two operations; norms, softmaxes and the vectors of
adaLN, one per example, are left out, and attention is not halved: it sees both ways.
"""

import jax

from scmdm_jax.models import denoiser, lora
from scmdm_jax.models.description import ModelDescription


def _products(description: ModelDescription) -> tuple[int, int]:
  """Multiplications with kernels of blocks and injection, and with low-rank factors."""
  record, kernels, factors = description.record, 0, 0
  for path, leaf in jax.tree_util.tree_leaves_with_path(
    denoiser.abstract_params(description)
  ):
    names = [key.key for key in path]
    if '/'.join(names[1:-1]) == record.head or {*record.per_example} & {*names}:
      continue
    kernels += leaf.size * (names[-1] == 'kernel')
    factors += leaf.size * (names[-1] in lora.FACTORS)
  return kernels, factors


def _attention(description: ModelDescription, length: int) -> float:
  arch = description.architecture
  seen = description.record.seen(arch, length)
  return 4 * arch.num_blocks * seen * arch.hidden_dim


def blocks(description: ModelDescription, length: int) -> float:
  """Of all blocks and the injection, per token of a sequence of `length`."""
  return 2 * sum(_products(description)) + _attention(description, length)


def vocabulary(description: ModelDescription) -> float:
  """Of scores or of a signal, which cost the same, per position that is read."""
  return 2 * description.architecture.vocab_size * description.architecture.hidden_dim


def training(description: ModelDescription, length: int, rate: float) -> float:
  """Of a step, per token, half of the positions being masked on average.

  Backward is two evaluations; one for weights that are frozen beside an adapter, which
  have no gradient. The `rate` share of examples has one evaluation more, which needs
  none, and its signal. Of models with blocks all but the reading is done twice: of the
  clean example and of the noised one. Rematerialisation is not counted.
  """
  copies = 2 if description.block_length else 1
  kernels, factors = (copies * n for n in _products(description))
  read = vocabulary(description) / (1 if description.mask_id is None else 2)
  forward = copies * blocks(description, length) + read
  backward = 2 * (2 * factors + copies * _attention(description, length))
  backward += (2 if description.adapter is None else 1) * (2 * kernels + read)
  first = 0 if description.mask_id is None else rate * (forward + read)
  return forward + backward + first


def sampling(
  description: ModelDescription,
  length: int,
  num_steps: int,
  self_conditioning: bool,
  number: int = 1,
  positions: int = 0,
) -> float:
  """Of a whole sample, per token, half of the positions being masked on average.

  Args:
    description: the model.
    length: of an example.
    num_steps: of all blocks.
    self_conditioning: whether a signal is made of what is read.
    number: of blocks that are written in turn; only what is being written is read.
    positions: of an example that are evaluated in all steps, with a cache; 0: all are
      in each.
  """
  reads = vocabulary(description) / 2 * (2 if self_conditioning else 1) / number
  times = positions / length if positions else num_steps
  return times * blocks(description, length) + num_steps * reads
