"""How parameters are split over the mesh: read off the records, by parameter's path."""

import re
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from scmdm_jax.errors import BadInput
from scmdm_jax.models.families import FAMILIES
from scmdm_jax.models.injection import INJECTIONS
from scmdm_jax.models.lora import FACTORS


def _found(path: str) -> list[tuple[P, bool]]:
  """Splits that records have for a parameter, and whether the vocabulary runs along it.

  Optimizer moments and averages end in their parameter's path and follow it.
  """
  match = re.search(r'(backbone|self_conditioning)/(.*)', path)
  found: list[tuple[P, bool]] = []
  if match and match[1] == 'backbone':
    layer, _, parameter = match[2].rpartition('/')
    # The factors of an adapter lie as the side of the kernel that they share with it.
    factor = parameter in FACTORS
    for family in FAMILIES.values():
      row = family.row(f'{layer}/kernel' if factor else match[2])
      shared = {layer, match[2]} & {family.table, family.head} - {''}
      if row:
        wide, out = (*row[1], None, None)[:2]
        split = {'lora_a': P(wide, None), 'lora_b': P(None, out)}.get(parameter, row[1])
        found.append((split, bool(shared) and parameter not in ('bias', 'lora_a')))
  elif match:
    for injection in filter(None, INJECTIONS.values()):
      if match[2] in injection.splits:
        split = injection.splits[match[2]]
        found.append((split, match[2] in injection.per_token))
  return list(dict.fromkeys(found))


def _one(path: str) -> tuple[P, bool]:
  found = _found(path)
  if len(found) != 1:
    raise ValueError(f'{path}: {len(found)} sharding rules match; wanted one')
  return found[0]


def spec_of(path: str) -> P:
  """Returns the split of the parameter at `path`, as the records of its family say.

  Raises:
    ValueError: no rule, or several that contradict each other.
  """
  return _one(path)[0]


def shardings(mesh: Mesh, tree: Any) -> Any:
  """Returns the sharding of every leaf of parameters or of a training state.

  Scalars, such as step counts, are on every device.

  Raises:
    BadInput: a size of a parameter does not divide by that of a mesh axis.
    ValueError: a parameter without a rule.
  """

  def place(path: Any, leaf: Any) -> NamedSharding:
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    spec = spec_of(name) if leaf.ndim else P()
    for size, axis in zip(leaf.shape, spec, strict=False):
      if axis is not None and size % mesh.shape[axis]:
        raise BadInput(
          f'mesh.{axis}: found {mesh.shape[axis]}; wanted a divisor of {size}, a size '
          f'of {name} {list(leaf.shape)}'
        )
    return NamedSharding(mesh, spec)

  return jax.tree_util.tree_map_with_path(place, tree)


def placed(mesh: Mesh, tree: Any, dtype: str = '') -> Any:
  """Returns the shapes of `tree`, in `dtype` if one is given, with their `shardings`.

  Raises:
    As `shardings`.
  """

  def place(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, dtype or leaf.dtype, sharding=sharding)

  return jax.tree.map(place, tree, shardings(mesh, tree))


def gather_vocabulary(mesh: Mesh, params: Any) -> Any:
  """Embeddings, heads and tables of `params` split over `tensor` alone."""

  def gathered(path: Any, leaf: jax.Array) -> jax.Array:
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    split, has_vocabulary = _one(name)
    if not has_vocabulary:
      return leaf
    spec = P(*(axis if axis == 'tensor' else None for axis in split))
    return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, spec))

  return jax.tree_util.tree_map_with_path(gathered, params)
