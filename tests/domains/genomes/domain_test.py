"""Genomes through the modes: real stretches of three species, a toy model."""

import json
import math
import pathlib

import numpy as np
import pytest

from scmdm_jax.domains import registry
from scmdm_jax.domains.genomes import domain
from scmdm_jax.domains.genomes import rows as genome_rows
from scmdm_jax.domains.genomes.options import GenomeSettings
from scmdm_jax.domains.registry import get_tokenizer
from scmdm_jax.judges.protocol import ClassJudge
from scmdm_jax.runs.discriminator import discriminate
from tests import tiny_run

REAL = pathlib.Path(__file__).parents[2] / 'genomes'
TOKENIZER = get_tokenizer('species:3')
LENGTH = 61


@pytest.fixture(scope='module')
def rows(tmp_path_factory):
  """Rows of both splits: 600 stretches of 60 bases."""
  directory = str(tmp_path_factory.mktemp('data'))
  data = GenomeSettings('genomes', directory, str(REAL), length=LENGTH)
  return [genome_rows.open_rows(data, TOKENIZER, split) for split in ('train', 'test')]


def measuring(rows, judge=None, epochs=0, counted=0):
  def told_apart(real, drawn):
    ids, size = TOKENIZER.class_ids, TOKENIZER.vocab_size
    return discriminate(real, drawn, ids, size, epochs=epochs, seed=0)

  told = told_apart if epochs else lambda real, drawn: None
  return domain.Measuring(*rows, TOKENIZER, judge, told, counted)


def some(rows, count=90):
  return np.stack([rows[i] for i in range(count)])


def by_composition(tokens):
  """Scores of the three species by the share of C and G: .50, .66, .33."""
  strong = np.isin(tokens[:, 1:], TOKENIZER.base_ids[1:3]).mean(1)
  return -((strong[:, None] - np.array([0.50, 0.66, 0.33])) ** 2)


JUDGE = ClassJudge(lambda tokens: tokens, by_composition, TOKENIZER.class_ids[0])


def test_data_set_names_lead_here():
  for name in ('genomes', 'ten_species'):
    assert registry.of(GenomeSettings(name=name)) is domain.DOMAIN


def test_real_stretches_reach_the_floor(rows):
  found = measuring(rows, JUDGE).measures(some(rows[0]))
  for name in ('js_distance_3', 'js_distance_6', 'gc_error'):
    # The first training rows are themselves what the floor is made of, but for order.
    assert found[name] == pytest.approx(found[f'{name}_real'])
  # Chance is 1/3. The floor is of 30 held-out stretches: its error is 0.08.
  assert found['macro_f1'] > 0.7
  assert abs(found['macro_f1_real'] - found['macro_f1']) < 4 * 0.08
  assert found['stray_rate'] == 0
  assert found['auroc'] is None
  assert [f['species'] for f in found['by_species']] == [0, 1, 2]
  assert sum(f['share'] for f in found['by_species']) == pytest.approx(1)


def test_wrong_and_shuffled_stretches_do_not(rows):
  measure, real = measuring(rows, JUDGE).measures, some(rows[0])
  wrong = real.copy()
  ids = TOKENIZER.class_ids
  wrong[:, 0] = ids[0] + (real[:, 0] - ids[0] + 1) % 3
  found = measure(wrong)
  assert found['macro_f1'] < 0.2 < found['macro_f1_real']
  assert found['gc_error'] > 3 * found['gc_error_real']
  shuffled = real.copy()
  shuffled[:, 1:] = np.random.default_rng(0).permuted(real[:, 1:], axis=1)
  assert measure(shuffled)['js_distance_3'] > measure(real)['js_distance_3']


