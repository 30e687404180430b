"""Which tensor of a safetensors file is which parameter of ours, in both directions.

Two layouts: 'mdlm' (kuleshov-group/mdlm-owt and its family) and 'llama' (Hugging Face
LlamaForCausalLM without biases, embeddings untied). One table per layout serves import,
export and the accounting of both.

Self-conditioning parameters, which no other project has, travel in the same file under
their own dotted names (`self_conditioning.projection.kernel`), stored as they are: not
transposed, [in, out].
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from scmdm_jax.errors import BadInput
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import DiTConfig, ModelDescription

SELF_CONDITIONING = 'self_conditioning'
INV_FREQ = 'backbone.rotary_emb.inv_freq'

# (parameter path, tensor name, transposed). A PyTorch linear weight is [out, in], our
# kernels are [in, out].
_MDLM_RULES = (
  (r'backbone/vocab_embed/embedding', r'backbone.vocab_embed.embedding', False),
  (r'backbone/sigma_map/mlp_([02])/kernel', r'backbone.sigma_map.mlp.\1.weight', True),
  (r'backbone/sigma_map/mlp_([02])/bias', r'backbone.sigma_map.mlp.\1.bias', False),
  (
    r'backbone/blocks_(\d+)/norm([12])/scale',
    r'backbone.blocks.\1.norm\2.weight',
    False,
  ),
  (
    r'backbone/blocks_(\d+)/(attn_qkv|attn_out|adaLN_modulation)/kernel',
    r'backbone.blocks.\1.\2.weight',
    True,
  ),
  (
    r'backbone/blocks_(\d+)/mlp_([02])/kernel',
    r'backbone.blocks.\1.mlp.\2.weight',
    True,
  ),
  (r'backbone/blocks_(\d+)/mlp_([02])/bias', r'backbone.blocks.\1.mlp.\2.bias', False),
  (
    r'backbone/blocks_(\d+)/adaLN_modulation/bias',
    r'backbone.blocks.\1.adaLN_modulation.bias',
    False,
  ),
  (
    r'backbone/output_layer/norm_final/scale',
    r'backbone.output_layer.norm_final.weight',
    False,
  ),
  (
    r'backbone/output_layer/(linear|adaLN_modulation)/kernel',
    r'backbone.output_layer.\1.weight',
    True,
  ),
  (
    r'backbone/output_layer/(linear|adaLN_modulation)/bias',
    r'backbone.output_layer.\1.bias',
    False,
  ),
)
_LLAMA_RULES = (
  (r'backbone/embed_tokens/embedding', r'model.embed_tokens.weight', False),
  (
    r'backbone/layers_(\d+)/(input_layernorm|post_attention_layernorm)/scale',
    r'model.layers.\1.\2.weight',
    False,
  ),
  (
    r'backbone/layers_(\d+)/(self_attn|mlp)/(\w+_proj)/kernel',
    r'model.layers.\1.\2.\3.weight',
    True,
  ),
  (r'backbone/norm/scale', r'model.norm.weight', False),
  (r'backbone/lm_head/kernel', r'lm_head.weight', True),
)
_RULES = {'mdlm': _MDLM_RULES, 'llama': _LLAMA_RULES}


@dataclasses.dataclass(frozen=True)
class Entry:
  """One line of a manifest: where a tensor goes and how it lies in the file."""

  path: tuple[str, ...]  # Keys of the parameter in our nested dictionary.
  shape: tuple[int, ...]  # In the file.
  transposed: bool


def manifest(description: ModelDescription) -> dict[str, Entry]:
  """Every tensor a file of this model holds, by its name there."""
  entries = {}
  leaves = jax.tree_util.tree_leaves_with_path(denoiser.abstract_params(description))
  for keys, leaf in leaves:
    path = tuple(key.key for key in keys)
    name, transposed = _tensor_name(description.layout, path)
    shape = tuple(reversed(leaf.shape)) if transposed else tuple(leaf.shape)
    entries[name] = Entry(path, shape, transposed)
  return entries


def check(
  description: ModelDescription, shapes: Mapping[str, tuple[int, ...]], where: str
) -> None:
  """Compares the tensors of a file with what the description wants, strictly.

  Args:
    description: the model the file should hold.
    shapes: shape of every tensor in the file.
    where: the file or directory, for the message.

  Raises:
    BadInput: one message with all unknown, missing and misshaped tensors.
  """
  blocks = description.architecture.num_blocks
  if blocks > len(shapes):  # Listing what is missing could take for ever.
    raise BadInput(
      f'{where}: config.json wants {blocks} blocks, but only {len(shapes)} tensors '
      'are there'
    )
  wanted = {name: entry.shape for name, entry in manifest(description).items()}
  ignored = _ignored(description)
  problems = [f'unknown {n}' for n in shapes if n not in wanted and n not in ignored]
  problems += [f'missing {n} {list(wanted[n])}' for n in wanted if n not in shapes]
  problems += [
    f'misshaped {n}: got {list(shapes[n])}, wanted {list(shape)}'
    for n, shape in {**wanted, **ignored}.items()
    if n in shapes and tuple(shapes[n]) != shape
  ]
  if problems:
    raise BadInput(
      f'{where}: {len(problems)} tensors do not fit the {description.layout} layout '
      f'of its config.json: {"; ".join(problems)}'
    )


def params_from_tensors(
  description: ModelDescription, tensors: Iterable[tuple[str, np.ndarray]]
) -> dict[str, Any]:
  """Builds the parameter tree out of tensors that passed `check`.

  Args:
    description: the model.
    tensors: (name, float32 array) in any order, read one by one.

  Returns:
    `{'backbone': {...}, 'self_conditioning': {...}}` of float32 NumPy arrays.
  """
  entries = manifest(description)
  params: dict[str, Any] = {'backbone': {}, SELF_CONDITIONING: {}}
  for name, value in tensors:
    entry = entries.get(name)
    if entry is None:  # Positions are recomputed.
      continue
    node = params
    for key in entry.path[:-1]:
      node = node.setdefault(key, {})
    node[entry.path[-1]] = np.ascontiguousarray(value.T) if entry.transposed else value
  return params


def tensors_from_params(
  description: ModelDescription, params: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Inverse of `params_from_tensors`: float32 arrays by their names in the file."""
  tensors = {}
  for name, entry in manifest(description).items():
    node: Any = params
    for key in entry.path:
      node = node[key]
    value = np.asarray(node, np.float32)
    tensors[name] = np.ascontiguousarray(value.T) if entry.transposed else value
  if isinstance(description.architecture, DiTConfig):
    size = _head_size(description)
    inv_freq = 10000.0 ** (-np.arange(0, size, 2, dtype=np.float64) / size)
    tensors[INV_FREQ] = inv_freq.astype(np.float32)
  return tensors


def _tensor_name(layout: str, path: tuple[str, ...]) -> tuple[str, bool]:
  if path[0] == SELF_CONDITIONING:
    return '.'.join(path), False
  joined = '/'.join(path)
  for pattern, name, transposed in _RULES[layout]:
    match = re.fullmatch(pattern, joined)
    if match:
      return match.expand(name), transposed
  raise LookupError(f'the {layout} layout has no rule for parameter {joined}')


def _head_size(description: ModelDescription) -> int:
  arch = description.architecture
  return arch.hidden_dim // arch.num_heads


def _ignored(description: ModelDescription) -> dict[str, tuple[int, ...]]:
  """Buffers that older files carry: accepted when they have this shape, never read."""
  shape = (_head_size(description) // 2,)
  if isinstance(description.architecture, DiTConfig):
    return {INV_FREQ: shape}
  layers = range(description.architecture.num_blocks)
  return {f'model.layers.{i}.self_attn.rotary_emb.inv_freq': shape for i in layers}
