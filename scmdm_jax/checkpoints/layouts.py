"""Which tensor of a safetensors file is which parameter of ours, in both directions.

The rows of a family's record serve import, export and the accounting of both.
Self-conditioning parameters, which no other project has, travel in the same file under
their own dotted names (`self_conditioning.projection.kernel`), stored as they are: not
transposed, [in, out].
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import ml_dtypes
import numpy as np

from scmdm_jax.errors import BadInput
from scmdm_jax.models import denoiser, lora
from scmdm_jax.models.description import ModelDescription

SELF_CONDITIONING = 'self_conditioning'

# Rows that are transposed at a time: 4 times as fast as all at once, which touches a
# new memory page with every element.
_STRIP = 128


@dataclasses.dataclass(frozen=True)
class Entry:
  """One line of a layout: where a tensor goes and how it lies in the file."""

  path: tuple[str, ...]  # Keys of the parameter in our nested dictionary.
  shape: tuple[int, ...]  # In the file.
  transposed: bool

  def from_file(self, value: np.ndarray) -> np.ndarray:
    """The tensor of a file as our parameter: a view, dtype untouched."""
    return value.T if self.transposed else value

  def to_file(self, value: np.ndarray) -> np.ndarray:
    """Inverse of `from_file`; contiguous."""
    return _transpose(value) if self.transposed else np.ascontiguousarray(value)


def entries_of(description: ModelDescription) -> dict[str, Entry]:
  """Every tensor a file of this model holds, by its name there."""
  record, entries = description.record, {}
  leaves = jax.tree_util.tree_leaves_with_path(denoiser.abstract_params(description))
  for keys, leaf in leaves:
    path = tuple(key.key for key in keys)
    if path[0] == SELF_CONDITIONING:
      name, transposed = '.'.join(path), False
    else:
      row = record.row('/'.join(path[1:]))
      if row is None:
        raise ValueError(f'{"/".join(path)}: the record of {record.name} has no row')
      name, transposed = row[0], path[-1] == 'kernel' and record.transposed
    shape = tuple(reversed(leaf.shape)) if transposed else tuple(leaf.shape)
    entries[name] = Entry(path, shape, transposed)
  return entries


def peft(
  description: ModelDescription, base: str
) -> tuple[dict[str, tuple[str, ...]], dict[str, Any]]:
  """Returns an adapter's tensors as the `peft` library calls them, and its config.

  Both factors are [out, in] there, the transposes of ours, whatever the layout of the
  base.

  Args:
    description: of a model with an adapter.
    base: where the base came from, for the config.

  Returns:
    The path of the parameter of every tensor by its name, and the content of
    `adapter_config.json`.
  """
  adapter, record = description.adapter, description.record
  assert adapter is not None
  tensors, modules = {}, []
  leaves = jax.tree_util.tree_leaves_with_path(denoiser.abstract_params(description))
  for keys, _ in leaves:
    path = tuple(key.key for key in keys)
    if path[-1] in lora.FACTORS:
      row = record.row('/'.join((*path[1:-1], 'kernel')))
      assert row is not None  # Every linear layer has one.
      module = row[0].removesuffix('.weight')
      letter = path[-1][-1].upper()
      tensors[f'base_model.model.{module}.lora_{letter}.weight'] = path
      modules.append(module)
  causal = description.objective == 'causal'
  return tensors, {
    'peft_type': 'LORA',
    'task_type': 'CAUSAL_LM' if causal else None,
    'base_model_name_or_path': base,
    'r': adapter.rank,
    'lora_alpha': adapter.alpha,
    'lora_dropout': 0.0,
    'bias': 'none',
    'fan_in_fan_out': not record.transposed,
    'target_modules': sorted({*modules}),
    'inference_mode': True,
  }


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
  wanted, left_out = entries_of(description), _left_out(description)
  expected = {name: entry.shape for name, entry in wanted.items()} | left_out
  known = {name: name.removeprefix(description.record.prefix) for name in shapes}
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
      f'{where}: {len(problems)} tensors do not fit the {description.family} layout '
      f'of its config.json: {"; ".join(problems)}'
    )
  return {n: wanted[plain] for n, plain in known.items() if plain in wanted}


def with_own_head(description: ModelDescription, source: Any) -> ModelDescription:
  """Unties the head where a file that calls it tied holds one unlike its embeddings.

  Transformers 5 reads such a file the same way. An equal copy is left out.

  Args:
    description: what `config.json` says.
    source: an opened source; its head and its embeddings are read if it has both.
  """
  record, arch = description.record, description.architecture
  plain = {name.removeprefix(record.prefix): name for name in source.tensors}
  row = record.row(f'{record.table}/embedding') or record.row(record.table)
  if row is None or not getattr(arch, 'tied', True):
    return description
  if not {row[0], record.head_copy} <= plain.keys():
    return description
  table, head = plain[row[0]], plain[record.head_copy]
  if source.tensors[table].shape != source.tensors[head].shape:
    return description  # `check` says so.
  values = (source.read(name).astype(np.float32) for name in (table, head))
  if np.array_equal(*values, equal_nan=True):
    return description
  sizes: Any = arch
  untied = dataclasses.replace(sizes, tied=False)
  return dataclasses.replace(description, architecture=untied)


def check_buffers(description: ModelDescription, source: Any, where: str) -> None:
  """Compares the tensors of a source that are left out with what they have to be.

  Args:
    description: the model the source holds, of shapes that fit (see `check`).
    source: an opened source.
    where: the file or directory, for the message.

  Raises:
    BadInput: one says otherwise, as code that reads it would compute other numbers.
  """
  known = description.record.buffers(description.architecture)
  for name in source.tensors:
    buffer = known.get(name.removeprefix(description.record.prefix))
    if buffer is None:
      continue
    found, wanted = source.read_buffer(name), buffer.value()
    wrong = np.argwhere(~_close(found, wanted))
    if len(wrong):
      at = tuple(int(i) for i in wrong[0])
      raise BadInput(
        f'{where}: tensor {name!r} is {found[at]} at {list(at)}, where config.json '
        f'({buffer.follows}) makes it {wanted[at]}; {len(wrong)} of {found.size} '
        'values differ and one of the two is wrong: correct config.json, or remove '
        'the tensor'
      )


def _close(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
  """Whether values are those that are wanted, up to roundings.

  Files of half precision have rounded buffers, to `eps` of the value or, near zero, to
  the smallest number there is. In float32 an exponent of `base` is off by 2^-24 of
  itself, which a logarithm of up to 30 makes 2e-6 of the power.
  """
  if found.dtype.kind in 'biu':
    return found == wanted
  kind = ml_dtypes.finfo(found.dtype)
  bound = max(float(kind.eps), 4e-6) * np.abs(wanted.astype(np.float32))
  distance = np.abs(found.astype(np.float32) - wanted.astype(np.float32))
  return distance <= bound + float(kind.smallest_subnormal)


def buffers(description: ModelDescription) -> dict[str, np.ndarray]:
  """Tensors beside the parameters that loaders of this family expect in a file."""
  known = description.record.buffers(description.architecture)
  return {name: buffer.value() for name, buffer in known.items() if buffer.written}


def _left_out(description: ModelDescription) -> dict[str, tuple[int, ...]]:
  """Shapes of what files may hold beside the parameters; see `check_buffers`."""
  record, arch = description.record, description.architecture
  shapes = {name: buffer.shape for name, buffer in record.buffers(arch).items()}
  if record.head_copy and getattr(arch, 'tied', True):
    shapes[record.head_copy] = (arch.vocab_size, arch.hidden_dim)
  return shapes


def _transpose(value: np.ndarray) -> np.ndarray:
  """A contiguous copy of the transpose of a matrix."""
  result = np.empty(value.shape[::-1], value.dtype)
  for start in range(0, value.shape[0], _STRIP):
    result[:, start : start + _STRIP] = value[start : start + _STRIP].T
  return result
