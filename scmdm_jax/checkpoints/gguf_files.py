"""Causal models in GGUF files, read as a Hugging Face `config.json` and tensors.

Names, shapes and the order of the rows become those of the safetensors layouts; sizes
come from the file's fields, and a field that changes the numbers in a way that is not
computed here is refused by name. Quantised tensors are read as float32.
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from scmdm_jax.checkpoints import gguf_tokenizer
from scmdm_jax.checkpoints.gguf_header import Header, TensorInfo, read_header
from scmdm_jax.checkpoints.safetensors_files import inside
from scmdm_jax.errors import BadInput, DamagedData

SUFFIX = '.gguf'

_ARCHITECTURES = ('llama', 'qwen2')
# Fields below the architecture's name, and what `config.json` calls them.
_SIZES = {
  'context_length': 'max_position_embeddings',
  'embedding_length': 'hidden_size',
  'block_count': 'num_hidden_layers',
  'feed_forward_length': 'intermediate_size',
  'attention.head_count': 'num_attention_heads',
  'attention.head_count_kv': 'num_key_value_heads',
  'attention.key_length': 'head_dim',
  'attention.layer_norm_rms_epsilon': 'rms_norm_eps',
  'rope.freq_base': 'rope_theta',
  'vocab_size': 'vocab_size',
}
_OPTIONAL = frozenset(
  {'attention.head_count_kv', 'attention.key_length', 'rope.freq_base', 'vocab_size'}
)
# Of special tokens; not computed with.
_IDS = {
  'tokenizer.ggml.bos_token_id': 'bos_token_id',
  'tokenizer.ggml.eos_token_id': 'eos_token_id',
  'tokenizer.ggml.padding_token_id': 'pad_token_id',
}
# What must be as here where it is given: nothing else is computed.
_FIXED = {
  'attention.causal': True,
  'attention.sliding_window': 0,
  'expert_count': 0,
  'expert_used_count': 0,
  'rope.scaling.type': 'none',
  'rope.scaling.finetuned': False,
  'rope.scale_linear': 1.0,
}
# Checked against others: see `_config`.
_HEAD_SIZES = ('attention.value_length', 'rope.dimension_count')

_OUTER = {
  'token_embd': 'model.embed_tokens',
  'output_norm': 'model.norm',
  'output': 'lm_head',
}
_INNER = {
  'attn_norm': 'input_layernorm',
  'attn_q': 'self_attn.q_proj',
  'attn_k': 'self_attn.k_proj',
  'attn_v': 'self_attn.v_proj',
  'attn_output': 'self_attn.o_proj',
  'ffn_norm': 'post_attention_layernorm',
  'ffn_gate': 'mlp.gate_proj',
  'ffn_up': 'mlp.up_proj',
  'ffn_down': 'mlp.down_proj',
}
# Kept as they are; anything else is dequantised.
_PLAIN: dict[GGMLQuantizationType, tuple[str, Any]] = {
  GGMLQuantizationType.F32: ('F32', np.float32),
  GGMLQuantizationType.F16: ('F16', np.float16),
  GGMLQuantizationType.BF16: ('BF16', ml_dtypes.bfloat16),
}


@dataclasses.dataclass(frozen=True)
class Tensor:
  """What is known of a tensor before it is read."""

  file: pathlib.Path
  shape: tuple[int, ...]  # As in the Hugging Face layout.
  dtype: str  # Of what `read` returns, by safetensors' name: 'F32', 'F16', 'BF16'.


@dataclasses.dataclass(frozen=True)
class GGUFSource:
  """An opened file; the weights are read later, one tensor at a time."""

  where: pathlib.Path
  config: dict[str, Any]  # As a Hugging Face `config.json`.
  tensors: dict[str, Tensor]  # By Hugging Face's names.
  header: Header
  names: dict[str, str]  # Of the tensors in the file, by Hugging Face's names.

  @property
  def beside(self) -> dict[str, str]:
    """Texts that a Hugging Face model has in files beside its weights, by name."""
    template = self.header.fields.get('tokenizer.chat_template')
    return {'chat_template.jinja': template} if isinstance(template, str) else {}

  @property
  def shapes(self) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor by name."""
    return {name: tensor.shape for name, tensor in self.tensors.items()}

  @property
  def num_bytes(self) -> int:
    """Size of the file."""
    return self.where.stat().st_size

  def read(self, name: str) -> np.ndarray:
    """The tensor `name`, contiguous, in `tensors[name]`'s shape and dtype."""
    info = self.header.tensors[self.names[name]]
    with self.where.open('rb') as file:
      file.seek(info.offset)
      data = np.fromfile(file, np.uint8, info.size)
    if data.size != info.size:
      raise DamagedData(f'{self.where}: tensor {name!r} is truncated; get it again')
    value = _numbers(data, info)
    match = re.search(r'\.self_attn\.([qk])_proj\.', name)
    if match and self.config['model_type'] == 'llama':
      which = 'num_attention_heads' if match[1] == 'q' else 'num_key_value_heads'
      return _halves(value, self.config[which])
    return value

  read_buffer = read

  def tokenizer_files(self) -> dict[str, bytes]:
    """`tokenizer.json` and `tokenizer_config.json` as a Hugging Face model has them.

    Raises:
      BadInput: a kind of tokenizer that is not rebuilt here.
      DamagedData: tokens, merges and ids that do not fit together.
    """
    return gguf_tokenizer.tokenizer_files(self.header.fields, str(self.where))


