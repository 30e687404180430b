r"""Measures configs/chat_small.py: losses and answers, of LoRA and of all weights.

  launch/local.sh python docs/chat_small.py --out=docs/chat_small.json
  launch/local.sh python docs/chat_small.py --out=docs/chat_small.json --table

The first does what is not in the file yet, run by run; the second prints mean, lowest
and highest over seeds. The data come first: docs/text_data.md. An answer is
`kind: definition`. It has the right kind if its first word is that of the held-out
answer; `words` is the share of the definition's words of four letters and more that
stand in the answer, and `other_words` the same of another question's definition, which
is what frequent words alone give.
"""

import argparse
import json
import pathlib
import re
import statistics
import tempfile

import jax

from scmdm_jax import command_line, files
from scmdm_jax.domains import registry
from scmdm_jax.runs import adapting, opening, scoring
from scmdm_jax.settings.resolve import resolve
from scmdm_jax.verbs import plan, sample, train

ROOT = pathlib.Path(__file__).parents[1]
ASKED = ROOT / 'runs/prose/asked.jsonl'
SEEDS = (0, 1, 2)
ALL = {'lora_rank': 0, 'learning_rate': 2e-3, 'injection_rate_factor': 5.0}
ARMS = {
  'lora': {'rate': 1.0},
  'all': {'rate': 1.0, **ALL},
  'lora at rate 0': {'rate': 0.0},
}
FIGURES = ('heldout_nelbo', 'heldout_nelbo_two_pass', 'kind', 'words', 'other_words')


def settings_of(seed: int, choices: dict, **more):
  """Returns the settings of a run, of `train` and `method` options by their names."""
  config = command_line.load_config(str(ROOT / 'configs/chat_small.py'))
  config.seed = seed
  for name, value in choices.items():
    (config.method if name == 'rate' else config.train)[name] = value
  for name, value in more.items():
    config[name] = value
  if config.mode == 'sample':
    config.sample.prompts, config.sample.max_new_tokens = str(ASKED), 24
  return resolve(config)


def content(text: str) -> set[str]:
  """Returns the words of four letters and more of a definition."""
  return set(re.findall('[a-z]{4,}', text.lower()))


def right_words(answers: list[str], wanted: list[str]) -> dict[str, float]:
  """Returns the shares of right kinds and words, as the head of this file has them."""

  def kind(text: str) -> str:
    return text.strip().split(':')[0]

  def share(found: str, right: str) -> float | None:
    words = content(right.partition(':')[2])
    return len(words & content(found)) / len(words) if words else None

  def mean(others: list[str]) -> float:
    found = [share(a, b) for a, b in zip(answers, others, strict=True)]
    return statistics.fmean(x for x in found if x is not None)

  pairs = zip(answers, wanted, strict=True)
  return {
    'kind': statistics.fmean(kind(a) == kind(b) for a, b in pairs),
    'words': mean(wanted),
    'other_words': mean(wanted[len(wanted) // 2 :] + wanted[: len(wanted) // 2]),
  }


def answered(seed: int, choices: dict, checkpoint: str, workdir: pathlib.Path):
  """Returns the shares of right words of a checkpoint's answers, and two of them."""
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
  found = right_words(answers, [a['answer'] for a in asked])
  return found | {'examples': dict(list(examples.items())[::100])}


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
