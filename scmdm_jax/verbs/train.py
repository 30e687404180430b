"""`--mode=train`: pretraining, continued training, adaptation, or training a judge.

    data -> grain batches -> one compiled step -> checkpoints, metrics -> workdir/model

With `checkpoint` empty a new model is trained; otherwise that model is continued, with
self-conditioning added when `method.rate` is above 0.
"""

import pathlib
import time
from typing import Any

import jax
import numpy as np

from scmdm_jax.checkpoints import steps, store
from scmdm_jax.domains import registry
from scmdm_jax.processes import multihost
from scmdm_jax.runs import classifiers, opening
from scmdm_jax.runs.adapting import fit, fresh_state, origin, starting_point
from scmdm_jax.settings.building import optimizer_of
from scmdm_jax.settings.options import Settings


def run(settings: Settings, workdir: pathlib.Path) -> dict[str, Any]:
  """Trains, leaves the averaged model in `workdir/model`, returns the main figures."""
  started = time.time()
  steps.require_writable(workdir / 'checkpoints')
  tokenizer = opening.run_tokenizer(settings, workdir)
  rows = registry.of(settings.data).read_rows(settings.data, tokenizer, 'train')
  key = jax.random.fold_in(jax.random.key(settings.seed), 0)
  mesh = opening.mesh_of(settings)
  description, params = starting_point(settings, tokenizer, workdir, key, mesh)
  base = opening.base_origin(settings, workdir)
  state = fresh_state(params, optimizer_of(settings.train), mesh, donate=True)
  trained = fit(settings, description, state, rows, tokenizer, workdir)
  store.save_model(
    workdir / store.MODEL_SUBDIRECTORY,
    description,
    trained,
    origin(settings, base),
    tokenizer.files,
  )
  figures = {}
  if description.objective == 'classify':
    figures = classifiers.heldout_figures(
      multihost.gathered(trained),
      description,
      registry.of(settings.data).read_rows(settings.data, tokenizer, 'test'),
      settings.evaluate.batch_size,
    )
  return {
    'mode': 'train',
    'model': str(workdir / store.MODEL_SUBDIRECTORY),
    'parameters': int(sum(np.size(x) for x in jax.tree.leaves(trained))),
    'steps': settings.train.num_steps,
    'tokens': settings.train.num_steps
    * settings.train.batch_size
    * settings.data.length,
    'seconds': round(time.time() - started, 1),
    **figures,
  }
