r"""Measures configs/chat_small.py: losses and answers, of LoRA and of all weights.

  launch/local.sh python docs/chat_small.py --out=docs/chat_small.json
  launch/local.sh python docs/chat_small.py --out=docs/chat_small.json --table

The first does what is not in the file yet, run by run; the second prints mean, lowest
and highest over seeds. The data come first: docs/text_data.md. `right` is the share of
held-out questions whose answer is the wanted word and no other, `contained` of those
whose answer has it somewhere, and `commonest` what one word for all of them would get.
"""

import argparse
import json
import pathlib
import statistics
import tempfile

import jax
import jax.numpy as jnp

from scmdm_jax import command_line, files
from scmdm_jax.diffusion.noise import batch_of
from scmdm_jax.domains import registry
from scmdm_jax.models import lora
from scmdm_jax.runs import adapting, compiling, opening, scoring, timing
from scmdm_jax.settings.building import optimizer_of
from scmdm_jax.settings.resolve import resolve
from scmdm_jax.verbs import plan, sample, train

ROOT = pathlib.Path(__file__).parents[1]
ASKED = ROOT / 'runs/prose/asked.jsonl'
SEEDS = (0, 1, 2)
ALL = {'lora_rank': 0, 'learning_rate': 2e-3, 'injection_rate_factor': 5.0}
ARMS = {
  'LoRA at rate 1': {'rate': 1.0},
  'LoRA at rate 0.5': {'rate': 0.5},
  'LoRA at rate 0': {'rate': 0.0},
  'all at rate 0.5': {'rate': 0.5, **ALL},
}
FIGURES = ('heldout_nelbo', 'heldout_nelbo_two_pass', 'right', 'contained')
ROUNDS = 15


def settings_of(seed: int, choices: dict, **more):
  """Returns the settings of a run, of `train` and `method` options by their names."""
  config = command_line.load_config(str(ROOT / 'configs/chat_small.py'))
  config.seed = seed
  for name, value in choices.items():
    (config.method if name == 'rate' else config.train)[name] = value
  for name, value in more.items():
    config[name] = value
  if config.mode == 'sample':
    config.sample.prompts, config.sample.max_new_tokens = str(ASKED), 8
  return resolve(config)


def shares(answers: list[str], wanted: list[str]) -> dict[str, float]:
  """Returns the shares of right answers, as the head of this file has them."""
  pairs = list(zip(answers, wanted, strict=True))
  return {
    'right': statistics.fmean(a.strip() == b for a, b in pairs),
    'contained': statistics.fmean(b in a.split() for a, b in pairs),
    'commonest': wanted.count(statistics.mode(wanted)) / len(wanted),
  }


def answered(seed: int, choices: dict, checkpoint: str, workdir: pathlib.Path):
  """Returns the shares of right answers of a checkpoint, and some of its answers."""
  settings = settings_of(seed, choices, checkpoint=checkpoint, mode='sample')
  workdir.mkdir(parents=True, exist_ok=True)
  sample.run(settings, workdir)
  records = [json.loads(line) for line in (workdir / 'samples.jsonl').open()]
  texts = {record['id']: record['text'] for record in records}
  asked = [json.loads(line) for line in ASKED.open()]
  answers = [texts[i + 1] for i in range(len(asked))]
  examples = {
    a['messages'][0]['content']: b for a, b in zip(asked, answers, strict=True)
  }
  found = shares(answers, [a['answer'] for a in asked])
  return found | {'examples': dict(list(examples.items())[::50])}


def base_losses(seed: int, workdir: pathlib.Path) -> dict[str, float]:
  """Returns the held-out loss that a seed's runs begin with, at its masks and times."""
  settings = settings_of(seed, {'rate': 0.0, 'lora_rank': 0})
  workdir.mkdir(parents=True, exist_ok=True)
  opened, mesh = opening.open_run(settings, workdir), opening.mesh_of(settings)
  rows = registry.of(settings.data).read_rows(settings.data, opened.tokenizer, 'test')
  start = adapting.starting_point(settings, opened, jax.random.key(0), mesh)
  losses = scoring.heldout_losses(start.description, settings, rows, mesh)
  return losses(start.params)


