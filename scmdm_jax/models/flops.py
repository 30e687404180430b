"""Floating point operations of a network, counted from its sizes.

A multiplication and an addition are two operations; norms, softmaxes and the vectors of
adaLN, one per example, are left out, and attention is not halved: it sees both ways.
"""

import jax

from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription


def blocks(description: ModelDescription, length: int) -> float:
  """Of all blocks and the injection, per token of a sequence of `length`."""
  arch, record, products = description.architecture, description.record, 0
  for path, leaf in jax.tree_util.tree_leaves_with_path(
    denoiser.abstract_params(description)
  ):
    names = [key.key for key in path]
    if names[-1] != 'kernel' or '/'.join(names[1:-1]) == record.head:
      continue
    if not {*record.per_example} & {*names}:
      products += leaf.size
  seen = record.seen(arch, length)
  return 2 * products + 4 * arch.num_blocks * seen * arch.hidden_dim


def vocabulary(description: ModelDescription) -> float:
  """Of scores or of a signal, which cost the same, per position that is read."""
  return 2 * description.architecture.vocab_size * description.architecture.hidden_dim


def training(description: ModelDescription, length: int, rate: float) -> float:
  """Of a step, per token, half of the positions being masked on average.

  Forward and backward are three evaluations; the `rate` share of examples has one more,
  which needs no gradient, and its signal. Rematerialisation is not counted.
  """
  evaluation = blocks(description, length) + vocabulary(description) / 2
  if description.mask_id is None:
    return 3 * (blocks(description, length) + vocabulary(description))
  return 3 * evaluation + rate * (evaluation + vocabulary(description) / 2)


def sampling(
  description: ModelDescription, length: int, num_steps: int, self_conditioning: bool
) -> float:
  """Of a whole sample, per token, half of the positions being masked on average."""
  reads = vocabulary(description) / 2 * (2 if self_conditioning else 1)
  return num_steps * (blocks(description, length) + reads)
