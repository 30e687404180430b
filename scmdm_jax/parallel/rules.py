"""How parameters are split over the mesh: one table, matched on the parameter's path.

Kernels are [in, out]. `fsdp` splits the width of the residual stream, `tensor` the
width inside a layer and the vocabulary: a layer then needs one sum over `tensor`, and
no device ever holds the whole embedding or head. Fused kernels of queries, keys and
values are not split by heads, so `tensor` leaves them alone.
"""

import re
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from scmdm_jax.errors import BadInput

_DIT = (
  ('vocab_embed/embedding', P('tensor', 'fsdp')),
  ('sigma_map/.*|cond_map/.*', P()),
  (r'blocks_\d+/norm[12]/scale', P()),
  (r'blocks_\d+/attn_(qkv|out)/kernel', P('fsdp', None)),
  (r'blocks_\d+/mlp_0/kernel', P('fsdp', 'tensor')),
  (r'blocks_\d+/mlp_0/bias', P('tensor')),
  (r'blocks_\d+/mlp_2/kernel', P('tensor', 'fsdp')),
  (r'blocks_\d+/mlp_2/bias', P()),
  (r'(blocks_\d+|output_layer)/adaLN_modulation/kernel', P(None, 'fsdp')),
  (r'(blocks_\d+|output_layer)/adaLN_modulation/bias', P()),
  ('output_layer/norm_final/scale', P()),
  ('output_layer/linear/kernel', P('fsdp', 'tensor')),
  ('output_layer/linear/bias', P('tensor')),
)
_DECODER = (
  ('embed_tokens/embedding', P('tensor', 'fsdp')),
  (r'(layers_\d+/(input|post_attention)_layer)?norm/scale', P()),
  (r'layers_\d+/self_attn/[qkv]_proj/kernel', P('fsdp', 'tensor')),
  (r'layers_\d+/self_attn/[qkv]_proj/bias', P('tensor')),
  (r'layers_\d+/self_attn/o_proj/kernel', P('tensor', 'fsdp')),
  (r'layers_\d+/mlp/(gate|up)_proj/kernel', P('fsdp', 'tensor')),
  (r'layers_\d+/mlp/down_proj/kernel', P('tensor', 'fsdp')),
  ('lm_head/kernel', P('fsdp', 'tensor')),
)
# Its vocabulary of 50257 divides by no useful number.
_GPT2 = (
  ('w[tp]e/embedding', P(None, 'fsdp')),
  (r'(h_\d+/ln_[12]|ln_f)/(scale|bias)', P()),
  (r'h_\d+/attn/c_(attn|proj)/kernel', P('fsdp', None)),
  (r'h_\d+/attn/c_(attn|proj)/bias', P()),
  (r'h_\d+/mlp/c_fc/kernel', P('fsdp', 'tensor')),
  (r'h_\d+/mlp/c_fc/bias', P('tensor')),
  (r'h_\d+/mlp/c_proj/kernel', P('tensor', 'fsdp')),
  (r'h_\d+/mlp/c_proj/bias', P()),
)
# A judge: small, and whole on every device.
_CONV = (
  ('embed/embedding', P()),
  (r'stages_\d+/(down|mix)/(kernel|bias)', P()),
  (r'(stages_\d+/norm|norm_final)/scale', P()),
  ('head/(kernel|bias)', P()),
)
_INJECTIONS = (
  ('projection/kernel', P('fsdp', None)),
  ('norm/scale|gate', P()),
  ('(gate|up)/kernel', P('fsdp', 'tensor')),
  ('down/kernel', P('tensor', 'fsdp')),
  ('table', P('tensor', 'fsdp')),
)
RULES = (
  *((f'backbone/({path})', spec) for path, spec in (*_DIT, *_DECODER, *_GPT2, *_CONV)),
  *((f'self_conditioning/({path})', spec) for path, spec in _INJECTIONS),
)
_VOCABULARY = (
  r'.*/(vocab_embed|embed_tokens|wte|linear|lm_head|table)(/embedding|/kernel)?'
)


def spec_of(path: str) -> P:
  """The split of the parameter at `path`.

  Optimizer moments and averages end in their parameter's path and follow it.

  Raises:
    ValueError: no rule, or more than one.
  """
  name = re.sub(r'.*?(?=(backbone|self_conditioning)/)', '', path, count=1)
  found = [spec for pattern, spec in RULES if re.fullmatch(pattern, name)]
  if len(found) != 1:
    raise ValueError(f'{path}: {len(found)} sharding rules match; wanted one')
  return found[0]


def shardings(mesh: Mesh, tree: Any) -> Any:
  """The sharding of every leaf of a tree of parameters or of a training state.

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
  """The shapes of `tree`, in `dtype` if one is given, with their `shardings`.

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
    if not re.fullmatch(_VOCABULARY, name):
      return leaf
    spec = P(*(axis if axis == 'tensor' else None for axis in spec_of(name)))
    return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, spec))

  return jax.tree_util.tree_map_with_path(gathered, params)
