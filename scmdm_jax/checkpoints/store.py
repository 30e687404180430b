"""Checkpoints of our own: all calls to Orbax are in this file.

Two kinds. A *model* is a directory with `model.json` (what it is) and `params/` (an
Orbax tree): the thing users pass around by path. A *training store* is a series of
steps, each with the whole training state, from which a killed run resumes.
"""

import base64
import contextlib
import json
import logging
import pathlib
import secrets
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from scmdm_jax.checkpoints import disk, tree_diff
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription

MODEL_JSON = 'model.json'
MODEL_SUBDIRECTORY = 'model'  # Of a training workdir.
FORMAT = 1

_PARAMS = 'params'
_STATE = 'state'
# What Orbax puts into a step last. Its own `is_orbax_checkpoint` and `latest` say yes
# to any directory with a number, and to a step that is still being written.
_COMMITTED = ('_CHECKPOINT_METADATA', 'commit_success.txt')


def save_model(
  path: str | pathlib.Path,
  description: ModelDescription,
  params: dict[str, Any],
  extra: dict[str, Any],
) -> None:
  """Writes a model checkpoint; the directory appears complete, by one rename.

  Args:
    path: the directory. An older model checkpoint there is replaced.
    description: what the model is.
    params: its parameters, as `denoiser.abstract_params(description)` wants them.
    extra: plain JSON data about its origin, kept in `model.json`.

  Raises:
    BadInput: `path` holds something other than a model, or cannot be created.
    DamagedData: the disk is full or failing.
    ValueError: `params` do not belong to `description`.
  """
  path = pathlib.Path(path).absolute()
  problems = tree_diff.differences(params, denoiser.abstract_params(description))
  if problems:
    raise ValueError(f'parameters do not fit their description: {problems}')
  if not (path / MODEL_JSON).is_file():
    disk.refuse_occupied(path)
  with disk.new_directory(path) as temporary, disk.saving(path):
    disk.write_json(
      temporary / MODEL_JSON,
      {'format': FORMAT, 'description': description.to_dict(), 'extra': extra},
    )
    ocp.save(str(temporary / _PARAMS), params)


def load_model(path: str | pathlib.Path) -> tuple[ModelDescription, dict[str, Any]]:
  """Reads a model checkpoint onto the default device.

  Args:
    path: a directory written by `save_model`, or a training workdir holding one.

  Returns:
    The description and the parameters, float32 arrays.

  Raises:
    BadInput: there is no model at `path`, or its parameters have other shapes than
      its description says.
    DamagedData: files are missing, truncated or altered.
  """
  path = _find_model(pathlib.Path(path).absolute())
  data = disk.read_json(path / MODEL_JSON)
  _check_format(path / MODEL_JSON, data)
  try:
    description = ModelDescription.from_dict(data['description'])
  except (KeyError, TypeError, ValueError) as e:
    raise DamagedData(f'{path / MODEL_JSON}: not a model description ({e})') from e
  wanted = _placed(denoiser.abstract_params(description))
  tree = path / _PARAMS
  with disk.reading(tree):
    saved = ocp.metadata(str(tree)).metadata
  tree_diff.refuse_differences(tree, saved, wanted)
  with disk.reading(tree):
    return description, ocp.load(str(tree), wanted)


