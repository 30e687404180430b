"""Which tensor of a safetensors file is which parameter of ours, in both directions.

One table per family of files serves import, export and the accounting of both:

* 'mdlm': kuleshov-group's MDLM and UDLM;
* 'llama', 'qwen2', 'dream': Hugging Face's names for the Llama family;
* 'llada': GSAI-ML's LLaDA, a Llama with names of its own;
* 'gpt2': Hugging Face's GPT-2;
* 'conv': our own classifier, kernels [..., in, out] as they are here.

Self-conditioning parameters, which no other project has, travel in the same file under
their own dotted names (`self_conditioning.projection.kernel`), stored as they are: not
transposed, [in, out].
"""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np

from scmdm_jax.errors import BadInput
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import (
  ConvConfig,
  DiTConfig,
  GPT2Config,
  ModelDescription,
)

SELF_CONDITIONING = 'self_conditioning'

# Our layers or parameters below `backbone` and their names in the files. A layer's own
# parameters are called `weight` and `bias` there; `*` is the number of a block.
_MDLM = {
  'vocab_embed/embedding': 'backbone.vocab_embed.embedding',
  'sigma_map/mlp_0': 'backbone.sigma_map.mlp.0',
  'sigma_map/mlp_2': 'backbone.sigma_map.mlp.2',
  'cond_map/embedding_table': 'backbone.cond_map.embedding_table',
  'blocks_*/norm1': 'backbone.blocks.*.norm1',
  'blocks_*/attn_qkv': 'backbone.blocks.*.attn_qkv',
  'blocks_*/attn_out': 'backbone.blocks.*.attn_out',
  'blocks_*/norm2': 'backbone.blocks.*.norm2',
  'blocks_*/mlp_0': 'backbone.blocks.*.mlp.0',
  'blocks_*/mlp_2': 'backbone.blocks.*.mlp.2',
  'blocks_*/adaLN_modulation': 'backbone.blocks.*.adaLN_modulation',
  'output_layer/norm_final': 'backbone.output_layer.norm_final',
  'output_layer/linear': 'backbone.output_layer.linear',
  'output_layer/adaLN_modulation': 'backbone.output_layer.adaLN_modulation',
}
_LLAMA = {
  'embed_tokens': 'model.embed_tokens',
  'layers_*/input_layernorm': 'model.layers.*.input_layernorm',
  'layers_*/self_attn/q_proj': 'model.layers.*.self_attn.q_proj',
  'layers_*/self_attn/k_proj': 'model.layers.*.self_attn.k_proj',
  'layers_*/self_attn/v_proj': 'model.layers.*.self_attn.v_proj',
  'layers_*/self_attn/o_proj': 'model.layers.*.self_attn.o_proj',
  'layers_*/post_attention_layernorm': 'model.layers.*.post_attention_layernorm',
  'layers_*/mlp/gate_proj': 'model.layers.*.mlp.gate_proj',
  'layers_*/mlp/up_proj': 'model.layers.*.mlp.up_proj',
  'layers_*/mlp/down_proj': 'model.layers.*.mlp.down_proj',
  'norm': 'model.norm',
  'lm_head': 'lm_head',
}
_LLADA = {
  'embed_tokens': 'model.transformer.wte',
  'layers_*/input_layernorm': 'model.transformer.blocks.*.attn_norm',
  'layers_*/self_attn/q_proj': 'model.transformer.blocks.*.q_proj',
  'layers_*/self_attn/k_proj': 'model.transformer.blocks.*.k_proj',
  'layers_*/self_attn/v_proj': 'model.transformer.blocks.*.v_proj',
  'layers_*/self_attn/o_proj': 'model.transformer.blocks.*.attn_out',
  'layers_*/post_attention_layernorm': 'model.transformer.blocks.*.ff_norm',
  'layers_*/mlp/gate_proj': 'model.transformer.blocks.*.ff_proj',
  'layers_*/mlp/up_proj': 'model.transformer.blocks.*.up_proj',
  'layers_*/mlp/down_proj': 'model.transformer.blocks.*.ff_out',
  'norm': 'model.transformer.ln_f',
  'lm_head': 'model.transformer.ff_out',
}
_GPT2 = {
  'wte': 'wte',
  'wpe': 'wpe',
  'h_*/ln_1': 'h.*.ln_1',
  'h_*/attn/c_attn': 'h.*.attn.c_attn',
  'h_*/attn/c_proj': 'h.*.attn.c_proj',
  'h_*/ln_2': 'h.*.ln_2',
  'h_*/mlp/c_fc': 'h.*.mlp.c_fc',
  'h_*/mlp/c_proj': 'h.*.mlp.c_proj',
  'ln_f': 'ln_f',
}
_CONV = {
  'embed': 'embed',
  'stages_*/down': 'stages.*.down',
  'stages_*/norm': 'stages.*.norm',
  'stages_*/mix': 'stages.*.mix',
  'norm_final': 'norm_final',
  'head': 'head',
}
_TABLES = {
  'mdlm': _MDLM,
  'llama': _LLAMA,
  'qwen2': _LLAMA,
  'dream': _LLAMA,
  'llada': _LLADA,
  'gpt2': _GPT2,
  'conv': _CONV,
}
# A PyTorch linear weight is [out, in], our kernels are [in, out]; GPT-2's Conv1D
# stores them as we do, and so do our own files.
_TRANSPOSED = frozenset(_TABLES) - {'gpt2', 'conv'}
# Files that hold more than the bare GPT-2 put this before its names.
_GPT2_PREFIX = 'transformer.'
# Rows that are transposed at a time: 4 times as fast as all at once, which touches a
# new memory page with every element.
_STRIP = 128


