"""What a user sees of the command line: exit code, one line of error, one of result."""

import os
import pathlib
import shutil
import subprocess
import sys

import jax
import pytest

from scmdm_jax import command_line
from scmdm_jax.main import main
from scmdm_jax.runs import workdir
from scmdm_jax.settings.resolve import resolve
from tests import tiny_run
from tests.checkpoints import manifests
from tests.compiling import quick_jit

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'jit', quick_jit)
    yield


@pytest.fixture
def program(capsys):
  return tiny_run.Program(capsys)


@pytest.fixture
def config(tmp_path):
  return tiny_run.write_config(tmp_path)


def test_help_names_every_flag(program):
  for flag in ('--help', '-h'):
    code, out, err = program.run(flag)
    assert (code, err) == (0, '')
    for name in ('config', 'workdir', 'mode', 'source'):
      assert f'--{name}=' in out


@pytest.mark.parametrize('arguments', [(), ('--mode=train',), ('--config=',)])
def test_missing_config(program, arguments):
  message = program.refusal(*arguments)
  assert message == '--config: not given; wanted a file such as configs/quickstart.py'


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--config.train.num_steps=3'], '--config: not given, so there is nothing to'),
    (['--mode=unknown'], "--mode: found 'unknown'; wanted one of train, "),
    (['--mode=import', '--workdir=x'], '--source: not given; --mode=import wants'),
    (['--mode=import', '--source=/no/such', '--workdir=x'], '/no/such: no such'),
    (['--mode=export', '--source=/no/such', '--workdir=x'], '/no/such: no such'),
  ],
)
def test_mistakes_without_a_config(program, tmp_path, monkeypatch, arguments, message):
  monkeypatch.chdir(tmp_path)
  assert program.refusal(*arguments).startswith(message)
  assert os.listdir(tmp_path) == []


def test_workdir_that_cannot_be(program, config, tmp_path):
  file = tmp_path / 'notes.txt'
  file.write_text('mine')
  message = program.refusal(f'--config={config}', f'--workdir={file}')
  assert message == f'--workdir {file}: a file; wanted a directory'
  message = program.refusal(f'--config={config}', f'--workdir={file}/run')
  assert 'cannot be written (Not a directory)' in message


