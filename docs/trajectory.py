r"""Draws docs/trajectory.svg: one molecule, with and without the carried prediction.

  launch/local.sh python docs/trajectory.py --out=docs/trajectory.svg

By its processor time about three minutes on two cores (not timed on free ones), nearly
all of it the adaptation. Nothing is chosen: the first sample of seed 0, in half as many
steps as there are positions.
"""

import argparse
import dataclasses
import pathlib

import jax

import scmdm_jax as sc
from scmdm_jax import files
from scmdm_jax.domains import registry
from scmdm_jax.domains.molecules.measures import judge_molecules
from scmdm_jax.report.beliefs import picture, written

SEED, NUM_STEPS = 0, 16
TRAIN = sc.TrainSettings(  # As the quick start.
  num_steps=300,
  warmup_steps=30,
  batch_size=64,
  learning_rate=3e-4,
  injection_rate_factor=10.0,
)
NOTES = (
  '^ start, $ end, · padding. In a box: written in this step. Plain: written before. '
  'In colour: still masked; the likeliest token, the',
  'more opaque the likelier. Last row: in colour what differs. First sample of seed 0; '
  'nothing was chosen. Both runs have the weights',
  'adapted at rate 1 for 300 steps, which expect the carried prediction; to go without '
  'is not to be the unadapted base. One sample',
  'shows how it works, not how much it helps.',
)


def rows_of(base: sc.Model):
  """The training molecules of QM9, prepared on first use."""
  data = registry.data_settings()(
    name='qm9', length=base.description.architecture.length
  )
  return registry.of(data).read_rows(data, base.tokenizer, 'train')


def draw(model: sc.Model) -> str:
  """Returns the SVG of the first sample of the seed."""
  tokenizer = model.tokenizer
  names = list(tokenizer.tokens)
  for index, name in zip(
    (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id), '^$·', strict=True
  ):
    assert index is not None
    names[index] = name
  assert tokenizer.mask_id is not None
  samples, results = {}, []
  sampler = sc.Sampler(num_steps=NUM_STEPS)
  for title, carried in (
    ('with the carried prediction', True),
    ('without it: same weights, same random numbers', False),
  ):
    how = dataclasses.replace(sampler, self_conditioning=carried)
    found = sc.beliefs(jax.random.key(SEED), model, sampler=how)
    samples[title] = written(
      found.states[:, 0], found.log_probs[:, 0], tokenizer.mask_id, names
    )
    molecule = tokenizer.decode(found.states[-1, 0])
    valid = judge_molecules([molecule], set()).valid
    results.append(f'{molecule}  ({"valid" if valid else "not a valid molecule"})')
  return picture(samples, results, NOTES)


def main() -> None:
  """Adapts the bundled base, draws and writes."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--out', type=pathlib.Path, default='docs/trajectory.svg')
  out = parser.parse_args().out
  base = sc.load(sc.ASSETS / 'qm9_base')
  key = jax.random.key(SEED)
  files.write_text(out, draw(sc.adapt(key, base, rows_of(base), train=TRAIN)))


if __name__ == '__main__':
  main()
