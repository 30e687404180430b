"""Compiled programs that later runs find again, in a directory of the user's own.

JAX runs what it finds there: whoever can write to the directory runs code in the
process. So it must belong to the user, and nobody else may write to it.
"""

import contextlib
import hashlib
import os
import pathlib
import platform
import stat
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from scmdm_jax.errors import BadInput

OFF = 'off'
_HITS = '/jax/compilation_cache/cache_hits'
_MISSES = '/jax/compilation_cache/cache_misses'

_counts = {_HITS: 0, _MISSES: 0}
_listening = False


def use(choice: str) -> None:
  """Keeps compiled programs in `choice` from now on.

  Args:
    choice: a directory, 'off', or '' for JAX_COMPILATION_CACHE_DIR or else
      ~/.cache/scmdm_jax/xla.

  Raises:
    BadInput: others may write to the directory, or it cannot be made.
  """
  _listen()
  _counts.update(dict.fromkeys(_counts, 0))
  if choice == OFF:
    jax.config.update('jax_compilation_cache_dir', None)
  elif choice:
    _keep_in(pathlib.Path(os.path.expanduser(choice)))
  elif not os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    _keep_in(pathlib.Path.home() / '.cache' / 'scmdm_jax' / 'xla')


@contextlib.contextmanager
def fresh() -> Iterator[Callable[[], int]]:
  """An empty cache, while the context lasts, for every program however small.

  Yields:
    How many programs were found in it so far.
  """
  _listen()
  with tempfile.TemporaryDirectory() as directory:
    settings = {
      'jax_enable_compilation_cache': True,
      'jax_compilation_cache_dir': directory,
      'jax_persistent_cache_min_compile_time_secs': 0,
      'jax_persistent_cache_min_entry_size_bytes': -1,
    }
    before = {name: _value(name) for name in settings}
    hits = _counts[_HITS]
    try:
      _set(settings)
      yield lambda: _counts[_HITS] - hits
    finally:
      _set(before)


def _set(settings: dict[str, Any]) -> None:
  """Sets JAX's options; it reads the directory only once until it is reset."""
  for name, value in settings.items():
    jax.config.update(name, value)
  jax_cache.reset_cache()


def _listen() -> None:
  global _listening
  if not _listening:
    jax.monitoring.register_event_listener(_count)
    _listening = True


def report() -> dict[str, Any]:
  """Where programs are kept, and whether this run found its own there."""
  directory = _value('jax_compilation_cache_dir')
  if not directory or not _value('jax_enable_compilation_cache'):
    return {'state': OFF}
  hits, misses = _counts[_HITS], _counts[_MISSES]
  state = 'warm' if hits > misses else 'cold'
  return {'state': state, 'hits': hits, 'misses': misses, 'directory': directory}


def _keep_in(directory: pathlib.Path) -> None:
  if not _value('jax_enable_compilation_cache'):
    return
  try:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.stat()
  except OSError as e:
    raise BadInput(
      f'compilation_cache: {directory} cannot be made ({e.strerror}); give another '
      f'directory, or {OFF!r}'
    ) from e
  if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o022:
    raise BadInput(
      f'compilation_cache: others may write to {directory}, and so run code here; '
      f'make it yours (chmod 700), give another directory, or {OFF!r}'
    )
  # JAX takes programs for one kind of CPU as programs for all.
  path = directory / _processor()
  path.mkdir(mode=0o700, exist_ok=True)
  jax.config.update('jax_compilation_cache_dir', str(path))


def _value(name: str) -> Any:
  return getattr(jax.config, name)  # Unknown to type checkers.


def _processor() -> str:
  """A short name for what the machine's processor can do."""
  text = platform.machine()
  info = pathlib.Path('/proc/cpuinfo')
  if info.exists():
    lines = info.read_text(errors='replace').splitlines()
    text += next((line for line in lines if line.startswith(('flags', 'Features'))), '')
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def _count(event: str, **_: Any) -> None:
  if event in _counts:
    _counts[event] += 1