class TrainingStore:
  """The steps of one training run, saved in the background and committed by rename.

  Only a step that is complete on disk counts; the oldest beyond `keep` goes after the
  next one is committed. One process writes at a time.
  """

  def __init__(self, directory: str | pathlib.Path, keep: int):
    """Opens or creates the store and clears what a killed process left unfinished.

    Args:
      directory: one subdirectory per step.
      keep: number of newest steps that stay.

    Raises:
      BadInput: the directory cannot be created.
    """
    self.directory = pathlib.Path(directory).absolute()
    try:
      self.directory.mkdir(parents=True, exist_ok=True)
    except OSError as e:
      raise BadInput(f'{self.directory}: cannot create it ({e.strerror})') from e
    self._set_aside_incomplete()
    # Orbax annotates the policy by a protocol that its own classes do not match.
    policy: Any = ocp.training.preservation_policies.LatestN(keep)
    self._checkpointer = ocp.training.Checkpointer(
      str(self.directory),
      preservation_policy=policy,
      cleanup_tmp_directories=True,
    )
    self._response: Any = None

  def __enter__(self) -> 'TrainingStore':
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def steps(self) -> list[int]:
    """Complete steps on disk, oldest first."""
    numbers = (_step_number(path) for path in self.directory.iterdir())
    return sorted(n for n in numbers if n is not None and self._complete(n))

  def latest_step(self) -> int | None:
    """The newest complete step, or None."""
    return max(self.steps(), default=None)

  def save(
    self,
    step: int,
    state: Any,
    data_state: dict[str, Any] | bytes,
    metadata: dict[str, Any],
  ) -> bool:
    """Starts saving and returns once the state may be changed or donated.

    Waits for the previous save first, so an error of that one surfaces here.

    Args:
      step: number of finished training steps.
      state: pytree of arrays and typed PRNG keys.
      data_state: position of the data pipeline: bytes, or plain JSON data.
      metadata: plain JSON data.

    Returns:
      False when the step is saved already, and nothing was done.

    Raises:
      DamagedData: this save or the one before failed; committed steps are intact.
      ValueError: `data_state` or `metadata` would not survive JSON.
    """
    record = {
      'format': FORMAT,
      'data_state': {'base64': base64.b64encode(data_state).decode('ascii')}
      if isinstance(data_state, bytes)
      else {'json': data_state},
      'metadata': metadata,
    }
    if json.loads(json.dumps(record, allow_nan=False)) != record:
      raise ValueError(f'data_state and metadata must be plain JSON data: {record}')
    self.wait()
    if self._complete(step):
      return False
    with self._saving():
      self._response = self._checkpointer.save_checkpointables_async(
        step, {_STATE: state}, force=True, custom_metadata=record
      )
    return True

  def restore(
    self, step: int, abstract_state: Any
  ) -> tuple[Any, dict[str, Any] | bytes, dict[str, Any]]:
    """Reads one step.

    Args:
      step: one of `steps()`.
      abstract_state: pytree of `ShapeDtypeStruct` (or arrays) like the saved state;
        a leaf with a sharding is placed by it, others go to the default device.

    Returns:
      The state, the `data_state` and the `metadata` given to `save`.

    Raises:
      BadInput: no such step, or the saved state has other leaves, shapes or dtypes.
      DamagedData: files of the step are missing, truncated or altered.
    """
    path = self.directory / str(step)
    if not self._complete(step):
      raise BadInput(f'{path}: no complete checkpoint; complete are {self.steps()}')
    self.wait()
    wanted = _placed(abstract_state)
    with disk.reading(path):
      saved = ocp.checkpointables_metadata(str(path))
      tree = saved.metadata[_STATE]
      record: Any = saved.custom_metadata or {}
    _check_format(path, record)
    tree_diff.refuse_differences(path, tree, wanted)
    with disk.reading(path):
      state = ocp.load_checkpointables(str(path), {_STATE: wanted})[_STATE]
      data_state = record['data_state']
      if 'base64' in data_state:
        return state, base64.b64decode(data_state['base64']), record['metadata']
      return state, data_state['json'], record['metadata']

  def wait(self) -> None:
    """Returns when nothing is being saved.

    Raises:
      DamagedData: the save under way failed; committed steps are intact.
    """
    with self._saving():
      # A response without a `result()` keeps its thread and event loop for ever:
      # three file descriptors per save.
      response, self._response = self._response, None
      if response is not None:
        response.result()
      self._checkpointer.wait()

  def close(self) -> None:
    """Finishes the save under way and stops; same errors as `wait`."""
    try:
      self.wait()
    finally:
      with self._saving():
        self._checkpointer.close()

  def _saving(self) -> contextlib.AbstractContextManager[None]:
    return disk.saving(self.directory, self.steps)

  def _complete(self, step: int) -> bool:
    path = self.directory / str(step)
    return all((path / name).is_file() for name in _COMMITTED)

  def _set_aside_incomplete(self) -> None:
    """Renames incomplete steps newer than the last complete one.

    Orbax would refuse to save under their numbers. Older ones are half-pruned and go
    with the next pruning.
    """
    latest = self.latest_step()
    for path in sorted(self.directory.iterdir()):
      step = _step_number(path)
      if step is None or not path.is_dir() or self._complete(step):
        continue
      if latest is None or step > latest:
        target = path.with_name(f'{step}.incomplete-{secrets.token_hex(4)}')
        path.rename(target)
        logging.warning(
          '%s: an incomplete checkpoint, renamed to %s', path, target.name
        )


def _find_model(path: pathlib.Path) -> pathlib.Path:
  for candidate in (path, path / MODEL_SUBDIRECTORY):
    if (candidate / MODEL_JSON).is_file():
      return candidate
  if not path.exists():
    raise BadInput(f'{path}: no such directory; give a model checkpoint')
  files = [path] if path.is_file() else sorted(path.iterdir())
  if any(file.suffix == '.safetensors' for file in files):
    raise BadInput(
      f'{path}: safetensors, not a model checkpoint; import it first: python -m '
      f'scmdm_jax.main --mode=import --source={path} --workdir=NEW_DIRECTORY'
    )
  raise BadInput(
    f'{path}: neither {MODEL_JSON} nor {MODEL_SUBDIRECTORY}/{MODEL_JSON}; give a model '
    'checkpoint, or the workdir of a finished training'
  )


def _step_number(path: pathlib.Path) -> int | None:
  # Orbax writes plain decimals; `007` or a superscript would be another's file.
  name = path.name
  return int(name) if name.isdecimal() and str(int(name)) == name else None


def _placed(abstract: Any) -> Any:
  """`abstract` with a device for every leaf: Orbax guesses (and warns) otherwise."""
  default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

  def place(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, 'sharding', None) or default
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

  return jax.tree.map(place, abstract)


def _check_format(path: pathlib.Path, record: dict[str, Any]) -> None:
  found = record.get('format')
  if found != FORMAT:
    raise BadInput(f'{path}: format is {found!r}; this version reads {FORMAT}')
