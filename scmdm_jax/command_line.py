"""The command line as plain values: flags, and a config file with overrides on top."""

import difflib
import inspect
import os
import re
import traceback
import types
from typing import Any, Literal, NamedTuple, get_args, get_origin

from absl import flags
from ml_collections import ConfigDict, config_flags

from scmdm_jax.buckets import urls
from scmdm_jax.errors import BadInput
from scmdm_jax.regular_files import read_regular


class Options(NamedTuple):
  """What was asked for; '' and None stand for a flag that was not given."""

  config: ConfigDict | None
  workdir: str
  mode: str
  source: str
  reference: str
  tolerance: str
  as_: str  # `--as`, which Python keeps for itself.
  help: bool


def parse(argv: list[str]) -> Options:
  """Reads `argv` (the program's name first).

  Raises:
    BadInput: one line naming the flag, option or line of the config file.
  """
  spec = flags.FlagValues()
  flags.DEFINE_string('config', '', 'The run: FILE or FILE:ARGUMENT.', flag_values=spec)
  rest = _parse(spec, argv, known_only=True)
  config = load_config(spec['config'].value) if spec['config'].value else None
  if config is not None:
    _check_overrides(config, rest)

  values = flags.FlagValues()
  for name in ('workdir', 'mode', 'source', 'reference', 'tolerance', 'as'):
    flags.DEFINE_string(name, '', '', flag_values=values)
  flags.DEFINE_bool('help', False, '', short_name='h', flag_values=values)
  if config is not None:
    # Given its own argv: by default it would look for overrides in sys.argv.
    config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=rest)
  elif any(re.match(r'--?(no)?config\.', arg) for arg in rest):
    raise BadInput('--config: not given, so there is nothing to override; give a file')
  else:
    flags.DEFINE_string('config', '', '', flag_values=values)
  left = _parse(values, rest)
  if len(left) > 1:
    raise BadInput(
      f'{left[1]}: stray argument; options start with --, as in --{left[1]}'
    )
  fields = [f for f in Options._fields if f != 'config']
  given: dict[str, Any] = {f: values[f.rstrip('_')].value for f in fields}
  for name in ('workdir', 'source', 'reference'):
    given[name] = urls.accepted(f'--{name}', given[name])
  return Options(config, **given)


def _parse(values: flags.FlagValues, argv: list[str], **how: Any) -> list[str]:
  """Reads `argv` into `values` and returns what is not a flag."""
  values.set_gnu_getopt()  # Flags may follow a stray argument.
  try:
    return values(argv, **how)
  except flags.Error as e:
    raise BadInput(' '.join(str(e).split())) from e


def _check_overrides(config: ConfigDict, argv: list[str]) -> None:
  """Refuses `--config.name` unless there is such an option."""
  names = _names(config)
  for arg in argv:
    match = re.match(r'--?(?:no)?config\.([^=]*)', arg)
    if not match or match[1] in names:
      continue
    inside = [name for name in names if name.startswith(f'{match[1]}.')]
    if inside:
      raise BadInput(
        f'--config.{match[1]}: a group of options; set one, as in --config.{inside[0]}'
      )
    near = difflib.get_close_matches(match[1], names, n=1)
    hint = f'; did you mean --config.{near[0]}?' if near else ''
    raise BadInput(f'--config.{match[1]}: no such option{hint}')


def _names(config: ConfigDict, prefix: str = '') -> list[str]:
  names = []
  for name, value in config.items():
    inner = isinstance(value, ConfigDict)
    names += _names(value, f'{prefix}{name}.') if inner else [prefix + name]
  return names


def load_config(spec: str) -> ConfigDict:
  """What `get_config` of a config file returns, locked.

  Args:
    spec: FILE, or FILE:ARGUMENT for a `get_config` that takes one; an annotation
      `Literal` of its parameter names all there are.

  Raises:
    BadInput: no such file, or it failed; the message has the line.
  """
  path, *arguments = _path_and_argument(spec)
  try:
    code = read_regular(path)
  except OSError as e:
    raise BadInput(
      f'--config {path}: {e.strerror}; wanted a Python file with get_config()'
    ) from e
  module = types.ModuleType('config_file')
  module.__file__ = path
  try:
    exec(compile(code, path, 'exec'), module.__dict__)
    get_config = getattr(module, 'get_config', None)
    if not callable(get_config):
      raise BadInput(f'--config {path}: it defines no function get_config()')
    _check_arguments(path, get_config, arguments)
    config = get_config(*arguments)
  except BadInput:
    raise
  except Exception as e:  # It is the user's program: anything can happen in it.
    raise BadInput(f'--config {path}{_line(e, path)}: {_reason(e)}') from e
  if not isinstance(config, ConfigDict):
    raise BadInput(
      f'--config {path}: get_config() returned {type(config).__name__}; wanted '
      'a ConfigDict, as from scmdm_jax.settings.default_config()'
    )
  return config.lock()


def _path_and_argument(spec: str) -> list[str]:
  """FILE, or FILE and ARGUMENT; colons may stand in either."""
  parts = spec.split(':')
  for count in range(len(parts), 0, -1):
    path = ':'.join(parts[:count])
    if os.path.exists(path):  # Of a name that is too long, pathlib raises.
      return [path, ':'.join(parts[count:])] if count < len(parts) else [path]
  return spec.split(':', 1)


def _check_arguments(path: str, get_config: Any, arguments: list[str]) -> None:
  """Refuses arguments that do not bind, or that a parameter's Literal has not."""
  signature = inspect.signature(get_config)
  try:
    bound = signature.bind(*arguments).arguments
  except TypeError as e:
    wanted = path if arguments else f'{path}:ARGUMENT'
    raise BadInput(f'--config {path}: get_config(): {e}; give {wanted}') from e
  for name, argument in bound.items():
    annotation = signature.parameters[name].annotation
    if get_origin(annotation) is Literal and argument not in get_args(annotation):
      known = ', '.join(map(str, get_args(annotation)))
      raise BadInput(f'--config {path}:{argument}: wanted one of {known}')


def _line(error: Exception, path: str) -> str:
  """Where in the file at `path` the error arose, '' when not in it."""
  lines = [
    f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path
  ]
  if isinstance(error, SyntaxError) and error.filename == path:
    lines.append(error.lineno)
  return f', line {lines[-1]}' if lines else ''


def _reason(error: Exception) -> str:
  # ml_collections lists all options of the group in the middle of its message.
  text = str(error.args[0]) if error.args else ''
  text = re.sub(r'Other fields present: "\{.*?\}"', '', text, flags=re.DOTALL)
  text = ' '.join(text.replace('\\n', ' ').split())
  if text[:1] in ('"', "'") and text[:1] == text[-1:]:
    text = text[1:-1]
  return f'{type(error).__name__}: {text}'
