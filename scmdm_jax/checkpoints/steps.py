"""The steps of a run as they lie on disk, and room for those to come.

`<directory>/<step>/` is a step and `<directory>/<step>.digests.json` what its files
must be.
"""

import contextlib
import math
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import jax

from scmdm_jax.errors import BadInput

# What Orbax puts into a step last. Its own `is_orbax_checkpoint` and `latest` say yes
# to any directory with a number, and to a step that is still being written.
_COMMITTED = ('_CHECKPOINT_METADATA', 'commit_success.txt')
DIGESTS = '.digests.json'  # After the number of the step.


def complete_steps(directory: pathlib.Path) -> list[int]:
  """Returns the numbers of the committed steps in `directory`, oldest first."""
  numbers = (step_number(path) for path in directory.iterdir())
  return sorted(
    n for n in numbers if n is not None and is_committed(directory / str(n))
  )


def step_directories(directory: pathlib.Path) -> list[pathlib.Path]:
  """Returns the directories of steps, complete or not, oldest first."""
  found = directory.iterdir() if directory.is_dir() else ()
  steps = [p for p in found if step_number(p) is not None and p.is_dir()]
  return sorted(steps, key=lambda path: int(path.name))


def manifest_of(step: pathlib.Path) -> pathlib.Path:
  """Returns where the digests of the step in the directory `step` are."""
  return step.with_name(f'{step.name}{DIGESTS}')


def state_bytes(state: Any) -> int:
  """Returns how many bytes the arrays of `state`, or of such shapes, take."""
  return sum(
    math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)
  )


def require_writable(directory: pathlib.Path) -> None:
  """Writes a file into `directory`, or where it will be made; the file goes again.

  Raises:
    BadInput: that is not possible.
  """
  with writing(directory):
    where = directory if directory.exists() else directory.parent
    with tempfile.TemporaryFile(dir=where) as file:  # A kill leaves no name.
      file.write(b'0' * 4096)
      file.flush()


@contextlib.contextmanager
def writing(directory: pathlib.Path) -> Iterator[None]:
  """Turns a failure to write to `directory` into BadInput."""
  try:
    yield
  except OSError as e:
    raise BadInput(
      f'{directory}: cannot be written ({e.strerror}); give another --workdir, or room '
      'and permission'
    ) from e


def require_room(directory: pathlib.Path, state: Any, keep: int, saves: int) -> None:
  """Refuses to begin where the steps that are kept would not fit on the disk.

  Args:
    directory: of the steps.
    state: pytree of arrays or of their shapes.
    keep: number of newest steps that stay.
    saves: how many steps the run will save at most.

  Raises:
    BadInput: the free space is too small; the message has both numbers.
  """
  size = state_bytes(state)
  # The oldest goes only when the next one is there.
  there = complete_steps(directory) if directory.is_dir() else []
  wanted = max(min(keep + 1, saves) - len(there), 0)
  where = directory if directory.is_dir() else directory.parent
  free = shutil.disk_usage(where).free
  if free < wanted * size:
    raise BadInput(
      f'{directory}: {free} bytes are free; wanted {wanted * size} for {wanted} '
      f'checkpoints of {size}; make room, or lower train.keep'
    )


def is_committed(path: pathlib.Path) -> bool:
  """Returns whether the step in the directory `path` is complete."""
  return all((path / name).is_file() for name in _COMMITTED)


def step_number(path: pathlib.Path) -> int | None:
  """Returns the step that `path` is named after; None for another name."""
  # Orbax writes plain decimals; `007` or a superscript would be another's file.
  name = path.name
  return int(name) if name.isdecimal() and str(int(name)) == name else None
