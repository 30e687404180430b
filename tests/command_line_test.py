"""Mistakes in the command line and the config file, as a user meets them."""

import pytest

from scmdm_jax import command_line
from scmdm_jax.settings.options import MODES
from tests import tiny_run

IMPORT = 'from scmdm_jax.settings import default_config'


@pytest.fixture
def program(capsys):
  return tiny_run.Program(capsys)


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
  # Colons may stand in either.
  inside = tmp_path / 'a:1' / 'c:2.py'
  inside.parent.mkdir()
  inside.write_text(path.read_text())
  message = program.refusal(f'--config={inside}:big:2')
  assert message == f'--config {inside}, line 4: KeyError: big:2'
  message = program.refusal(f'--config={inside}')
  assert message.endswith(f"'size'; give {inside}:ARGUMENT")


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
      f"--mode: found 'imprt'; wanted one of {', '.join(MODES)}; did you mean import?",
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


def test_calls_do_not_remember_each_other(program, config):
  # Flags live in objects of one call, and sys.argv is not consulted.
  assert 'abc' in program.refusal(f'--config={config}', '--config.train.num_steps=abc')
  message = program.refusal(f'--config={config}', '--mode=train')
  assert message == '--workdir: not given; wanted a directory for this run'
  assert '--config: not given' in program.refusal('--mode=train')


def test_what_is_parsed(config):
  options = command_line.parse(
    ['main.py', f'--config={config}', '--workdir', 'a b', '--mode=train', '--source=s']
  )
  assert options[1:] == ('a b', 'train', 's', '', '', '', False)
  assert command_line.parse(['main.py']) == (None, *[''] * 6, False)


@pytest.mark.parametrize(
  ('arguments', 'name', 'value'),
  [
    (['--config.train.num_steps=9'], 'train.num_steps', 9),
    (['--config.train.num_steps', '9'], 'train.num_steps', 9),
    (['-config.train.num_steps=9'], 'train.num_steps', 9),
    (
      ['--config.train.num_steps=8', '--config.train.num_steps=9'],
      'train.num_steps',
      9,
    ),
    (['--config.method.rate=1'], 'method.rate', 1.0),
    (['--config.method.rate=5e-1'], 'method.rate', 0.5),
    (['--config.sample.trajectory'], 'sample.trajectory', True),
    (['--noconfig.sample.self_conditioning'], 'sample.self_conditioning', False),
    (['--config.sample.self_conditioning=false'], 'sample.self_conditioning', False),
    (['--config.sample.prompt=C(=O)_ "_"'], 'sample.prompt', 'C(=O)_ "_"'),
    (['--config.checkpoint='], 'checkpoint', ''),
    (['--config.compare.seeds=(3, 4)'], 'compare.seeds', (3, 4)),
    (['--config.compare.seeds=3'], 'compare.seeds', (3,)),
    (['--config.compare.seeds=3', '--config.compare.seeds=4'], 'compare.seeds', (3, 4)),
  ],
)
def test_overrides(config, arguments, name, value):
  for argv in ([f'--config={config}', *arguments], [*arguments, f'--config={config}']):
    found = command_line.parse(['main.py', *argv]).config
    for part in name.split('.'):
      found = found[part]
    assert found == value
    assert type(found) is type(value)
