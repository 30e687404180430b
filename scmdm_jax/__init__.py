"""Self-conditioned masked diffusion models in JAX.

    import jax
    import scmdm_jax as sc

    model = sc.load(sc.ASSETS / 'qm9_base')
    tokens = sc.sample(jax.random.key(0), model, num_samples=16)  # int32 [16, 32]
    texts = [model.tokenizer.decode(row) for row in tokens]

`load` opens any checkpoint that the command line takes, `sample` draws from it,
`beliefs` shows how, `adapt` teaches it to read its own previous prediction, `nelbo` and
`carried_nelbo` measure it, `save` writes it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from scmdm_jax.diffusion import schedules, strategies
  from scmdm_jax.diffusion.guidance import Guidance
  from scmdm_jax.diffusion.objectives import diffusion_loss
  from scmdm_jax.diffusion.sampling import Sampler
  from scmdm_jax.door import (
    ASSETS,
    adapt,
    beliefs,
    carried_nelbo,
    load,
    make_mesh,
    nelbo,
    sample,
    save,
  )
  from scmdm_jax.errors import BadInput, DamagedData
  from scmdm_jax.runs.opening import Model
  from scmdm_jax.settings.options import (
    EvaluateSettings,
    MethodSettings,
    SampleSettings,
    TrainSettings,
  )

__all__ = [
  'ASSETS',
  'BadInput',
  'DamagedData',
  'EvaluateSettings',
  'Guidance',
  'MethodSettings',
  'Model',
  'SampleSettings',
  'Sampler',
  'TrainSettings',
  'adapt',
  'beliefs',
  'carried_nelbo',
  'diffusion_loss',
  'load',
  'make_mesh',
  'nelbo',
  'sample',
  'save',
  'schedules',
  'strategies',
]

# Read on first use: the command line, which has no need of them, starts without JAX.
_HOMES = {
  'scmdm_jax.diffusion': ('schedules', 'strategies'),
  'scmdm_jax.diffusion.guidance': ('Guidance',),
  'scmdm_jax.diffusion.objectives': ('diffusion_loss',),
  'scmdm_jax.diffusion.sampling': ('Sampler',),
  'scmdm_jax.errors': ('BadInput', 'DamagedData'),
  'scmdm_jax.runs.opening': ('Model',),
  'scmdm_jax.settings.options': (
    'EvaluateSettings',
    'MethodSettings',
    'SampleSettings',
    'TrainSettings',
  ),
}


def __getattr__(name: str) -> Any:
  if name not in __all__:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  home = next((m for m, names in _HOMES.items() if name in names), 'scmdm_jax.door')
  if name in ('schedules', 'strategies'):
    return importlib.import_module(f'{home}.{name}')
  return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
  return __all__
