"""`config.json` of the safetensors layouts to and from a model description.

Our own additions (`mask_token_id`, `mlp_ratio`, `tokenizer`, `self_conditioning`,
`causal`) have defaults that make other projects' files mean what they mean there.
"""

from typing import Any

from scmdm_jax.errors import BadInput
from scmdm_jax.models.description import DecoderConfig, DiTConfig, ModelDescription

# UDLM (kuleshov-group) keeps MDLM's names, with time conditioning.
_MDLM_TYPES = ('mdlm', 'udlm')
_MDLM_SIZES = {
  'vocab_size': 'vocab_size',
  'model_length': 'length',
  'hidden_dim': 'hidden_dim',
  'n_blocks': 'num_blocks',
  'n_heads': 'num_heads',
  'cond_dim': 'cond_dim',
}
_LLAMA_SIZES = {
  'vocab_size': 'vocab_size',
  'max_position_embeddings': 'length',
  'hidden_size': 'hidden_dim',
  'num_hidden_layers': 'num_blocks',
  'num_attention_heads': 'num_heads',
  'intermediate_size': 'mlp_dim',
}
# What our decoder computes; a file that says otherwise would give wrong numbers.
_LLAMA_FIXED = {
  'hidden_act': 'silu',
  'attention_bias': False,
  'mlp_bias': False,
  'rope_scaling': None,
  'tie_word_embeddings': False,
}
# Hugging Face's default where a file leaves the field out.
_NORM_EPS = 1e-6
_ROPE_THETA = 10000.0


def description_from_config(config: dict[str, Any], path: str) -> ModelDescription:
  """Sizes, mask, tokenizer and injection from a parsed `config.json`.

  Args:
    config: the JSON object. Fields we do not know are ignored (`auto_map` among them:
      no code of a checkpoint ever runs).
    path: the file, for messages.

  Raises:
    BadInput: a field is missing, of the wrong type, contradictory, or asks for
      something these models do not compute.
  """
  kind = config.get('model_type')
  if kind == 'llama':
    architecture = _decoder(config, path)
    default_mask = None
  elif kind in _MDLM_TYPES or (kind is None and 'n_blocks' in config):
    architecture = _dit(config, path)
    default_mask = architecture.vocab_size - 1  # MDLM appends the mask.
  else:
    raise BadInput(
      f"{path}: model_type is {kind!r}; wanted 'mdlm', 'udlm' or 'llama', the layouts "
      'that can be imported'
    )
  mask_id = config.get('mask_token_id', default_mask)
  if mask_id is not None and (
    not isinstance(mask_id, int) or isinstance(mask_id, bool)
  ):
    raise BadInput(f'{path}: mask_token_id is {mask_id!r}; wanted an integer')
  try:
    return ModelDescription(
      architecture=architecture,
      mask_id=mask_id,
      tokenizer=_field(config, 'tokenizer', str, '', path),
      injection=_field(config, 'self_conditioning', str, 'none', path),
    )
  except ValueError as e:
    raise BadInput(f'{path}: {e}') from e


def config_from_description(description: ModelDescription) -> dict[str, Any]:
  """Inverse of `description_from_config`, with the fields other projects expect."""
  arch = description.architecture
  if isinstance(arch, DiTConfig):
    config = {
      'architectures': ['MDLM'],
      'model_type': 'mdlm',
      **{theirs: getattr(arch, ours) for theirs, ours in _MDLM_SIZES.items()},
      'mlp_ratio': arch.mlp_ratio,
      'time_conditioning': arch.time_conditioning,
      'dropout': 0.0,
    }
  else:
    config = {
      'architectures': ['LlamaForCausalLM'],
      'model_type': 'llama',
      **{theirs: getattr(arch, ours) for theirs, ours in _LLAMA_SIZES.items()},
      'num_key_value_heads': arch.num_kv_heads,
      'rms_norm_eps': arch.norm_eps,
      'rope_theta': arch.rope_theta,
      **_LLAMA_FIXED,
      'causal': arch.causal,
    }
  return config | {
    'torch_dtype': 'float32',
    'mask_token_id': description.mask_id,
    'tokenizer': description.tokenizer,
    'self_conditioning': description.injection,
  }


def _dit(config: dict[str, Any], path: str) -> DiTConfig:
  return DiTConfig(
    **_sizes(config, _MDLM_SIZES, path),
    mlp_ratio=_size(config, 'mlp_ratio', 4, path),
    time_conditioning=_field(config, 'time_conditioning', bool, False, path),
  )


def _decoder(config: dict[str, Any], path: str) -> DecoderConfig:
  for name, wanted in _LLAMA_FIXED.items():
    if config.get(name, wanted) != wanted:
      raise BadInput(f'{path}: {name} is {config[name]!r}; only {wanted!r} is computed')
  sizes = _sizes(config, _LLAMA_SIZES, path)
  heads, width = sizes['num_heads'], sizes['hidden_dim']
  kv_heads = _size(config, 'num_key_value_heads', heads, path)
  if heads % kv_heads:
    raise BadInput(
      f'{path}: num_attention_heads {heads} is not a multiple of num_key_value_heads '
      f'{kv_heads}'
    )
  head_dim = config.get('head_dim') or width // heads
  if head_dim != width // heads:
    raise BadInput(
      f'{path}: head_dim is {head_dim!r}; only hidden_size / num_attention_heads = '
      f'{width // heads} is computed'
    )
  # Transformers 5 moved the base of the rotary angles into an object of its own.
  rope = _field(config, 'rope_parameters', dict, {}, path)
  if rope.get('rope_type', 'default') != 'default':
    raise BadInput(
      f"{path}: rope_type is {rope['rope_type']!r}; only 'default' is computed"
    )
  rope_theta = rope.get('rope_theta', config.get('rope_theta', _ROPE_THETA))
  return DecoderConfig(
    **sizes,
    num_kv_heads=kv_heads,
    rope_theta=_positive('rope_theta', rope_theta, path),
    norm_eps=_positive('rms_norm_eps', config.get('rms_norm_eps', _NORM_EPS), path),
    causal=_field(config, 'causal', bool, True, path),
  )


def _sizes(config: dict[str, Any], names: dict[str, str], path: str) -> dict[str, int]:
  missing = [name for name in names if name not in config]
  if missing:
    raise BadInput(f'{path}: no {", ".join(missing)}; wanted all of {", ".join(names)}')
  return {ours: _size(config, theirs, None, path) for theirs, ours in names.items()}


def _size(config: dict[str, Any], name: str, default: int | None, path: str) -> int:
  value = config.get(name, default)
  if not isinstance(value, int) or isinstance(value, bool) or value < 1:
    raise BadInput(f'{path}: {name} is {value!r}; wanted a positive integer')
  return value


def _positive(name: str, value: Any, path: str) -> float:
  if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
    raise BadInput(f'{path}: {name} is {value!r}; wanted a positive number')
  return float(value)


def _field(
  config: dict[str, Any], name: str, kind: type, default: Any, path: str
) -> Any:
  value = config.get(name, default)
  if not isinstance(value, kind):
    raise BadInput(f'{path}: {name} is {value!r}; wanted a {kind.__name__}')
  return value
