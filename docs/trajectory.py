r"""Draws one sample twice, with and without the carried prediction, as a moving WebP.

  launch/local.sh python docs/trajectory.py --out=docs/trajectory.webp

draws a molecule, in half as many steps as there are positions, after adapting the
bundled base as the quick start does: two and a half minutes of processor time (2 cores
of an AMD EPYC, shared), nearly all of it the adaptation.

  launch/local.sh python docs/trajectory.py --out=docs/evidence/rrna.webp \
      --config=configs/rrna_small.py --source=runs/rrna_compare/arms/rate_1/seed_0

draws what that comparison has adapted, in as many steps as its config says; seconds.
Nothing is chosen: it is the first sample of seed 0.
"""

import argparse
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import scmdm_jax as sc
from scmdm_jax import command_line, files
from scmdm_jax.domains import registry
from scmdm_jax.report import animation
from scmdm_jax.runs import drawing, watching
from scmdm_jax.settings.building import sampler_of, schedule_of
from scmdm_jax.settings.resolve import resolve

SEED, NUM_STEPS, MOST_BYTES = 0, 16, 500_000
TRAIN = sc.TrainSettings(  # As the quick start.
  num_steps=300,
  warmup_steps=30,
  batch_size=64,
  learning_rate=3e-4,
  injection_rate_factor=10.0,
)


def rows_of(base: sc.Model):
  """The training molecules of QM9, prepared on first use."""
  data = registry.data_settings()(
    name='qm9', length=base.description.architecture.length
  )
  return registry.of(data).read_rows(data, base.tokenizer, 'train')


def draw(
  model: sc.Model,
  sampler: sc.Sampler,
  options: sc.SampleSettings,
  x_init: np.ndarray,
  show: Callable[[np.ndarray], list[Any]] | None = None,
) -> bytes:
  """Returns the animation of the first sample of the seed.

  Args:
    model: adapted.
    sampler: how it is sampled.
    options: the rest of that.
    x_init: int32 [1, L], what the sample starts from.
    show: rows int32 [N, L] -> pictures; None: tokens are shown.
  """
  beliefs = watching.side_by_side(
    model,
    sampler,
    options,
    jax.random.key(SEED),
    x_init,
    sc.make_mesh(1, 1, 1),
    show,
  )
  webp = animation.animated(beliefs, MOST_BYTES)
  assert webp is not None, 'this Pillow writes no WebP'
  return webp


def of_base() -> bytes:
  """The animation of the bundled base, adapted first."""
  base = sc.load(sc.ASSETS / 'qm9_base')
  model = sc.adapt(jax.random.key(SEED), base, rows_of(base), train=TRAIN)
  length, mask_id = base.description.architecture.length, base.tokenizer.mask_id
  x_init = np.full((1, length), mask_id, np.int32)
  return draw(model, sc.Sampler(num_steps=NUM_STEPS), sc.SampleSettings(), x_init)


def of_run(config: str, source: str) -> bytes:
  """The animation of a model that a run with this config has left in `source`."""
  given = command_line.parse(['main.py', f'--config={config}']).config
  assert given is not None
  settings, model = resolve(given), sc.load(source)
  domain = registry.of(settings.data)
  return draw(
    model,
    sampler_of(settings.sample, schedule_of(settings.method)),
    settings.sample,
    drawing.starting_rows(settings, model.tokenizer, 1),
    (lambda rows: domain.show(settings.data, rows, model.tokenizer))
    if domain.film
    else None,
  )


def main() -> None:
  """Draws and writes."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--out', type=pathlib.Path, default='docs/trajectory.webp')
  parser.add_argument('--config', default='', help='of the run that left --source')
  parser.add_argument('--source', default='', help='an adapted model')
  given = parser.parse_args()
  if bool(given.config) != bool(given.source):
    parser.error('--config and --source: found one of them; wanted both or neither')
  webp = of_run(given.config, given.source) if given.source else of_base()
  files.write_bytes(given.out, webp)


if __name__ == '__main__':
  main()
