"""Binds the parameters of a classifier into plain functions.

Legend: `B` batch, `L` length, `C` classes, `D` features.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.execution import Execution


class Classifier(NamedTuple):
  """A classifier with its parameters bound.

  features: rows int32 [B, L] -> float32 [B, D].
  logits: rows int32 [B, L] -> class scores float32 [B, C].
  """

  features: Callable[[jax.Array], jax.Array]
  logits: Callable[[jax.Array], jax.Array]


def bind(
  params: Any, description: ModelDescription, execution: Execution | None = None
) -> Classifier:
  """Plain functions of `params`, the tree of `denoiser.init_params`.

  Raises:
    ValueError: not a classifier.
  """
  if description.objective != 'classify':
    raise ValueError(
      f'found a model of the family {description.family!r}; wanted a classifier'
    )
  execution = execution or Execution()
  weights = params['backbone']
  if execution.dtype:
    weights = jax.tree.map(lambda p: p.astype(execution.dtype), weights)
  module = description.record.module(description.architecture, execution)

  def apply(tokens: jax.Array, method: str) -> jax.Array:
    result: Any = module.apply({'params': weights}, tokens, method=method)
    return result

  return Classifier(
    lambda tokens: apply(tokens, 'features'), lambda tokens: apply(tokens, '__call__')
  )