def test_workdir_in_use(program, config, tmp_path):
  from scmdm_jax import command_line

  settings = resolve(command_line.load_config(str(config)))
  with workdir.opened(str(tmp_path / 'run'), settings):
    message = program.refusal(f'--config={config}', f'--workdir={tmp_path / "run"}')
  assert message == f'--workdir {tmp_path / "run"}: another run is using it; wait'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A finished run: its config file and workdir."""
  directory = tmp_path_factory.mktemp('trained')
  path = tiny_run.write_config(directory)
  assert main(['main.py', f'--config={path}', f'--workdir={directory}/run']) == 0
  return path, directory / 'run'


@pytest.mark.slow
def test_train_ends_in_one_json_object(program, trained):
  config, run = trained
  # Again: the run is finished, so this only tells its figures.
  figures = program.figures(f'--config={config}', f'--workdir={run}', '--mode=train')
  assert figures.pop('seconds') > 0
  assert figures == {
    'mode': 'train',
    'model': str(run / 'model'),
    'parameters': figures['parameters'],
    'steps': 6,
    'tokens': 6 * 8 * 32,
  }
  assert [step for step, *_ in tiny_run.curve(run)] == [1, 2, 3, 4, 5, 6]


def test_workdir_of_another_run(program, trained):
  config, run = trained
  before = tiny_run.model_bytes(run)
  message = program.refusal(
    *(f'--config={config}', f'--workdir={run}'),
    *('--config.train.learning_rate=0.5', '--config.method.rate=0.25'),
  )
  # In the order of the settings, the method comes before the training.
  assert message == (
    f'method.rate: found 0.25, but {run}/config.json says 1.0; resume with the same '
    'options or give another --workdir'
  )
  assert tiny_run.model_bytes(run) == before


def test_export_and_import_end_in_one_json_object(program, trained, tmp_path):
  _, run = trained
  exported = program.figures(
    '--mode=export', f'--source={run}', f'--workdir={tmp_path / "out"}'
  )
  assert (exported['mode'], exported['layout']) == ('export', 'mdlm')
  imported = program.figures(
    '--mode=import', f'--source={tmp_path / "out"}', f'--workdir={tmp_path / "in"}'
  )
  assert imported['parameters'] == exported['parameters']
  assert tiny_run.model_bytes(tmp_path / 'in') == tiny_run.model_bytes(run)


def test_damaged_data_is_exit_code_3(program, tmp_path):
  source = manifests.write_directory(
    tmp_path / 'source',
    manifests.MDLM_CONFIG,
    manifests.random_tensors(manifests.SMALL_MDLM),
  )
  file = source / 'model.safetensors'
  file.write_bytes(file.read_bytes()[:-9])
  message = program.refusal(
    '--mode=import', f'--source={source}', f'--workdir={tmp_path}/new', code=3
  )
  assert str(file) in message
  assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize('url', ['http://bucket/run', 's3:///run', 'File:///run'])
@pytest.mark.parametrize(
  'name', ['--workdir', '--config.checkpoint', '--config.judge', '--config.data.source']
)
def test_urls_are_refused_before_anything_runs(program, config, tmp_path, name, url):
  arguments = [f'--config={config}', f'--workdir={tmp_path}/run', f'{name}={url}']
  message = program.refusal(*arguments)
  assert message.startswith(f'{name.removeprefix("--config.")}: found {url!r}; wanted')
  assert not (tmp_path / 'run').exists()
  assert not pathlib.Path(url.partition('/')[0]).exists()


def test_a_prompt_may_be_a_url(config):
  options = command_line.load_config(str(config))
  options.sample.prompt = 'https://_'
  assert resolve(options).sample.prompt == 'https://_'


def test_an_interrupted_run_says_how_to_go_on(config, monkeypatch, tmp_path, capfd):
  def interrupted(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr('scmdm_jax.verbs.train.run', interrupted)
  # Written past sys.stderr, as from a handler of signals.
  assert main(['main.py', f'--config={config}', f'--workdir={tmp_path}/run']) == 130
  assert capfd.readouterr() == ('', 'error: interrupted; the same command resumes\n')


def test_out_of_memory_is_told_in_one_line(program, config, monkeypatch, tmp_path):
  def exhausted(*_):
    # An array of a petabyte and more: nothing is allocated.
    return jax.numpy.zeros(1 << 50, 'float32')

  monkeypatch.setattr('scmdm_jax.verbs.train.run', exhausted)
  message = program.refusal(f'--config={config}', f'--workdir={tmp_path}/run')
  assert message.startswith('out of memory: RESOURCE_EXHAUSTED: Out of memory')
  assert 'give a smaller batch_size' in message


def test_an_error_of_several_lines_is_told_in_one(program, config, monkeypatch):
  from scmdm_jax.errors import BadInput

  def refuse(_):
    raise BadInput('first\nsecond')

  monkeypatch.setattr('scmdm_jax.settings.resolve.resolve', refuse)
  assert program.refusal(f'--config={config}') == 'first second'


def as_a_program(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'scmdm_jax.main', *map(str, arguments)],
    cwd='/',
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=100,
    check=False,
  )


@pytest.mark.slow
def test_exit_code_and_error_of_a_real_process():
  result = as_a_program('--mode=unknown')
  assert (result.returncode, result.stdout) == (2, '')
  assert result.stderr.startswith("error: --mode: found 'unknown'; wanted one of ")
  assert result.stderr.count('\n') == 1


@pytest.mark.slow
def test_a_damaged_checkpoint_is_told_in_one_line(trained, tmp_path):
  # In a real process: reads still under way complain from threads of their own.
  config, run = trained
  shutil.copytree(run, tmp_path / 'run')
  newest = tmp_path / 'run' / 'checkpoints' / '6'
  for file in newest.rglob('d/*'):
    file.write_bytes(file.read_bytes()[:-10])
  options = [f'--config={config}', f'--workdir={tmp_path / "run"}']
  result = as_a_program(*options, '--config.train.fall_back=False')
  assert (result.returncode, result.stdout) == (3, '')
  assert result.stderr.count('\n') == 1, result.stderr
  assert result.stderr.startswith(f'error: {newest}: ')
  # What it advises works, and step 6 is the very same again.
  shutil.rmtree(newest)
  assert main(['main.py', f'--config={config}', f'--workdir={tmp_path}/run']) == 0
  assert tiny_run.model_bytes(tmp_path / 'run') == tiny_run.model_bytes(run)
