"""What a user sees of the command line: exit code, one line of error, one of result."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from scmdm_jax.main import main
from scmdm_jax.modes import workdir
from scmdm_jax.settings import resolve
from tests import tiny_run
from tests.checkpoints import manifests

ROOT = pathlib.Path(__file__).parent.parent


class Program:
  """Calls `main` and takes apart what it wrote."""

  def __init__(self, capsys):
    self.capsys = capsys

  def run(self, *arguments):
    self.capsys.readouterr()
    code = main(['main.py', *map(str, arguments)])
    out, err = self.capsys.readouterr()
    return code, out, err

  def refusal(self, *arguments, code=2):
    found, out, err = self.run(*arguments)
    lines = err.splitlines()
    assert (found, out, len(lines)) == (code, '', 1), err
    assert lines[0].startswith('error: ')
    return lines[0].removeprefix('error: ')

  def figures(self, *arguments):
    code, out, err = self.run(*arguments)
    assert code == 0, err
    assert 'Traceback' not in err
    return json.loads(out.splitlines()[-1])


@pytest.fixture
def program(capsys):
  return Program(capsys)


@pytest.fixture
def config(tmp_path):
  return tiny_run.write_config(tmp_path)


@pytest.fixture
def config_text(tmp_path):
  """Writes a config file of the given lines and returns its path."""

  def write(*lines):
    path = tmp_path / 'mine.py'
    path.write_text('\n'.join(lines) + '\n')
    return path

  return write


IMPORT = 'from scmdm_jax.settings import default_config'


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


def test_config_file_that_is_not_there(program, tmp_path):
  message = program.refusal(f'--config={tmp_path}/nothing.py')
  assert message.startswith(f'--config {tmp_path}/nothing.py: No such file')
  assert 'Is a directory' in program.refusal(f'--config={tmp_path}')


@pytest.mark.parametrize(
  ('lines', 'where', 'reason'),
  [
    (['def get_config():', '  x = 1', '  return x / 0'], ', line 3', 'ZeroDivision'),
    (['', 'import not_a_module'], ', line 2', "No module named 'not_a_module'"),
    (['# A note', 'this is no Python'], ', line 2', 'SyntaxError'),
    (['def get_config():', 'return 1'], ', line 2', 'IndentationError'),
    (['\x00'], '', 'null bytes'),
    (['x = 1'], '', 'it defines no function get_config()'),
    (['get_config = 3'], '', 'it defines no function get_config()'),
    (['def get_config():', '  pass'], '', 'get_config() returned NoneType'),
    (['def get_config():', '  return {}'], '', 'returned dict; wanted a ConfigDict'),
    # An error that arises in a library is told by the line that called it.
    (
      ['import json', 'def get_config():', '  return json.loads("{")'],
      ', line 3',
      'JSONDecodeError: Expecting property name',
    ),
  ],
)
def test_config_file_that_fails(program, config_text, lines, where, reason):
  path = config_text(*lines)
  message = program.refusal(f'--config={path}', '--mode=train')
  assert message.startswith(f'--config {path}{where}: ')
  assert reason in message


@pytest.mark.parametrize(
  ('assignment', 'reason'),
  [
    ('config.train.num_step = 3', 'Did you mean "num_steps" instead of "num_step"?'),
    ('config.trian.num_steps = 3', 'Did you mean "train" instead of "trian"?'),
    ('config.train.num_steps = "3"', 'TypeError'),
  ],
)
def test_config_file_that_sets_a_wrong_option(program, config_text, assignment, reason):
  path = config_text(
    IMPORT,
    *('def get_config():', '  config = default_config()'),
    *(f'  {assignment}', '  return config'),
  )
  message = program.refusal(f'--config={path}')
  assert message.startswith(f'--config {path}, line 4: ')
  assert reason in message
  # Not the list of all options, which the library adds.
  assert len(message) < 300


def test_argument_of_a_config_file(program, config_text, tmp_path):
  plain = config_text(IMPORT, 'get_config = lambda: default_config()')
  message = program.refusal(f'--config={plain}:small')
  assert message == (
    f'--config {plain}: get_config(): too many positional arguments; give {plain}'
  )
  path = config_text(
    *(IMPORT, 'def get_config(size):', '  config = default_config()'),
    *("  config.train.num_steps = {'small': -5}[size]", '  return config'),
  )
  message = program.refusal(f'--config={path}')
  assert message.endswith(
    f"get_config(): missing a required argument: 'size'; give {path}:ARGUMENT"
  )
  assert 'train.num_steps: found -5' in program.refusal(f'--config={path}:small')
  message = program.refusal(f'--config={path}:big')
  assert message == f'--config {path}, line 4: KeyError: big'


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--workdr=x'], "Unknown command line flag 'workdr'. Did you mean: workdir ?"),
    (['--confg=x'], "Unknown command line flag 'confg'. Did you mean: config ?"),
    (['--workdir'], 'Missing value for flag --workdir'),
    (
      ['config.train.num_steps=3'],
      'config.train.num_steps=3: stray argument; options start with --, as in '
      '--config.train.num_steps=3',
    ),
    (['train', '--mode=train'], 'train: stray argument'),
    (
      ['--config.train.num_step=3'],
      '--config.train.num_step: no such option; did you mean --config.train.num_steps?',
    ),
    (
      ['--config.trian.num_steps', '3'],
      '--config.trian.num_steps: no such option; did you mean '
      '--config.train.num_steps?',
    ),
    (
      ['--config.num_steps=3'],
      '--config.num_steps: no such option; did you mean --config.train.num_steps?',
    ),
    (
      ['--config.train=3'],
      '--config.train: a group of options; set one, as in --config.train.',
    ),
    (['--config.train.num_steps=abc'], 'flag --config.train.num_steps=abc: invalid'),
    (['--config.train.num_steps=1.5'], 'flag --config.train.num_steps=1.5: invalid'),
    (['--config.train.num_steps'], 'Missing value for flag --config.train.num_steps'),
    (['--config.train.num_steps=0'], 'train.num_steps: found 0; wanted a number above'),
    (['--config.method.rate=nan'], 'method.rate: found nan; wanted finite numbers'),
    (['--config.method.rate=-0.5'], 'method.rate: found -0.5; wanted a number from 0'),
    (['--config.method.rate=inf'], 'method.rate: found inf; wanted finite numbers'),
    (['--config.compare.seeds=(0,'], 'flag --config.compare.seeds=(0,: '),
    (['--config.compare.seeds=a'], "compare.seeds: found ('a',); wanted a tuple"),
    (['--config.train.accumulate=3'], 'train.accumulate: found 3; wanted a divisor'),
    (
      ['--mode=imprt'],
      "--mode: found 'imprt'; wanted one of train, sample, evaluate, compare, import, "
      'export; did you mean import?',
    ),
    (['--config.mode=unknown'], "mode: found 'unknown'; wanted one of train, "),
    (['--mode=train', '--source=x'], '--source: given with --mode=train, which takes'),
    (['--mode=train'], '--workdir: not given; wanted a directory for this run'),
    (
      ['--mode=import'],
      '--source: not given; --mode=import wants --source and --workdir',
    ),
    (
      ['--config.mode=export', '--source=x'],
      '--workdir: not given; --mode=export wants --source and --workdir',
    ),
    (['--flagfile=/nothing/there'], 'ERROR:: Unable to open flagfile'),
  ],
)
def test_mistakes_on_the_command_line(program, config, arguments, message):
  assert program.refusal(f'--config={config}', *arguments).startswith(message)


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


def test_calls_do_not_remember_each_other(program, config):
  # Flags live in objects of one call, and sys.argv is not consulted.
  assert 'abc' in program.refusal(f'--config={config}', '--config.train.num_steps=abc')
  message = program.refusal(f'--config={config}', '--mode=train')
  assert message == '--workdir: not given; wanted a directory for this run'
  assert '--config: not given' in program.refusal('--mode=train')


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


def test_an_interrupted_run_says_how_to_go_on(program, config, monkeypatch, tmp_path):
  def interrupted(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr('scmdm_jax.modes.train.run', interrupted)
  message = program.refusal(f'--config={config}', f'--workdir={tmp_path}/run', code=130)
  assert message == 'interrupted; the same command resumes'


def test_an_error_of_several_lines_is_told_in_one(program, config, monkeypatch):
  from scmdm_jax.errors import BadInput

  def refuse(_):
    raise BadInput('first\nsecond')

  monkeypatch.setattr('scmdm_jax.settings.resolve', refuse)
  assert program.refusal(f'--config={config}') == 'first second'


@pytest.mark.slow
def test_as_a_program():
  """Exit code and standard error pass through a real process, from any directory."""
  result = subprocess.run(
    [sys.executable, '-m', 'scmdm_jax.main', '--mode=unknown'],
    cwd='/',
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=100,
    check=False,
  )
  assert (result.returncode, result.stdout) == (2, '')
  assert result.stderr.startswith("error: --mode: found 'unknown'; wanted one of ")
  assert result.stderr.count('\n') == 1
