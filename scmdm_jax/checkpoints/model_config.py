"""`config.json` of the safetensors layouts to and from a model description.

Field names are those of each project. Our own additions (`mask_token_id` where a
project has none, `mlp_ratio`, `causal`, `grid`, `window`, `tokenizer`,
`self_conditioning`, `framing`, `undefined_ids`) have defaults that make other projects'
files mean what they mean there. A field that is null counts as absent. What changes the
numbers and is not computed here is refused by name.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from scmdm_jax.errors import BadInput
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families import FAMILIES
from scmdm_jax.models.family import REQUIRED, Family, ModelType, Same


def description_from_config(config: dict[str, Any], path: str) -> ModelDescription:
  """Sizes, mask, tokenizer and injection from a parsed `config.json`.

  The mask of an MDLM is its last id unless `mask_token_id` says otherwise. A UDLM was
  trained without a mask, and has one only if the file names it. LLaDA and Dream must
  name theirs.

  Args:
    config: the JSON object. Fields we do not know are ignored (`auto_map` among them:
      no code of a checkpoint ever runs).
    path: the file, for messages.

  Raises:
    BadInput: a field is missing, of the wrong type, contradictory, or asks for
      something these models do not compute.
  """
  config = {name: value for name, value in config.items() if value is not None}
  family, kind = _layout(config, path)
  config = _plain(config, family, kind.name, path)
  for field, wanted in family.fixed.items():
    if config.get(field, wanted) != wanted:
      raise BadInput(
        f'{path}: {field} is {config[field]!r}; only {wanted!r} is computed'
      )
  values = {**_values(config, family, path), **family.always}
  try:
    arch = family.sizes(**values)
  except ValueError as e:
    raise BadInput(f'{path}: {e}') from e
  _check_sizes(config, arch, path)
  padding = (config['vocab_size'], arch.vocab_size)  # LLaDA's table may be longer.
  try:
    return ModelDescription(
      architecture=arch,
      mask_id=_mask_id(config, kind, arch.vocab_size, path),
      tokenizer=_value(config, 'tokenizer', str, '', path),
      injection=_value(config, 'self_conditioning', str, 'none', path),
      family=family.name,
      noise=kind.noise,
      framing=_value(config, 'framing', str, '', path),
      undefined_ids=_undefined(config, padding, path),
    )
  except (ValueError, TypeError) as e:
    raise BadInput(f'{path}: {e}') from e


def _layout(config: dict[str, Any], path: str) -> tuple[Family, ModelType]:
  """The family and the layout that `model_type` names."""
  name = config.get('model_type', 'mdlm' if 'n_blocks' in config else None)
  known = {kind.name: (f, kind) for f in FAMILIES.values() for kind in f.model_types}
  if not isinstance(name, str) or name not in known:
    raise BadInput(
      f'{path}: model_type is {name!r}; wanted one of {", ".join(map(repr, known))}, '
      'the layouts that can be imported'
    )
  return known[name]


def _check_sizes(config: dict[str, Any], arch: Any, path: str) -> None:
  """Raises BadInput where the file says more than `arch`, and otherwise."""
  if arch.vocab_size < config['vocab_size']:
    raise BadInput(
      f'{path}: embedding_size is {arch.vocab_size}; wanted at least the vocab_size, '
      f'{config["vocab_size"]}'
    )
  if hasattr(arch, 'num_heads'):
    head_dim = getattr(arch, 'head_size', arch.hidden_dim // arch.num_heads)
    if config.get('head_dim', head_dim) != head_dim:
      raise BadInput(
        f'{path}: head_dim is {config["head_dim"]!r}; only the width over the number '
        f'of heads, {head_dim}, is computed'
      )


def _mask_id(
  config: dict[str, Any], kind: ModelType, vocab_size: int, path: str
) -> int | None:
  """The id of the mask: as the file names it, or as its layout has it."""
  if kind.mask == 'named' and 'mask_token_id' not in config:
    raise BadInput(f'{path}: no mask_token_id; wanted the id of the mask token')
  default = vocab_size - 1 if kind.mask == 'last' else None
  mask_id = config.get('mask_token_id', default)
  if mask_id is None:
    return None
  if type(mask_id) is not int:
    raise BadInput(f'{path}: mask_token_id is {mask_id!r}; wanted an integer')
  for field in ('bos_token_id', 'eos_token_id', 'pad_token_id'):
    ids = config.get(field)
    if mask_id in (ids if isinstance(ids, list) else [ids]):
      raise BadInput(
        f'{path}: {field} is {ids!r}, and so is the mask; wanted a mask of its own'
      )
  return mask_id


def config_from_description(
  description: ModelDescription, dtype: str, others: Mapping[str, Any] | None = None
) -> dict[str, Any]:
  """Inverse of `description_from_config`, with the fields other projects expect.

  The fingerprint has no field: it follows from the tokenizer's files.

  Args:
    description: the model.
    dtype: of the tensors beside the file: 'float32', 'bfloat16' or 'float16'.
    others: fields that it was read with, see `carried`; what the model is counts.

  Raises:
    BadInput: the layout has no words for this architecture.
  """
  arch, family = description.architecture, description.record
  kinds = [k for k in family.model_types if k.noise == description.noise]
  kind = (*kinds, *family.model_types)[0]
  config = {
    'architectures': [kind.class_name],
    'model_type': kind.name,
    **{
      field.name: field.of(getattr(arch, field.ours))
      for field in family.fields
      if not field.quiet or getattr(arch, field.ours)
    },
    **family.fixed,
    **family.extra(arch),
  }
  config |= {
    'torch_dtype': dtype,
    'mask_token_id': description.mask_id,
    'tokenizer': description.tokenizer,
    'self_conditioning': description.injection,
  }
  if description.framing:
    config['framing'] = description.framing
  if ranges := description.undefined_ids:
    config['undefined_ids'] = [list(ids) for ids in ranges]
    if 'embedding_size' in config and ranges[-1][1] == arch.vocab_size:
      config['vocab_size'] = ranges[-1][0]
  known = {
    *config,
    'framing',
    'undefined_ids',
    *(field.name for field in family.fields),
  }
  config |= {name: v for name, v in (others or {}).items() if name not in known}
  wanted = dataclasses.replace(description, fingerprint='')
  if description_from_config(config, 'config.json') != wanted:
    raise BadInput(
      f'the {description.family} layout cannot say what this model is: '
      f'{description.to_dict()}'
    )
  return config


def _plain(
  config: dict[str, Any], family: Family, name: str, path: str
) -> dict[str, Any]:
  """The file with other spellings of the same thing replaced by the usual ones."""
  try:
    config = family.plain(dict(config), name)
  except ValueError as e:
    raise BadInput(f'{path}: {e}') from e
  kinds = {str(kind) for kind in _value(config, 'layer_types', list, [], path)}
  if not kinds <= {'full_attention'}:
    raise BadInput(
      f"{path}: layer_types is {sorted(kinds)}; only 'full_attention' is computed"
    )
  _spell_rope(config, path)
  computed = any(field.name == 'rope_scaling' for field in family.fields)
  if 'rope_scaling' in config and not computed:
    raise BadInput(
      f'{path}: rope_scaling is {config["rope_scaling"]!r:.200}; none is computed in '
      f'the {family.name} layout'
    )
  return config


def _spell_rope(config: dict[str, Any], path: str) -> None:
  """Puts what a file says of rotary positions into `rope_theta` and `rope_scaling`.

  Transformers 5 moved it into one object, `rope_parameters`. A scaling that scales by
  one is none.
  """
  scaling = _value(config, 'rope_scaling', dict, {}, path)
  rope = {**scaling, **_value(config, 'rope_parameters', dict, {}, path)}
  rope = {name: value for name, value in rope.items() if value is not None}
  config.pop('rope_scaling', None)
  if 'type' in rope and rope.get('rope_type', rope['type']) == rope['type']:
    rope['rope_type'] = rope.pop('type')
  if 'rope_theta' in rope:
    theta = rope.pop('rope_theta')
    if scaling.get('rope_theta') not in (None, config.get('rope_theta', theta)):
      raise BadInput(f'{path}: rope_theta is in rope_scaling, too, and another')
    config['rope_theta'] = theta
  share = rope.pop('partial_rotary_factor', config.get('partial_rotary_factor', 1))
  if share != 1:
    raise BadInput(f'{path}: partial_rotary_factor is {share!r}; only 1 is computed')
  kind = rope.get('rope_type', 'default')
  if kind in ('linear', 'default') and rope.get('factor') == 1:
    kind = 'default'
    del rope['factor']
  if kind == 'default':
    if unknown := sorted(rope.keys() - {'rope_type'}):
      raise BadInput(
        f'{path}: rope_parameters has {unknown} without a kind of scaling; wanted '
        'rope_type beside them'
      )
    return
  length = config.get('max_position_embeddings')
  if kind in ('llama3', 'yarn'):
    original = 'original_max_position_embeddings'
    rope.setdefault(original, length)
    if original in config:  # Where it is outside, Transformers reads it there.
      rope[original] = config[original]
  config['rope_scaling'] = rope


def _undefined(
  config: dict[str, Any], padding: tuple[int, int], path: str
) -> tuple[tuple[int, int], ...]:
  """Ranges of ids without a token: as written, or the rows of a longer table."""
  written = _value(config, 'undefined_ids', list, [], path)
  if not all(isinstance(ids, list) and len(ids) == 2 for ids in written):
    raise BadInput(f'{path}: undefined_ids is {written!r:.200}; wanted pairs of ids')
  default = (padding,) if padding[0] != padding[1] else ()
  return tuple((start, stop) for start, stop in written) or default


def _values(config: dict[str, Any], family: Family, path: str) -> dict[str, Any]:
  """The sizes of a model."""
  required = [field.name for field in family.fields if field.default is REQUIRED]
  missing = [name for name in required if name not in config]
  if missing:
    raise BadInput(
      f'{path}: no {", ".join(missing)}; wanted all of {", ".join(required)}'
    )
  values = {}
  for field in family.fields:
    default = field.default
    if isinstance(default, Same):
      default = default.times * _value(config, default.name, field.of, None, path)
    value = _value(config, field.name, field.of, default, path)
    values[field.ours] = tuple(value.items()) if field.of is dict else value
  return values


def _value(config: dict[str, Any], name: str, of: type, default: Any, path: str) -> Any:
  """The field `name`; None is no value."""
  value = config.get(name, default)
  if of is int:
    low = 0 if default == 0 else 1
    if type(value) is not int or value < low:
      raise BadInput(f'{path}: {name} is {value!r}; wanted a positive integer')
  elif of is float:
    # Below the largest float32: they are computed with in float32.
    if type(value) not in (int, float) or not 0 < value < 3e38:
      raise BadInput(f'{path}: {name} is {value!r}; wanted a positive number')
    value = float(value)
  elif of is tuple:
    if not isinstance(value, list | tuple):
      raise BadInput(f'{path}: {name} is {value!r}; wanted a list of numbers')
    value = tuple(value)
  elif not isinstance(value, of):
    raise BadInput(f'{path}: {name} is {value!r}; wanted a {of.__name__}')
  return value