@dataclasses.dataclass(frozen=True)
class Entry:
  """One line of a manifest: where a tensor goes and how it lies in the file."""

  path: tuple[str, ...]  # Keys of the parameter in our nested dictionary.
  shape: tuple[int, ...]  # In the file.
  transposed: bool

  def from_file(self, value: np.ndarray) -> np.ndarray:
    """The tensor of a file as our parameter: a view, dtype untouched."""
    return value.T if self.transposed else value

  def to_file(self, value: np.ndarray) -> np.ndarray:
    """Inverse of `from_file`; contiguous."""
    return _transpose(value) if self.transposed else np.ascontiguousarray(value)


def manifest(description: ModelDescription) -> dict[str, Entry]:
  """Every tensor a file of this model holds, by its name there."""
  names = _names(description)
  entries = {}
  leaves = jax.tree_util.tree_leaves_with_path(denoiser.abstract_params(description))
  for keys, leaf in leaves:
    path = tuple(key.key for key in keys)
    if path[0] == SELF_CONDITIONING:
      name, transposed = '.'.join(path), False
    else:
      name = _tensor_name(names, path)
      transposed = path[-1] == 'kernel' and description.layout in _TRANSPOSED
    shape = tuple(reversed(leaf.shape)) if transposed else tuple(leaf.shape)
    entries[name] = Entry(path, shape, transposed)
  return entries


