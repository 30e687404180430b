"""The `README.md` beside exported weights, in Hugging Face's model-card form."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from scmdm_jax.checkpoints import layouts
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.injection import INJECTIONS

# The cache of Hugging Face's hub; nothing else in a path shows whose model it was.
_HUB = re.compile(r'(?:^|/)models--([\w.-]+?)--([\w.-]+)(?:/|$)')
_ORIGIN = {
  'base': 'Base',
  'imported_from': 'Imported from',
  'base_license': 'Licence of the base',
  'objective': 'Objective',
  'schedule': 'Schedule',
  'rate': 'Rate (share of conditioned examples)',
  'steps': 'Steps',
  'batch_size': 'Examples per step',
  'learning_rate': 'Peak learning rate',
  'length': 'Tokens per example',
  'data': 'Data',
  'seed': 'Seed',
}
# The licence in the front matter of somebody's card.
_LICENSE = re.compile(r'^---\n(?:(?!---).*\n)*?license:[ \t]*["\']?([\w.-]+)')


def card(
  description: ModelDescription,
  origin: Mapping[str, Any],
  figures: Mapping[str, Any] | None = None,
) -> str:
  """The text of a model card: YAML for the hub, then what a reader wants to know.

  Args:
    description: the model.
    origin: how it came about, as in `model.json`: 'base', 'imported_from' (paths, given
      by their last part only), 'license', 'rate', 'steps', 'data' and the like.
    figures: what was measured, as in `evaluation.json`: numbers, nested at will.
  """
  sections = [
    _front_matter(description, origin),
    f'# {_title(description)}\n',
    _architecture(description),
    _table('Origin', _told(origin)),
    _table('Measured', _flat(figures or {})),
    _use(description),
  ]
  return '\n'.join(section for section in sections if section)


def license_of(readme: str) -> str:
  """The licence in the front matter of a model card; '' if it names none."""
  match = _LICENSE.match(readme.replace('\r', ''))
  return match[1] if match else ''


def _title(description: ModelDescription) -> str:
  if description.objective == 'classify':
    return 'A classifier of sequences and images (conv layout)'
  if description.mask_id is None and description.architecture.causal:
    return f'A causal language model ({description.family} layout)'
  conditioned = description.injection != 'none'
  kind = 'self-conditioned masked diffusion model'
  if description.noise == 'uniform':
    kind = 'uniform diffusion model'
  elif not conditioned:
    kind = 'masked diffusion model'
  return f'A {kind} ({description.family} layout)'


def _front_matter(description: ModelDescription, origin: Mapping[str, Any]) -> str:
  kinds = {'masked': 'masked-diffusion', 'causal': 'text-generation'}
  tags = [kinds.get(description.objective, 'classification')]
  tags.append(description.family)
  if description.injection != 'none':
    tags.append('self-conditioning')
  fields = {'license': origin.get('license') or 'unknown', 'library_name': 'scmdm_jax'}
  base = _hub_name(origin)
  if base:  # The hub refuses what is not the name of a model there.
    fields['base_model'] = base
  if origin.get('data'):
    tags.append(str(origin['data']))
  # A JSON string is a YAML string, whatever is in it.
  lines = [f'{name}: {json.dumps(str(value))}' for name, value in fields.items()]
  return '\n'.join(['---', *lines, f'tags: {json.dumps(tags)}', '---\n'])


def _hub_name(origin: Mapping[str, Any]) -> str:
  for name in ('base', 'imported_from'):
    match = _HUB.search(str(origin.get(name, '')))
    if match:
      return '/'.join(match.groups())
  return ''


def _architecture(description: ModelDescription) -> str:
  arch = description.architecture
  shapes = [entry.shape for entry in layouts.entries_of(description).values()]
  parts = f'{arch.num_blocks} blocks, width {arch.hidden_dim}, '
  counted = 'classes' if description.objective == 'classify' else 'heads'
  parts += f'{getattr(arch, f"num_{counted}")} {counted}'
  lines = [
    f'* {sum(map(math.prod, shapes)):,} parameters; {parts}; {arch.vocab_size:,} '
    f'tokens, length {arch.length:,}'
  ]
  if description.mask_id is not None:
    lines.append(f'* Mask: token {description.mask_id}')
  lines += [f'* {note}' for note in description.record.notes(arch)]
  if description.tokenizer:
    lines.append(f'* Tokenizer: {_code(description.tokenizer)}')
  if description.injection != 'none':
    lines.append(f'* Self-conditioning: {description.injection} injection, see below')
  return '\n'.join(lines) + '\n'


def _told(origin: Mapping[str, Any]) -> dict[str, Any]:
  values = {}
  for name, label in _ORIGIN.items():
    value = origin.get(name)
    if value is None or value == '':
      continue
    # A whole path says more of the machine than of the model.
    if name in ('base', 'imported_from'):
      value = _hub_name({name: value}) or str(value).rstrip('/').rpartition('/')[2]
    values[label] = value
  return values


def _flat(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  flat = {}
  for name, value in values.items():
    if isinstance(value, Mapping):
      flat |= _flat(value, f'{prefix}{name}.')
    elif isinstance(value, bool | int | float):
      flat[prefix + name] = value
  return flat


def _table(title: str, rows: Mapping[str, Any]) -> str:
  if not rows:
    return ''
  lines = [f'## {title}\n', '| | |', '|---|---|']
  lines += [f'| {_cell(name)} | {_cell(value)} |' for name, value in rows.items()]
  return '\n'.join(lines) + '\n'


def _cell(value: Any) -> str:
  text = f'{value:.6g}' if isinstance(value, float) else str(value)
  return ' '.join(text.split()).replace('|', '\\|')


def _code(text: str) -> str:
  return f'`{" ".join(text.split()).replace("`", "")}`'


def _use(description: ModelDescription) -> str:
  """How to load the files, here and elsewhere."""
  text = """## Use

In scmdm_jax:

```
python -m scmdm_jax.main --mode=import --source=THIS_DIRECTORY --workdir=NEW_DIRECTORY
```

In PyTorch the tensors have the names and shapes of the layout's own implementation:

```python
import pathlib
import safetensors.torch

weights = {}
for file in pathlib.Path('THIS_DIRECTORY').glob('*.safetensors'):
  weights |= safetensors.torch.load_file(file)
"""
  prefix = f'{layouts.SELF_CONDITIONING}.'
  added = {
    name: entry.shape
    for name, entry in layouts.entries_of(description).items()
    if name.startswith(prefix)
  }
  injection = INJECTIONS[description.injection]
  if injection is None:
    return f'{text}model.load_state_dict(weights)\n```\n'
  listed = '\n'.join(f'* `{name}` {list(shape)}' for name, shape in added.items())
  return f"""{text}added = [name for name in weights if name.startswith('{prefix}')]
added = {{name: weights.pop(name) for name in added}}
model.load_state_dict(weights)
```

Without the tensors in `added` this is a plain denoiser: its previous prediction is not
read. They are, stored [in, out]:

{listed}

At a masked position they add a vector to the embedding of the mask, computed from the
clean-token probabilities `p` that the model predicted there one step before. The signal
is {injection.card}.
`E` is the model's own table of embeddings. Zero, the null signal, stands for "nothing
predicted yet". `docs/use_in_pytorch.md` in the source of scmdm_jax has the forward pass
and the sampler in 60 lines.
"""
