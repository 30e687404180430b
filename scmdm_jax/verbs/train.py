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
from scmdm_jax.runs import judges, opening
from scmdm_jax.runs.adapting import fit, save
from scmdm_jax.runs.starting import starting_point
from scmdm_jax.settings.options import Settings


def run(settings: Settings, workdir: pathlib.Path) -> dict[str, Any]:
  """Trains, leaves the averaged model in `workdir/model`, returns the main figures."""
  started = time.time()
  steps.require_writable(workdir / 'checkpoints')
  opened = opening.open_run(settings, workdir)
  domain = registry.of(settings.data)
  rows = domain.read_rows(settings.data, opened.tokenizer, 'train')
  key = jax.random.fold_in(jax.random.key(settings.seed), 0)
  mesh = opening.mesh_of(settings)
  start = starting_point(settings, opened, key, mesh)
  heldout = None
  if settings.train.evaluate_every:
    heldout = domain.read_rows(settings.data, opened.tokenizer, 'test')
  trained = fit(settings, start, rows, workdir, heldout=heldout, donate=True)
  save(workdir, trained, settings)
  figures = {}
  if start.description.objective == 'classify':
    figures = judges.heldout_figures(
      multihost.gathered(trained.params),
      start.description,
      domain.read_rows(settings.data, opened.tokenizer, 'test'),
      settings.evaluate.batch_size,
    )
  return {
    'mode': 'train',
    'model': str(workdir / store.MODEL_SUBDIRECTORY),
    'parameters': int(sum(np.size(x) for x in jax.tree.leaves(trained.params))),
    'steps': settings.train.num_steps,
    'tokens': settings.train.num_steps
    * settings.train.batch_size
    * settings.data.length,
    'seconds': round(time.time() - started, 1),
    **figures,
  }
