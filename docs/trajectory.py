r"""Draws docs/trajectory.webp: one molecule, with and without the carried prediction.

  launch/local.sh python docs/trajectory.py --out=docs/trajectory.webp

Two and a half minutes of processor time (2 cores of an AMD EPYC, shared), nearly all of
it the adaptation. Nothing is chosen: the first sample of seed 0, in half as many steps
as there are positions.
"""

import argparse
import pathlib

import jax
import numpy as np

import scmdm_jax as sc
from scmdm_jax import files
from scmdm_jax.domains import registry
from scmdm_jax.report import animation
from scmdm_jax.runs import watching

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


def draw(model: sc.Model) -> bytes:
  """Returns the animation of the first sample of the seed."""
  length, mask_id = model.description.architecture.length, model.tokenizer.mask_id
  beliefs = watching.side_by_side(
    model,
    sc.Sampler(num_steps=NUM_STEPS),
    sc.SampleSettings(),
    jax.random.key(SEED),
    np.full((1, length), mask_id, np.int32),
    sc.make_mesh(1, 1, 1),
  )
  webp = animation.animated(beliefs, MOST_BYTES)
  assert webp is not None, 'this Pillow writes no WebP'
  return webp


def main() -> None:
  """Adapts the bundled base, draws and writes."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--out', type=pathlib.Path, default='docs/trajectory.webp')
  out = parser.parse_args().out
  base = sc.load(sc.ASSETS / 'qm9_base')
  key = jax.random.key(SEED)
  files.write_bytes(out, draw(sc.adapt(key, base, rows_of(base), train=TRAIN)))


if __name__ == '__main__':
  main()
