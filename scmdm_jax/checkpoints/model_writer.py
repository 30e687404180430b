"""Writes the parameters of a model group by group, in any order.

Nothing here holds more than a few hundred megabytes of a model.
"""

import concurrent.futures
import contextlib
import ctypes
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from orbax.checkpoint import v1 as ocp

from scmdm_jax.checkpoints import apart, disk
from scmdm_jax.models import denoiser, lora
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.processes import multihost

TOKENIZER = 'tokenizer'
PARAMS = 'params'
# Parameters collected before they are written together, and read at a time.
GROUP_BYTES = 128 << 20
# Of one stored piece of an array: a process that needs a slice reads little else.
_CHUNK_BYTES = 1 << 20

Path = tuple[str, ...]  # Keys of a parameter in the nested dictionary.


def context() -> ocp.Context:
  """Returns what Orbax must know of processes and their disks.

  Where each has its own, it writes what its devices hold as files that can be put
  together: one database of several processes can not.
  """
  if not apart.is_apart():
    return ocp.Context()
  local = ocp.options.MultiprocessingOptions(primary_host=None)
  found = ocp.Context(multiprocessing_options=local)
  found.array.saving.use_ocdbt = False
  return found


class _Given(np.ndarray):
  """An array that nobody else will change: Orbax need not copy it before it writes."""

  def __deepcopy__(self, memo: Any) -> '_Given':
    return self


def own(params: Any, description: ModelDescription) -> Any:
  """Returns what a checkpoint of such a model holds: all but the base of an adapter."""
  return lora.divided(params, description.adapter)[1]


class ModelWriter:
  """Takes the parameters of one model in any order and writes them group by group.

  A group is written in the background while the next one is collected.
  """

  def __init__(self, directory: pathlib.Path, description: ModelDescription):
    self._directory = directory
    abstract = own(denoiser.abstract_params(description), description)
    self._wanted = {path: tuple(leaf.shape) for path, leaf in leaves(abstract).items()}
    self._missing = dict(self._wanted)
    # Orbax keeps the place of an empty subtree, too; the first group brings them.
    self._empty = {name: {} for name, subtree in abstract.items() if not subtree}
    self._group: dict[Path, Any] = {}
    self._bytes = 0
    self._worker = concurrent.futures.ThreadPoolExecutor(1)
    self._written: concurrent.futures.Future[None] | None = None

  def add(self, path: Path, value: Any) -> None:
    """Takes one parameter: a NumPy or JAX array of a floating dtype.

    The caller must not change it afterwards.

    Raises:
      ValueError: the model has no such parameter, or it has another shape.
      DamagedData: the disk is full or failing.
    """
    if self._missing.pop(path, None) != tuple(value.shape):
      raise ValueError(
        f'parameters do not fit their description: {"/".join(path)} '
        f'{list(value.shape)}; wanted {self._wanted.get(path)}, once'
      )
    self._group[path] = value.view(_Given) if type(value) is np.ndarray else value
    self._bytes += value.nbytes
    if self._bytes >= GROUP_BYTES:
      self._write()

  def add_tokenizer(self, files: Mapping[str, bytes | pathlib.Path]) -> None:
    """Copies the files of the tokenizer, by their names."""
    folder = self._directory / TOKENIZER
    if multihost.index() > 0:
      return
    if files:
      folder.mkdir()
    for name, source in files.items():
      if isinstance(source, bytes):
        (folder / name).write_bytes(source)
      else:
        shutil.copyfile(source, folder / name)

  def finish(self) -> None:
    """Writes what is left.

    Raises:
      ValueError: a parameter was never given.
      DamagedData: the disk is full or failing.
    """
    if self._missing:
      names = ', '.join('/'.join(path) for path in self._missing)
      raise ValueError(f'parameters do not fit their description: missing {names}')
    if self._group:
      self._write()
    self.wait()
    path = self._directory / PARAMS
    with disk.saving(path), context():
      ocp.partial.finalize(str(path))

  def wait(self) -> None:
    """Returns when nothing is being written; raises what went wrong."""
    written, self._written = self._written, None
    if written is not None:
      written.result()

  def _write(self) -> None:
    self.wait()
    group = self._empty | unflatten_dict(self._group)
    self._written = self._worker.submit(self._save, group)
    self._group, self._bytes, self._empty = {}, 0, {}
    if multihost.count() > 1:
      self.wait()  # Processes would meet in another order in the background.

  def _save(self, group: dict[str, Any]) -> None:
    path = self._directory / PARAMS
    saving = context()
    saving.array.saving.storage_options.chunk_byte_size = _CHUNK_BYTES
    saving.array.saving.use_compression = False  # Weights are noise to a compressor.
    with disk.saving(path), saving:
      ocp.partial.save(str(path), group)
    group.clear()
    give_back_memory()

  def close(self) -> None:
    """Ends the background thread, whatever happened."""
    self._worker.shutdown()


def give_back_memory() -> None:
  """Returns to the system what was freed: glibc keeps TensorStore's small pieces."""
  with contextlib.suppress(AttributeError):  # Another C library.
    ctypes.CDLL(None).malloc_trim(0)


def leaves(tree: Any) -> dict[Path, Any]:
  """The leaves of a tree of parameters, by path."""
  found: Any = flatten_dict(tree)
  return found