def open_source(path: str | pathlib.Path) -> GGUFSource:
  """Reads the header of a GGUF file.

  Args:
    path: the file, or a directory with no other `*.gguf`.

  Raises:
    BadInput: no such file, or a model that is not computed here.
    DamagedData: the file is truncated or altered.
  """
  path = _file(pathlib.Path(path))
  header = read_header(path)
  parts = header.fields.get('split.count', 1)
  if not (isinstance(parts, int) and parts in (0, 1)):
    raise BadInput(
      f'{path}: one of {_short(parts)} parts; wanted one file: '
      'llama-gguf-split --merge makes it'
    )
  _check_readable(header.tensors, str(path))
  names = {_hugging_face(name): name for name in header.tensors}
  if len(names) < len(header.tensors):
    twice = sorted(names.keys() & header.tensors.keys())
    raise DamagedData(f'{path}: has {_short(twice)} under two names')
  tensors = {}
  for name, theirs in names.items():
    info = header.tensors[theirs]
    dtype = _PLAIN[info.type][0] if info.type in _PLAIN else 'F32'
    tensors[name] = Tensor(path, info.shape, dtype)
  config = _config(header, str(path))
  config['tie_word_embeddings'] = 'lm_head.weight' not in tensors
  return GGUFSource(path, config, tensors, header, names)


def _file(path: pathlib.Path) -> pathlib.Path:
  if path.is_file():
    return path
  if not path.is_dir():
    raise BadInput(f'{path}: no such file; give a {SUFFIX} file')
  names = sorted(p.name for p in path.glob(f'*{SUFFIX}'))
  if len(names) != 1:
    found = ', '.join(names[:8]) or f'no *{SUFFIX}'
    raise BadInput(f'{path}: found {found}; give one {SUFFIX} file')
  file = inside(path, names[0])
  if not file.is_file():
    raise BadInput(f'{file}: not a file; give a {SUFFIX} file')
  return file


def _hugging_face(name: str) -> str:
  """The tensor's name in the safetensors layouts; its own if it has none there."""
  match = re.fullmatch(r'(?:blk\.(0|[1-9][0-9]*)\.)?(\w+)\.(weight|bias)', name)
  if not match:
    return name
  block, layer, parameter = match.groups()
  layer = (_OUTER if block is None else _INNER).get(layer)
  if layer is None:
    return name
  prefix = '' if block is None else f'model.layers.{block}.'
  return f'{prefix}{layer}.{parameter}'


