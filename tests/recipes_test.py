"""CONTRIBUTING's recipes: a worked example of each, and the files that one touches."""

import dataclasses
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.diffusion import strategies
from scmdm_jax.diffusion.planning import Choice, Strategy
from scmdm_jax.diffusion.sampling import Sampler, sample
from scmdm_jax.domains.text import builder
from scmdm_jax.settings.building import sampler_of, schedule_of
from scmdm_jax.settings.options import MethodSettings, SampleSettings
from tests.diffusion import toys

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / 'scmdm_jax'


def naming(*words: str) -> set[str]:
  """The files of the package that have one of the words, from the package down."""
  found = re.compile('|'.join(rf'\b{word}\b' for word in words))
  return {
    str(path.relative_to(PACKAGE))
    for path in PACKAGE.rglob('*.py')
    if found.search(path.read_text())
  }


@pytest.mark.parametrize(
  ('words', 'files'),
  [
    # A sampler: its class, and its line in the table.
    (('EntropyBound',), {'diffusion/confidence.py', 'diffusion/strategies.py'}),
    # A set of texts: its line.
    (('ag_news',), {'domains/text/builder.py'}),
    # A measure: its function, its line.
    (
      ('judge_molecules', 'novelty'),
      {f'domains/molecules/{name}.py' for name in ('domain', 'measures', 'prepared')},
    ),
    # An option: its line, and the verb that takes it.
    (('judge_length',), {'settings/measure_options.py', 'verbs/judge.py'}),
    # An injection: its class and its record.
    (('class Gate',), {'models/injection.py'}),
  ],
)
def test_what_was_added_stands_where_the_recipe_says(words, files):
  assert naming(*words) == files


def test_the_recipes_name_files_that_exist():
  text = (ROOT / 'CONTRIBUTING.md').read_text()
  table = text[text.index('| to add') : text.index('A sampler gets')]
  examples = re.findall(r'`(tests/[\w/]+\.py)`', table)
  assert len(examples) == 9
  named = re.findall(r'`((?:[a-z]+/)+\w+\.py)`', table)
  for path in {*examples, *named}:
    assert (ROOT / path).is_file() or (PACKAGE / path).is_file(), path
  for folder in re.findall(r'`((?:[a-z]+/)+)`', table):
    assert (PACKAGE / folder).is_dir(), folder


@dataclasses.dataclass(frozen=True)
class LeftToRight(Strategy):
  """Writes the first masked position of every example, one a step."""

  def choose(self, view):
    return Choice(view.masked & (jnp.cumsum(view.masked, -1) == 1))


def test_a_sampler_is_a_class_and_a_line(monkeypatch):
  monkeypatch.setitem(strategies.STRATEGIES, 'left_to_right', LeftToRight)
  options = SampleSettings(strategy='left_to_right', num_steps=toys.LENGTH)
  sampler = sampler_of(options, schedule_of(MethodSettings()))
  assert isinstance(sampler, Sampler)
  found = sample(
    jax.random.split(jax.random.key(0), 3),
    toys.network(toys.weights(0)),
    jnp.full((3, toys.LENGTH), toys.MASK),
    sampler,
    mask_id=toys.MASK,
    keep_trajectory=True,
  )
  written = np.asarray(found.trajectory) != toys.MASK
  steps = np.arange(toys.LENGTH)
  expected = steps[None, :] <= steps[:, None]
  np.testing.assert_array_equal(
    written, np.broadcast_to(expected[:, None], written.shape)
  )


def test_a_set_of_texts_is_a_line(monkeypatch, tmp_path):
  monkeypatch.setitem(
    builder.SETS, 'proverbs', builder.TextSet('the jsonl files of proverbs', 'saying')
  )
  lines = [f'{{"saying": "saying number {i}"}}' for i in range(40)]
  (tmp_path / 'proverbs.jsonl').write_text('\n'.join(lines))
  config = builder.config_of('proverbs', tmp_path / 'proverbs.jsonl')
  made = builder.Text(
    data_dir=tmp_path / 'data', config=config, file_format='array_record'
  )
  made.download_and_prepare()
  texts = [
    record['text'].decode()
    for split in made.info.splits
    for record in made.as_data_source(split)
  ]
  assert sorted(texts) == sorted(f'saying number {i}' for i in range(40))