def test_strays_are_counted_and_read_as_n(rows):
  measure, real = measuring(rows, JUDGE).measures, some(rows[0], 30)
  tokens = real.copy()
  tokens[0, 1] = TOKENIZER.class_ids[1]  # A class among the bases.
  tokens[1, 2] = TOKENIZER.mask_id
  tokens[2, 0] = TOKENIZER.base_ids[0]  # A base in the place of the class.
  found = measure(tokens)
  assert found['stray_rate'] == pytest.approx(3 / (30 * LENGTH))
  as_n = np.delete(tokens, 2, axis=0)
  as_n[0, 1] = as_n[1, 2] = TOKENIZER.base_ids[4]
  wanted = measure(as_n)
  for name in ('js_distance_3', 'js_distance_3_n', 'gc_error', 'macro_f1'):
    assert found[name] == wanted[name]
  tokens[:, 0] = TOKENIZER.mask_id
  assert set(measure(tokens)) == {'stray_rate'}


@pytest.mark.slow
def test_the_discriminator_has_its_floor(rows):
  # All C: anybody can tell.
  drawn = some(rows[0])
  drawn[:, 1:] = TOKENIZER.base_ids[1]
  # 30 held-out stretches of all species, so as many drawn ones.
  found = measuring(rows, epochs=20).measures(drawn[:30])
  assert found['auroc'] == 1
  assert 0 <= found['auroc_real'] < 1


def test_fasta_beside_the_samples(tmp_path, rows):
  samples = some(rows[0], 2)
  samples[1, 1] = TOKENIZER.mask_id
  long = np.concatenate([samples, samples[:, 1:]], axis=1)
  domain.write(tmp_path, long, TOKENIZER)
  lines = (tmp_path / 'samples.fasta').read_text().splitlines()
  text = TOKENIZER.decode(long[0])
  label, bases = text[:9], text[9:]
  assert lines[:3] == [f'>0 {label}', bases[:80], bases[80:]]
  assert lines[3].startswith('>1 ') and lines[4][0] == lines[4][60] == 'N'
  assert [p.name for p in tmp_path.iterdir()] == ['samples.fasta']


OPTIONS = (
  '--config.data.name=genomes',
  f'--config.data.source={REAL}',
  '--config.data.tokenizer=species:3',
  f'--config.data.length={LENGTH}',
)


@pytest.mark.long
def test_from_fasta_to_figures(tmp_path, capsys):
  """Trains a base and a classifier, samples one species, measures all."""
  program = tiny_run.Program(capsys)
  config = f'--config={tiny_run.write_config(tmp_path)}'
  options = (*OPTIONS, '--config.data.reverse_complement=True')
  base, judge = tmp_path / 'base', tmp_path / 'judge'
  program.figures('--mode=train', config, *options, f'--workdir={base}')
  found = program.figures(
    *('--mode=train', config, *options, f'--workdir={judge}'),
    '--config.method.objective=classify',
    '--config.model.architecture=conv',
    '--config.train.num_steps=150',
    '--config.train.batch_size=32',
    '--config.train.ema_decay=0.9',
  )
  assert found['accuracy'] > 0.6  # Of three species; 30 stretches, error 0.09.
  sampling = (
    *(config, *OPTIONS, f'--config.checkpoint={base}'),
    '--config.sample.num_steps=4',
    '--config.sample.num_samples=6',
  )
  program.figures(
    *('--mode=sample', *sampling, f'--workdir={tmp_path / "s"}'),
    '--config.sample.label=1',
    '--config.sample.guidance=0.5',
  )
  lines = (tmp_path / 's' / 'samples.jsonl').read_text().splitlines()
  assert [json.loads(line)['tokens'][0] for line in lines] == [13] * 6
  fasta = (tmp_path / 's' / 'samples.fasta').read_text()
  assert fasta.count('<class 1>') == 6
  program.figures(
    *('--mode=evaluate', *sampling, f'--workdir={tmp_path / "e"}'),
    f'--config.judge={judge}',
    '--config.evaluate.num_examples=8',
    '--config.evaluate.carried_steps=(4,)',
  )
  figures = json.loads((tmp_path / 'e' / 'evaluation.json').read_text())['samples']
  for name in ('js_distance_3', 'gc_error', 'macro_f1', 'stray_rate', 'auroc_real'):
    assert math.isfinite(figures[name]), name
  message = program.refusal(
    *('--mode=evaluate', *sampling, f'--workdir={tmp_path / "f"}'),
    f'--config.judge={base}',
  )
  assert 'not a classifier; wanted one' in message