def _config(header: Header, where: str) -> dict[str, Any]:
  """`config.json` of the file's fields; their values are checked by its reader."""
  fields = header.fields
  architecture = fields.get('general.architecture')
  if not (isinstance(architecture, str) and architecture in _ARCHITECTURES):
    raise BadInput(
      f'{where}: general.architecture is {_short(architecture)}; wanted one of '
      f'{", ".join(_ARCHITECTURES)}'
    )
  prefix = f'{architecture}.'
  if 'rope_freqs.weight' in header.tensors:
    raise BadInput(
      f'{where}: rope_freqs.weight: rotary positions are scaled (as in Llama 3.1), '
      'which is not computed; wanted a model without'
    )
  own = {
    name.removeprefix(prefix): value
    for name, value in fields.items()
    if name.startswith(prefix)
  }
  missing = [prefix + name for name in _SIZES.keys() - _OPTIONAL - own.keys()]
  if missing:
    raise BadInput(f'{where}: no {", ".join(sorted(missing))}; wanted all sizes')
  config: dict[str, Any] = {'model_type': architecture}
  for name, value in own.items():
    if name in _SIZES:
      if not isinstance(value, int | float):
        raise BadInput(f'{where}: {prefix}{name} is {_short(value)}; wanted a number')
      config[_SIZES[name]] = _shortest(value)
    elif name not in _HEAD_SIZES and not (
      name in _FIXED and not isinstance(value, np.ndarray) and value == _FIXED[name]
    ):
      wanted = f'{_FIXED[name]!r}' if name in _FIXED else 'a model without it'
      raise BadInput(
        f'{where}: {prefix}{name} is {_short(value)}, which is not computed; wanted '
        f'{wanted}'
      )
  config |= {ours: fields[name] for name, ours in _IDS.items() if name in fields}
  tokens = fields.get('tokenizer.ggml.tokens')
  if 'vocab_size' not in config and isinstance(tokens, list):
    config['vocab_size'] = len(tokens)
  config.setdefault('num_key_value_heads', config['num_attention_heads'])
  head_dim = config.get('head_dim')
  if head_dim is None and type(config['num_attention_heads']) is int:
    head_dim = config['hidden_size'] // max(config['num_attention_heads'], 1)
  for name in _HEAD_SIZES:
    if name in own and not (type(own[name]) is int and own[name] == head_dim):
      raise BadInput(
        f'{where}: {prefix}{name} is {_short(own[name])}; only the size of a head, '
        f'{head_dim}, is computed'
      )
  return config


def _shortest(value: Any) -> Any:
  """A float32 as the decimal number it was rounded from: 1e-05, not 9.99999975e-06."""
  return float(str(np.float32(value))) if isinstance(value, float) else value


def _short(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 80 else f'{text[:77]}...'


def _check_readable(tensors: Mapping[str, TensorInfo], where: str) -> None:
  """Refuses quantisations that the library does not undo."""
  examples = {info.type: name for name, info in tensors.items()}
  for kind in examples.keys() - _PLAIN.keys():
    _, block_bytes = GGML_QUANT_SIZES[kind]
    try:
      dequantize(np.zeros((1, block_bytes), np.uint8), kind)
    except NotImplementedError as e:
      raise BadInput(
        f'{where}: tensor {examples[kind]!r} is {kind.name}, which cannot be '
        'dequantised here; wanted F32, F16, BF16 or a common quantisation such as '
        'Q4_K or Q8_0'
      ) from e


def _numbers(data: np.ndarray, info: TensorInfo) -> np.ndarray:
  """The tensor whose bytes `data` are, dequantised."""
  if info.type in _PLAIN:
    return data.view(_PLAIN[info.type][1]).reshape(info.shape)
  rows = data.reshape(*info.shape[:-1], -1)
  return dequantize(rows, info.type).reshape(info.shape)


def _halves(value: np.ndarray, heads: int) -> np.ndarray:
  """Undoes GGUF's order of the rows of q and k, where rotary pairs are neighbours.

  Row 2i + j of a head there is row i + j size/2 in the Hugging Face layout.
  """
  pairs = value.reshape(heads, -1, 2, *value.shape[1:])
  return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(value.shape)
