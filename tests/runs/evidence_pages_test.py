"""Pages that quote the evidence, and the commands that are said to make it."""

import math
import pathlib
import re
import shutil
import subprocess

import pytest

from scmdm_jax import command_line
from scmdm_jax.report import summary, text
from scmdm_jax.runs import arms, studies
from scmdm_jax.settings.resolve import resolve

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / 'docs'
STUDIES = studies.read_studies(DOCS / 'evidence')
FIGURE = r'[+-]?\d[\d.]* ± [\d.]*\d'
PAPER = {'594.2 ± 9.5', '618.0 ± 13.2'}


def figures_of(runs):
  """All that a page may quote of a study: means, differences, sizes of those."""
  study = studies.Study(runs)
  matched = [*study.matched(), *study.matched(along='distinct_4')]
  for row in [*summary.summarize(runs, arms.CONTROL), *matched]:
    if 'mean' in row:
      yield text.measurement(row['mean'], row['standard_error'])
    if row['difference'] is not None:
      yield text.measurement(row['difference'], row['difference_error'], sign=True)
      yield text.measurement(abs(row['difference']), row['difference_error'])


@pytest.mark.parametrize('name', ['README.md', 'docs/results.md'])
def test_front_pages_quote_its_results(name):
  """A mean with its standard error is that of a row, or of the page."""
  known = PAPER | set(re.findall(FIGURE, (DOCS / 'evidence.md').read_text()))
  for runs in STUDIES.values():
    known |= set(figures_of(runs))
  found = re.findall(FIGURE, ' '.join((ROOT / name).read_text().split()))
  assert len(found) > 10
  assert [figure for figure in found if figure not in known] == []


def test_the_table_of_the_readme():
  """Cell by cell, with the differences in brackets, and the rows at equal diversity."""
  study = studies.Study(STUDIES['molecules_steps'])
  page = (ROOT / 'README.md').read_text()
  table = page[page.index('| arm | valid') :].partition('\n\n')[0].replace('*', '')
  base, control, adapted, *equal = [x.split(' | ') for x in table.splitlines()[2:]]
  metrics = ('valid_rate', 'generative_perplexity', 'entropy', 'carried_nelbo')
  for arm, row in ((arms.BASE, base), (arms.CONTROL, control), ('rate 1', adapted)):
    for metric, cell in zip(metrics, row[1:], strict=True):
      found = study.row(arm, f'{metric}@32')
      assert found is not None
      mean, _, bracket = cell.strip(' |').partition(' [')
      assert mean == text.measurement(found['mean'], found['standard_error'])
      if bracket:
        difference = text.measurement(
          found['difference'], found['difference_error'], sign=True
        ).partition(' ')[0]
        assert bracket == f'{difference}, {abs(found["sigmas"]):.1f}]'
  swept = studies.Study(STUDIES['molecules_steps_2048'])
  matched = (
    (study, arms.CONTROL, ''),
    (swept, arms.CONTROL, 'distinct_4'),
    (study, arms.BASE, ''),
  )
  for row, (known, against, along) in zip(equal, matched, strict=True):
    valid = known.gain('rate 1', 'valid_rate@32', against, along)
    perplexity = known.gain('rate 1', 'log_perplexity@32', against, along)
    assert valid is not None and perplexity is not None
    log = perplexity['difference']
    for found, cell, shown in (
      (valid, row[1], '[{}, {:.1f}]'),
      (
        perplexity,
        row[2],
        f'{100 * (math.exp(log) - 1):.0f} % [log {{}}, {{:.1f}}]',
      ),
    ):
      given = text.measurement(
        found['difference'], found['difference_error'], sign=True
      )
      assert cell == shown.format(given, abs(found['sigmas']))


@pytest.mark.parametrize('name', ['README.md', 'docs/results.md', 'docs/evidence.md'])
def test_commands_are_taken(name, tmp_path, monkeypatch):
  """What Bash makes of them are options, studies and directories that are known."""
  monkeypatch.chdir(tmp_path)
  shutil.copytree(ROOT / 'configs', 'configs')
  (tmp_path / 'scmdm_jax').symlink_to(ROOT / 'scmdm_jax')
  (tmp_path / 'launch').mkdir()
  launcher = tmp_path / 'launch' / 'local.sh'
  launcher.write_text('#!/bin/bash\n(printf "%s\\0" "$@"; echo) >> given\n')
  launcher.chmod(0o755)
  fenced = re.findall(r'(?ms)^```(\w*)\n(.+?)^```$', (ROOT / name).read_text())
  blocks = [x for kind, x in fenced if not kind and 'launch/local.sh' in x]
  assert blocks
  studied, made, collected = set(), set(), set()
  for block in blocks:
    subprocess.run(['bash', '-euc', block], check=True, timeout=60)
  for line in (tmp_path / 'given').read_text().split('\0\n'):
    program = line.split('\0')
    if program[:3] == ['python', '-m', 'scmdm_jax.main']:
      # What is given twice of a tuple is added up.
      tuples = [x.partition('=')[0] for x in program if '=(' in x]
      assert len(tuples) == len(set(tuples)), program
      given = command_line.parse(program[2:])
      assert given.config is not None or given.mode
      if given.config is not None:
        resolve(given.config)
      made |= {x.partition('=')[2] for x in program if x.startswith('--workdir=')}
    elif program[:3] == ['python', '-m', 'scmdm_jax.runs.evidence']:
      assert program[3] == 'docs'
      studied |= {re.split('[/=]', pair)[0] for pair in program[4:]}
      collected |= {pair.partition('=')[2] for pair in program[4:]}
    else:
      assert program == [''] or (ROOT / program[1]).is_file(), program
  assert collected <= made
  assert studied == (STUDIES.keys() if name == 'docs/evidence.md' else set())
