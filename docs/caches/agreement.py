r"""What approximate caches do to samples of a trained model; the figures of caches.md.

  launch/local.sh python docs/caches/agreement.py --out=FILE
  launch/local.sh python docs/caches/agreement.py --out=FILE --table

The first adapts the bundled base of texts at rate 1, once, and draws by every cache,
with the carried signal and without it, by the same keys as without a cache. The second
prints mean, lowest and highest over keys. docs/text_data.md says how the text is made.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
from typing import Any

import jax
import numpy as np

from scmdm_jax import command_line, files
from scmdm_jax.parallel.mesh import one_device
from scmdm_jax.runs import measuring, opening
from scmdm_jax.runs.counting import cost, counted
from scmdm_jax.runs.drawing import draw, starting_rows
from scmdm_jax.runs.scoring import judge_samples
from scmdm_jax.settings.building import schedule_of
from scmdm_jax.settings.resolve import resolve
from scmdm_jax.verbs import train

ROOT = pathlib.Path(__file__).parents[2]
SEEDS = (0, 1, 2)
# Blocks of 8 in texts of 64 tokens, so that each has 4 steps.
CACHES = {
  'none': {'cache': 'none'},
  'prefix': {'cache': 'prefix'},
  'dual': {'cache': 'dual'},
  'dual, refreshed every 2 steps': {'cache': 'dual', 'refresh': 2},
}
FIGURES = ('agreement', 'positions', 'generative_perplexity', 'entropy')


def settings_of(**options: Any):
  """Returns the settings of a run on the text of configs/text_small.py."""
  config = command_line.load_config(str(ROOT / 'configs/text_small.py'))
  config.data.source = str(ROOT / config.data.source)
  config.method.rate = 1.0
  config.sample.update(
    {'num_samples': 128, 'batch_size': 128, 'block_length': 8, 'num_steps': 32}
  )
  for name, value in options.items():
    config[name] = value
  return resolve(config)


def adapted(workdir: pathlib.Path) -> str:
  """Returns the directory of the adapted model, which it trains if it is not there."""
  if not (workdir / 'result.json').is_file():
    workdir.mkdir(parents=True, exist_ok=True)
    figures = train.run(settings_of(mode='train'), workdir)
    files.write_json(workdir / 'result.json', figures)
  return str(workdir)


def drawn(checkpoint: str, workdir: pathlib.Path) -> dict[str, Any]:
  """Returns the figures of all samples, by signal, cache and seed."""
  settings = settings_of(mode='evaluate', checkpoint=checkpoint)
  opened = opening.open_run(settings, workdir)
  model = opening.load_masked(settings, opened, one_device())
  measure = measuring.measure_of(settings, workdir, opened.tokenizer)
  x_init = starting_rows(settings, opened.tokenizer)
  found, schedule = {}, schedule_of(settings.method)
  for carried in (True, False):
    plain = {}
    for name, options in CACHES.items():
      sample = dataclasses.replace(
        settings.sample, self_conditioning=carried, **options
      )
      for seed in SEEDS:
        key = jax.random.key(seed)
        one = draw(model, schedule, sample, key, x_init, one_device())
        plain.setdefault(seed, one.tokens)
        figures = judge_samples(measure, one, opened.tokenizer)
        figures |= cost(counted(one, x_init, opened.tokenizer))
        figures['agreement'] = float(np.mean(one.tokens == plain[seed]))
        if name == 'none':  # What is left of it by chance.
          other = draw(
            model, schedule, sample, jax.random.key(100 + seed), x_init, one_device()
          )
          figures['agreement_of_other_keys'] = float(
            np.mean(other.tokens == plain[seed])
          )
        found[f'{"carried" if carried else "no"} signal, {name}, seed {seed}'] = figures
        print(carried, name, seed, {n: figures[n] for n in FIGURES}, flush=True)
  return found


def table(out: pathlib.Path) -> str:
  """Returns the table: mean over seeds, lowest and highest."""
  found = json.loads(out.read_text())
  rows = [f'| | {" | ".join(FIGURES)} |', '|---' * (len(FIGURES) + 1) + '|']

  def shown(values: list[float]) -> str:
    mean, low, high = statistics.fmean(values), min(values), max(values)
    return f'{mean:.4g} ({low:.4g} to {high:.4g})'

  for signal in ('carried signal', 'no signal'):
    for name in CACHES:
      runs = [found[f'{signal}, {name}, seed {seed}'] for seed in SEEDS]
      cells = [shown([run[figure] for run in runs]) for figure in FIGURES]
      rows.append(f'| {signal}, {name} | {" | ".join(cells)} |')
    others = [
      found[f'{signal}, none, seed {seed}']['agreement_of_other_keys'] for seed in SEEDS
    ]
    rows.append(f'| {signal}, none, other keys | {shown(others)} | | | |')
  return '\n'.join(rows)


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--run', type=pathlib.Path, default=ROOT / 'runs/agreement')
  parser.add_argument('--table', action='store_true')
  given = parser.parse_args()
  if given.table:
    print(table(given.out))
  else:
    model = adapted(given.run)
    files.write_json(given.out, drawn(model, given.run))
