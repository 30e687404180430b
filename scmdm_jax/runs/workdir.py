"""The directory of a run: who owns it, what was asked of it, by which software."""

import contextlib
import dataclasses
import fcntl
import importlib.metadata
import json
import logging
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import IO, Any

import jax

from scmdm_jax import files
from scmdm_jax.buckets import paths, staging
from scmdm_jax.data import journal
from scmdm_jax.errors import BadInput
from scmdm_jax.processes import multihost
from scmdm_jax.regular_files import open_regular, read_regular
from scmdm_jax.runs import compilation_cache, provenance
from scmdm_jax.settings.options import Settings

# Options that change nothing in what a run makes, but for the order of sums and, at a
# rate between 0 and 1, for which examples are conditioned: it may move.
_FREE = ('workdir', 'compilation_cache', 'profile.', 'mesh.')
# Options about faults alone.
_FREE += (
  'train.fall_back',
  'train.step_timeout',
  'train.skip_limit',
  'train.accept_changes',
)
# How often it is timed.
_FREE += ('compare.benchmark_pairs',)
_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')


@contextlib.contextmanager
def opened(path: str, settings: Settings) -> Iterator[pathlib.Path]:
  """Creates or reopens a workdir for one run and writes config.json, metadata.json.

  Reopened with the same options the run resumes; with others it would mix two runs, so
  that is refused. Of several processes the first owns it; the others wait for that.

  Raises:
    BadInput: no path, another run is using it, it cannot be written, or it was made
      with other options (the message names the first that differs).
  """
  if not path:
    raise BadInput('--workdir: not given; wanted a directory for this run')
  journal.begin()
  with staging.staged(path) as workdir:
    yield from _opened(workdir, settings)


def _opened(workdir: pathlib.Path, settings: Settings) -> Iterator[pathlib.Path]:
  opened = multihost.first_does('workdir', lambda: _open(workdir, settings))
  if opened is None:
    yield workdir
    return
  lock, resumed = opened
  with lock:
    try:
      yield workdir
      found = {'compilation_cache': compilation_cache.report()}
      if journal.entries():
        found['data'] = journal.entries()
      write_metadata(workdir, found)
    except BadInput:
      # A mistake found before anything was made: the corrected command may come here.
      made = {path.name for path in workdir.iterdir()}
      if not resumed and made <= {'.lock', 'config.json', 'metadata.json', 'imported'}:
        (workdir / 'config.json').unlink()
      raise


def identity(path: str, settings: Settings) -> dict[str, Any]:
  """What must be the same in all processes of a run, by name."""
  software = {f'version of {name}': found for name, found in versions().items()}
  software['digest of the code'] = provenance.code_digest()
  return {**_flat(dataclasses.asdict(settings)), '--workdir': path, **software}


def write_metadata(workdir: pathlib.Path, extra: dict[str, Any]) -> None:
  """Writes `metadata.json`: `metadata` and `extra`."""
  files.write_json(workdir / 'metadata.json', {**metadata(), **extra})


def _open(workdir: pathlib.Path, settings: Settings) -> tuple[IO[str], bool]:
  """The lock of the workdir, and whether a run was in it before."""
  if workdir.exists() and not workdir.is_dir():
    raise BadInput(f'--workdir {workdir}: a file; wanted a directory')
  if (workdir / 'model.json').exists():
    raise BadInput(f'--workdir {workdir}: a model checkpoint; give another directory')
  with _writing(workdir):
    workdir.mkdir(parents=True, exist_ok=True)
    lock = open_regular(workdir / '.lock', 'a')
  try:
    # Released by the system when the process ends, however it ends.
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as e:
    lock.close()
    raise BadInput(f'--workdir {workdir}: another run is using it; wait') from e
  try:
    resumed = (workdir / 'config.json').exists()
    with _writing(workdir):
      config = {**dataclasses.asdict(settings), 'workdir': paths.named(str(workdir))}
      _write_config(workdir / 'config.json', config)
      write_metadata(workdir, {})
      _remove_unfinished(workdir)
  except BaseException:
    lock.close()
    raise
  return lock, resumed


@contextlib.contextmanager
def _writing(workdir: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except OSError as e:
    raise BadInput(
      f'--workdir {workdir}: cannot be written ({e.strerror}); give another'
    ) from e


def _remove_unfinished(workdir: pathlib.Path) -> None:
  """Deletes the models that a killed run was writing; the lock says nobody is now.

  Only under names that a run itself writes (see `checkpoints.disk.new_directory`): the
  workdir may be a directory that holds other things.
  """
  for pattern in ('.model.tmp-*', 'imported/.*.tmp-*', 'arms/*/seed_*/.model.tmp-*'):
    for path in list(workdir.glob(pattern)):
      shutil.rmtree(path)


def _flat(values: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  flat = {}
  for name, value in values.items():
    if isinstance(value, dict):
      flat |= _flat(value, f'{prefix}{name}.')
    else:
      flat[prefix + name] = value
  return flat


def _write_config(path: pathlib.Path, config: dict[str, Any]) -> None:
  wanted = json.loads(json.dumps(config))
  if path.exists():
    try:
      found = json.loads(read_regular(path))
    except OSError as e:
      raise BadInput(f'{path}: {e.strerror}; give another --workdir') from e
    except ValueError as e:
      raise BadInput(f'{path}: not JSON ({e}); give another --workdir') from e
    # Many programs have a config.json; one of theirs must not be overwritten.
    if not isinstance(found, dict) or not {'mode', 'seed', 'train'} <= found.keys():
      raise BadInput(f'{path}: not the options of a run; give another --workdir')
    found = _flat(found)
    for name, value in _flat(wanted).items():
      if name.startswith(_FREE):
        continue
      if name in found and found[name] != value:
        if 'options' in wanted['train']['accept_changes']:
          logging.warning('%s was %r, now it is %r', name, found[name], value)
          continue
        more = name == 'train.num_steps' and (path.parent / 'model').is_dir()
        raise BadInput(
          f'{name}: found {value!r}, but {path} says {found[name]!r}; resume with the '
          'same options or give another --workdir'
          + (f', with --config.checkpoint={path.parent} to train its model on' * more)
        )
  files.write_json(path, wanted)


def versions() -> dict[str, str]:
  """Of Python, this package and the libraries that decide the numbers."""
  found = {'python': platform.python_version()}
  for name in ('scmdm_jax', *_PACKAGES):
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found[name] = importlib.metadata.version(name)
  return found


def git_sha() -> str:
  """The commit this package runs from; '' for an installed one."""
  here = pathlib.Path(__file__).parent
  try:
    result = subprocess.run(
      ['git', '-C', str(here), 'rev-parse', 'HEAD'],
      capture_output=True,
      text=True,
      timeout=10,
      check=False,
    )
  except (OSError, subprocess.TimeoutExpired):
    return ''
  return result.stdout.strip() if result.returncode == 0 else ''


def hardware() -> str:
  """The devices, in words."""
  devices = jax.devices()
  cores = len(os.sched_getaffinity(0))
  kind = devices[0].device_kind
  return f'{len(devices)} x {kind} ({devices[0].platform}), {cores} host cores'


def command() -> str:
  """How this run was started, for the shell."""
  return shlex.join(['python', '-m', 'scmdm_jax.main', *sys.argv[1:]])


def metadata() -> dict[str, Any]:
  """Everything about the run that is not in its configuration."""
  return {
    'command': command(),
    'git_sha': git_sha(),
    'code': provenance.code_digest(),
    'hardware': hardware(),
    'versions': versions(),
  }
