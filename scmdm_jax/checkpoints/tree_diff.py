"""How two parameter or state trees differ, on one line."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from scmdm_jax.errors import BadInput, DamagedData

_SHOWN = 8


def differences(saved: Any, wanted: Any) -> str:
  """Every leaf that is unknown, missing, or of another shape or dtype.

  Args:
    saved: pytree of arrays, `ShapeDtypeStruct`s or Orbax array metadata.
    wanted: another one. A NamedTuple equals a dictionary of the same fields and a
      tuple a list, since that is how Orbax records them; a typed PRNG key equals its
      data.

  Returns:
    The first differences with path, saved and wanted shape, and how many more there
    are; empty if there is none.
  """
  have, want = _leaves(saved), _leaves(wanted)
  problems = [f'unknown {p} {have[p]}' for p in have if p not in want]
  problems += [f'missing {p} {want[p]}' for p in want if p not in have]
  problems += [
    f'{p}: saved {have[p]}, wanted {want[p]}'
    for p in want
    if p in have and have[p] != want[p]
  ]
  more = [f'and {len(problems) - _SHOWN} more'] if len(problems) > _SHOWN else []
  return '; '.join([*problems[:_SHOWN], *more])


def refuse_differences(path: pathlib.Path, saved: Any, wanted: Any) -> None:
  """Compares what is saved at `path` with what is wanted.

  Raises:
    BadInput: with all `differences`, if there are any.
    DamagedData: `saved` is None, which is how Orbax reports metadata it cannot read.
  """
  if saved is None:
    raise DamagedData(
      f'{path}: its list of arrays cannot be read; files are missing or altered: use '
      'another checkpoint'
    )
  problems = differences(saved, wanted)
  if problems:
    raise BadInput(f'{path}: holds other arrays than this configuration: {problems}')


def _leaves(tree: Any) -> dict[str, str]:
  found = {}
  for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
    shape, dtype = tuple(leaf.shape), leaf.dtype
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
      key = jax.ShapeDtypeStruct(shape, dtype)
      data = jax.eval_shape(jax.random.key_data, key)
      shape, dtype = data.shape, data.dtype
    path = jax.tree_util.keystr(keys, simple=True, separator='/')
    found[path] = f'{dtype}{list(shape)}'
  return found
