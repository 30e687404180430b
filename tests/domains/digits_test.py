"""A domain is a folder and a registration: nothing else of the package is touched."""

import json

import jax
import numpy as np
import pytest

from scmdm_jax.domains import registry
from scmdm_jax.errors import BadInput
from scmdm_jax.settings.options import Settings, default_config
from scmdm_jax.settings.resolve import resolve
from tests import tiny_run
from tests.compiling import quick_jit
from tests.domains.digits import domain

DIGITS = """\
  config.data.source = ''
  config.data.name = 'optical_digits'
  config.data.tokenizer = 'levels'
  config.data.length = 64
  config.sample.num_samples = 6
  config.sample.batch_size = 6
  config.sample.num_steps = 4
  config.evaluate.num_examples = 6
  config.evaluate.batch_size = 6
  config.evaluate.repeats = 1
  config.evaluate.carried_steps = (2,)
  config.compare.rates = (1.0,)
  config.compare.seeds = (0,)
  config.compare.step_counts = (4,)
  config.compare.benchmark_pairs = 0
  return config
"""


@pytest.fixture
def digits(monkeypatch):
  """The domain is registered, and forgotten afterwards."""
  monkeypatch.setattr(registry, '_domains', dict(registry._domains))
  registry.register(domain.DOMAIN)
  yield
  monkeypatch.undo()
  registry.data_settings.cache_clear()
  registry.with_own_evaluation.cache_clear()


def test_its_options_sets_and_tokenizers_are_known_once_it_is_registered(digits):
  config = default_config()
  assert config.data.darkest == 3
  assert registry.is_built_in('levels')
  settings = Settings()
  assert registry.of(settings.data).name == 'molecules'  # The first stays the default.
  with pytest.raises(BadInput, match=r'data\.darkest: found 2 with .* digits: optical'):
    resolve({'data': {'darkest': 2}})
  with pytest.raises(BadInput, match=r"found 'levels' with .*digits: optical_digits o"):
    resolve({'data': {'tokenizer': 'levels'}})
  with pytest.raises(ValueError, match='domain digits: digits has its name'):
    registry.register(domain.DOMAIN)


def test_it_is_unknown_elsewhere():
  with pytest.raises(BadInput, match=r"data\.name: found 'optical_digits'; wanted one"):
    resolve({'data': {'name': 'optical_digits'}})
  assert not registry.is_built_in('levels')


@pytest.mark.slow
def test_it_trains_samples_evaluates_and_compares(
  digits, tmp_path, capsys, monkeypatch
):
  monkeypatch.setattr(jax, 'jit', quick_jit)
  config = tiny_run.write_config(tmp_path)
  config.write_text(config.read_text().replace('  return config\n', DIGITS))
  program = tiny_run.Program(capsys)

  def figures(mode, **options):
    given = [f'--config.{name}={value}' for name, value in options.items()]
    workdir = tmp_path / mode
    return program.figures(
      f'--mode={mode}', f'--config={config}', f'--workdir={workdir}', *given
    )

  figures('train', **{'method.rate': 0})
  base = {'checkpoint': tmp_path / 'train'}
  assert figures('sample', **base)['count'] == 6
  lines = (tmp_path / 'sample' / 'samples.jsonl').read_text().splitlines()
  tokens = np.array([json.loads(line)['tokens'] for line in lines])
  assert tokens.shape == (6, 64) and not (tokens == domain.LEVELS.mask_id).any()

  figures('evaluate', **base)
  found = json.loads((tmp_path / 'evaluate' / 'evaluation.json').read_text())
  # The same key, and so the same samples.
  text = (tmp_path / 'evaluate' / 'samples.jsonl').read_text().splitlines()
  drawn = np.array([json.loads(line)['tokens'] for line in text])
  assert found['samples']['ink'] == pytest.approx(domain.ink(drawn))
  assert 0 <= found['samples']['ink_error'] <= 3

  figures('compare', **base)
  report = json.loads((tmp_path / 'compare/report/report.json').read_text())
  assert report['domain'] == 'digits' and report['metrics']['ink']['better'] == ''
  assert len(report['trajectory']['frames']) == 5
  page = (tmp_path / 'compare/report/index.html').read_text()
  animation = 'src="data:image/webp;base64,'
  for shown in ('error of ink ↓', 'a digit', 'what is masked is black.', animation):
    assert shown in page
