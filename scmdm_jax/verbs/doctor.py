"""`--mode=doctor`: would this run start here? Nothing is trained, and nothing stays.

Looks at each thing that a run needs, one after the other, and says of each what is
there, or in one line what is wanted. Of several processes each looks for itself.
"""

import contextlib
import functools
import os
import pathlib
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from scmdm_jax.buckets import lock, paths
from scmdm_jax.buckets.objects import Objects
from scmdm_jax.buckets.urls import is_bucket
from scmdm_jax.checkpoints import hub, steps, store
from scmdm_jax.errors import BadInput, printable
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.processes import multihost
from scmdm_jax.runs import compilation_cache, converting, opening
from scmdm_jax.runs import workdir as workdirs
from scmdm_jax.settings.building import new_model
from scmdm_jax.settings.options import Settings

_GIB = 1 << 30


def run(settings: Settings, workdir: str) -> dict[str, Any]:
  """Prints a table on standard error; returns its lines, and whether all is well.

  Args:
    settings: of the run that would start.
    workdir: of that run.
  """
  checks: dict[str, Callable[[], str]] = {
    'versions': _versions,
    'devices': workdirs.hardware,
    'mesh': lambda: _mesh(settings),
    'compilation cache': lambda: _cache(settings),
    'workdir': lambda: _workdir(workdir),
    **{name: functools.partial(_there, p) for name, p in _inputs(settings).items()},
    'memory': lambda: _memory(settings),
    'disk': lambda: _disk(settings, workdir),
  }
  found = {}
  for name, check in checks.items():
    try:
      found[name] = {'ok': True, 'found': check()}
    except (BadInput, OSError) as e:
      found[name] = {'ok': False, 'found': str(e)}
  for name, line in found.items():
    mark = 'ok' if line['ok'] else 'NO'
    text = printable(paths.named(f'{mark}  {name:<18} {line["found"]}'))
    print(text, file=sys.stderr, flush=True)
  ok = all(line['ok'] for line in found.values())
  # Of all processes, by a collective of the kind that a run lives on.
  share = multihost.mapped(lambda _: np.array(ok), range(multihost.count()))
  return {'ok': all(map(bool, share)), 'run': settings.mode, 'checks': found}


def _versions() -> str:
  return ', '.join(f'{name} {found}' for name, found in workdirs.versions().items())


def _mesh(settings: Settings) -> str:
  shape = opening.mesh_of(settings).shape
  sizes = ', '.join(f'{axis} {size}' for axis, size in shape.items())
  return f'{sizes}; processes {multihost.count()}'


def _cache(settings: Settings) -> str:
  compilation_cache.use(settings.compilation_cache)
  report = compilation_cache.report()
  if report['state'] == compilation_cache.OFF:
    return compilation_cache.OFF
  steps.require_writable(pathlib.Path(report['directory']))
  return str(report['directory'])


def _workdir(path: str) -> str:
  """Whether a run could begin or go on there; what is tried is taken away again."""
  if not path:
    raise BadInput('--workdir: not given; wanted a directory for this run')
  if not is_bucket(path):
    directory = pathlib.Path(os.path.expanduser(path)).absolute()
    with _nearest(directory) as there:
      steps.require_writable(there)
    return f'{directory}, writable'
  objects = Objects(path)
  names = objects.list()
  if owners := [name for name in names if name.startswith(f'{lock.FOLDER}/')]:
    raise BadInput(
      f'--workdir {path}: has the lock {owners[0]}; another run may use it'
    )
  name = f'.try-{secrets.token_hex(4)}'
  if not objects.create(name, b'0') or objects.create(name, b'1'):
    raise BadInput(f'{path}: writes what is there already; wanted conditional writes')
  objects.delete([name])
  return f'{path}, {len(names)} objects, writable'


@contextlib.contextmanager
def _nearest(directory: pathlib.Path) -> Iterator[pathlib.Path]:
  """The directory, or the one in which it would be made."""
  while not directory.exists():
    directory = directory.parent
  if not directory.is_dir():
    raise BadInput(f'--workdir {directory}: a file; wanted a directory')
  yield directory


def _inputs(settings: Settings) -> dict[str, str]:
  """Paths that the run reads, by the name of their option."""
  given = {
    'checkpoint': settings.checkpoint,
    'judge': settings.judge,
    'data.source': settings.data.source,
  }
  return {name: path for name, path in given.items() if path}


def _there(path: str) -> str:
  if hub.is_address(path):
    return f'{path}, not looked at'
  if is_bucket(path):
    contents = Objects(path).list()
    size = sum(content.size for content in contents.values())
    if not contents:
      raise BadInput(f'{path}: nothing there')
    return f'{path}, {len(contents)} objects, {size} bytes'
  if not paths.local_path(path).exists():
    raise BadInput(f'{path}: no such file or directory')
  return path


def _state_bytes(settings: Settings) -> int | None:
  """Bytes of the state of the whole run; None of a model that is elsewhere."""
  path = settings.checkpoint
  if is_bucket(path) or hub.is_address(path):
    return None
  source = paths.local_path(path)
  if path and converting.is_foreign(source):
    parameters = converting.check(path)['parameters']
  else:
    described = store.open_model(source, 0).description if path else _new(settings)
    leaves = jax.tree.leaves(denoiser.abstract_params(described))
    parameters = sum(leaf.size for leaf in leaves)
  # Float32; of a training the parameters, their average and two moments.
  return parameters * (16 if settings.mode in ('train', 'compare') else 4)


def _new(settings: Settings) -> ModelDescription:
  with tempfile.TemporaryDirectory() as scratch:
    settings = opening.completed(settings, pathlib.Path(scratch))
    tokenizer = opening.open_run(settings, pathlib.Path(scratch)).tokenizer
  size = tokenizer.vocab_size
  return new_model(settings, size, tokenizer.mask_id, tokenizer.class_ids)


def _memory(settings: Settings) -> str:
  """Whether model and optimizer fit; activations come on top, see --mode=plan."""
  size = _state_bytes(settings)
  device = jax.local_devices()[0]
  there = (device.memory_stats() or {}).get('bytes_limit') or _available()
  text = f'{there / _GIB:.1f} GiB for a device'
  if size is None:
    return text
  split = opening.mesh_of(settings).shape
  own = size // (split['fsdp'] * split['tensor'])
  if own > there:
    raise BadInput(
      f'{text}; wanted {own / _GIB:.1f} for the state of the run alone; split it by '
      'mesh.fsdp or mesh.tensor'
    )
  return f'{text}, {own / _GIB:.2f} of them for the state of the run'


def _available() -> int:
  """Bytes of the host's memory that are free, or can be."""
  for line in pathlib.Path('/proc/meminfo').read_text().splitlines():
    if line.startswith('MemAvailable:'):
      return int(line.split()[1]) * 1024
  raise BadInput('/proc/meminfo: no MemAvailable; wanted Linux')


def _disk(settings: Settings, path: str) -> str:
  """Whether the steps that are kept fit; of a bucket's, on the disk for copies."""
  where = tempfile.gettempdir() if is_bucket(path) or not path else path
  size = _state_bytes(settings) if settings.mode in ('train', 'compare') else None
  with _nearest(pathlib.Path(os.path.expanduser(where)).absolute()) as there:
    free = shutil.disk_usage(there).free
  wanted = (size or 0) * (settings.train.keep + 1)
  if free < wanted:
    raise BadInput(
      f'{there}: {free} bytes are free; wanted {wanted} for train.keep + 1 checkpoints'
    )
  return f'{free / _GIB:.1f} GiB free at {there}, {wanted / _GIB:.2f} of them wanted'