def trained(seed: int, choices: dict, workdir: pathlib.Path) -> dict[str, float]:
  """Trains, and returns the held-out losses at the end."""
  workdir.mkdir(parents=True, exist_ok=True)
  train.run(settings_of(seed, choices), workdir)
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').open()]
  return {k: v for k, v in lines[-1].items() if k.startswith('heldout')}


def times(workdir: pathlib.Path) -> dict[str, dict[str, float]]:
  """Returns the time of a step over that of all weights, interleaved."""
  contenders = {}
  for name in ('all at rate 0.5', 'LoRA at rate 0.5', 'all at rate 0.5, again'):
    settings = settings_of(0, ARMS[name.split(',')[0]])
    workdir.mkdir(parents=True, exist_ok=True)
    opened, mesh = opening.open_run(settings, workdir), opening.mesh_of(settings)
    start = adapting.starting_point(settings, opened, jax.random.key(0), mesh)
    frozen, trained = lora.divided(start.params)
    shape = (settings.train.batch_size, settings.data.length)
    batch = batch_of(jnp.zeros(shape, jnp.int32))
    step = compiling.step_on_mesh(
      *(start.description, settings.method, settings.train, mesh, jax.random.key(0)),
      place=lambda batch: batch,
      frozen=frozen,
    )
    state = [adapting.fresh_state(trained, optimizer_of(settings.train), mesh)]

    def run(step=step, state=state, batch=batch):
      state[0], metrics = step(state[0], batch, jnp.float32(1e-4))
      return metrics

    contenders[name] = run
  found = timing.interleaved(contenders, ROUNDS)
  reference, *others = found
  return {name: timing.ratio_of(found[name], found[reference]) for name in others}


def memory(choices: dict) -> dict[str, float]:
  """Returns the bytes that the compiled step of a run takes, by what takes them."""
  with tempfile.TemporaryDirectory() as folder:
    found = plan.run(settings_of(0, choices, mode='plan'), pathlib.Path(folder))
  return {'peak_bytes': found['peak_bytes'], **found['bytes_per_device']}


def measure(out: pathlib.Path, runs: pathlib.Path) -> None:
  """Does every run that `out` does not have yet."""
  found = json.loads(out.read_text()) if out.is_file() else {}

  def do(name: str, work):
    if name not in found:
      found[name] = work()
      files.write_json(out, found)

  base = str(settings_of(0, {}).checkpoint)
  for seed in SEEDS:
    do(f'base, seed {seed}', lambda seed=seed: base_losses(seed, runs / 'base'))
  do('base, answers', lambda: answered(0, {'rate': 0.0}, base, runs / 'base_answers'))
  for arm, choices in ARMS.items():
    for seed in SEEDS:
      run = runs / f'{arm}-{seed}'.replace(' ', '_')

      def one(seed=seed, choices=choices, run=run):
        losses = trained(seed, choices, run)
        return losses | answered(seed, choices, str(run), run / 'answers')

      do(f'{arm}, seed {seed}', one)
  for arm, choices in ARMS.items():
    do(f'{arm}, memory', lambda c=choices: memory(c))
  do('seconds of a step over those of all weights', lambda: times(runs / 'times'))


def table(out: pathlib.Path) -> str:
  """Returns the table: mean over seeds, lowest and highest."""
  found = json.loads(out.read_text())
  rows = [f'| | {" | ".join(FIGURES)} | peak |', '|---' * (len(FIGURES) + 2) + '|']
  for arm in ('base', *ARMS):
    runs = [r for name, r in found.items() if name.startswith(f'{arm}, seed')]
    runs += [r for name, r in found.items() if name == f'{arm}, answers']
    cells = []
    for figure in FIGURES:
      values = [r[figure] for r in runs if figure in r]
      cells.append('')
      if values:
        mean, low, high = statistics.fmean(values), min(values), max(values)
        cells[-1] = f'{mean:.3f} ({low:.3f} to {high:.3f})'
    peak = found.get(f'{arm}, memory', {}).get('peak_bytes')
    cells.append(f'{peak / 2**20:.1f} MiB' if peak else '')
    rows.append(f'| {arm} | {" | ".join(cells)} |')
  return '\n'.join(rows)


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--runs', type=pathlib.Path, default=ROOT / 'runs/chat_small')
  parser.add_argument('--table', action='store_true')
  given = parser.parse_args()
  print(table(given.out)) if given.table else measure(given.out, given.runs)