def check(
  description: ModelDescription, shapes: Mapping[str, tuple[int, ...]], where: str
) -> dict[str, Entry]:
  """Compares the tensors of a file with what the description wants, strictly.

  Args:
    description: the model the file should hold.
    shapes: shape of every tensor in the file.
    where: the file or directory, for the message.

  Returns:
    What to read: an entry for every parameter, by the name of its tensor in this file.
    Buffers, and the copy of a tied embedding, are accepted and left out.

  Raises:
    BadInput: one message with all unknown, missing and misshaped tensors.
  """
  blocks = description.architecture.num_blocks
  if blocks > len(shapes):  # Listing what is missing could take for ever.
    raise BadInput(
      f'{where}: config.json wants {blocks} blocks, but only {len(shapes)} tensors '
      'are there'
    )
  wanted, ignored = manifest(description), _ignored(description)
  expected = {name: entry.shape for name, entry in wanted.items()} | ignored
  known = {name: _plain_name(description, name) for name in shapes}
  problems = [f'unknown {n}' for n, plain in known.items() if plain not in expected]
  if len(set(known.values())) < len(known):
    twice = sorted(n for n in known if known[n] != n and known[n] in known)
    problems += [f'twice {n}, also as {known[n]}' for n in twice]
  found = set(known.values())
  problems += [
    f'missing {n} {list(e.shape)}' for n, e in wanted.items() if n not in found
  ]
  problems += [
    f'misshaped {n}: got {list(shapes[n])}, wanted {list(expected[plain])}'
    for n, plain in known.items()
    if plain in expected and tuple(shapes[n]) != expected[plain]
  ]
  if problems:
    raise BadInput(
      f'{where}: {len(problems)} tensors do not fit the {description.layout} layout '
      f'of its config.json: {"; ".join(problems)}'
    )
  return {n: wanted[plain] for n, plain in known.items() if plain in wanted}


def buffers(description: ModelDescription) -> dict[str, np.ndarray]:
  """Tensors beside the parameters that loaders of this layout expect in a file."""
  if not isinstance(description.architecture, DiTConfig):
    return {}
  size = _head_size(description)
  inv_freq = 10000.0 ** (-np.arange(0, size, 2, dtype=np.float64) / size)
  return {'backbone.rotary_emb.inv_freq': inv_freq.astype(np.float32)}


def _names(description: ModelDescription) -> dict[str, str]:
  """The table of the layout with every block written out."""
  names = {}
  for ours, theirs in _TABLES[description.layout].items():
    numbers = range(description.architecture.num_blocks) if '*' in ours else (0,)
    for i in numbers:
      names[ours.replace('*', str(i))] = theirs.replace('*', str(i))
  return names


def _tensor_name(names: Mapping[str, str], path: tuple[str, ...]) -> str:
  _, *layers, parameter = path
  whole = '/'.join(path[1:])
  if whole in names:
    return names[whole]
  suffix = 'bias' if parameter == 'bias' else 'weight'
  return f'{names["/".join(layers)]}.{suffix}'


def _plain_name(description: ModelDescription, name: str) -> str:
  """The name in the manifest of a tensor called `name` in a file."""
  if description.layout == 'gpt2':
    return name.removeprefix(_GPT2_PREFIX)
  return name


def _ignored(description: ModelDescription) -> dict[str, tuple[int, ...]]:
  """What files may carry beside the parameters: accepted in this shape, never read."""
  arch = description.architecture
  ignored: dict[str, tuple[int, ...]] = {}
  if isinstance(arch, DiTConfig):
    ignored |= {name: value.shape for name, value in buffers(description).items()}
  elif isinstance(arch, GPT2Config):
    for i in range(arch.num_blocks):
      ignored[f'h.{i}.attn.bias'] = (1, 1, arch.length, arch.length)
      ignored[f'h.{i}.attn.masked_bias'] = ()
    ignored['lm_head.weight'] = (arch.vocab_size, arch.hidden_dim)
  elif not isinstance(arch, ConvConfig):
    half = (_head_size(description) // 2,)
    ignored['model.rotary_emb.inv_freq'] = half
    for i in range(arch.num_blocks):
      ignored[f'model.layers.{i}.self_attn.rotary_emb.inv_freq'] = half
    if arch.tied:
      head = _TABLES[description.layout]['lm_head']
      ignored[f'{head}.weight'] = (arch.vocab_size, arch.hidden_dim)
  return ignored


def _head_size(description: ModelDescription) -> int:
  arch = description.architecture
  assert not isinstance(arch, ConvConfig)
  return arch.hidden_dim // arch.num_heads


def _transpose(value: np.ndarray) -> np.ndarray:
  """A contiguous copy of the transpose of a matrix."""
  result = np.empty(value.shape[::-1], value.dtype)
  for start in range(0, value.shape[0], _STRIP):
    result[:, start : start + _STRIP] = value[start : start + _STRIP].T
  return result
