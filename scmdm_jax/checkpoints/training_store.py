"""Training checkpoints: a series of steps from which a killed run resumes.

`<directory>/<step>/` is an Orbax checkpoint of the whole training state, and
`<directory>/<step>.digests.json` what its files must be.
"""

import base64
import concurrent.futures
import contextlib
import json
import logging
import pathlib
import secrets
from typing import Any

from orbax.checkpoint import v1 as ocp

from scmdm_jax.checkpoints import digests, disk, tree_diff
from scmdm_jax.checkpoints.store import FORMAT, check_format, placed
from scmdm_jax.errors import BadInput
from scmdm_jax.processes import multihost

_STATE = 'state'
# What Orbax puts into a step last. Its own `is_orbax_checkpoint` and `latest` say yes
# to any directory with a number, and to a step that is still being written.
_COMMITTED = ('_CHECKPOINT_METADATA', 'commit_success.txt')
DIGESTS = '.digests.json'  # After the number of the step.


class TrainingStore:
  """The steps of one training run, saved in the background and committed by rename.

  Only a step that is complete on disk counts; the oldest beyond `keep` goes after the
  next one is committed. One process writes at a time.
  """

  def __init__(
    self,
    directory: str | pathlib.Path,
    keep: int,
    verify_below: int = digests.VERIFY_BELOW,
  ):
    """Opens or creates the store and clears what a killed process left unfinished.

    Args:
      directory: one subdirectory per step.
      keep: number of newest steps that stay.
      verify_below: contents of larger steps, in bytes, are not compared with their
        digests when they are restored.

    Raises:
      BadInput: the directory cannot be created.
    """
    self.directory = pathlib.Path(directory).absolute()
    try:
      self.directory.mkdir(parents=True, exist_ok=True)
    except OSError as e:
      raise BadInput(f'{self.directory}: cannot create it ({e.strerror})') from e
    self._verify_below = verify_below
    multihost.first_does('opening the checkpoints', self._tidy)
    # Orbax annotates the policy by a protocol that its own classes do not match.
    policy: Any = ocp.training.preservation_policies.LatestN(keep)
    self._checkpointer = ocp.training.Checkpointer(
      str(self.directory),
      preservation_policy=policy,
      cleanup_tmp_directories=True,
    )
    self._worker = concurrent.futures.ThreadPoolExecutor(1)
    self._recorded: concurrent.futures.Future[None] | None = None

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
      response: Any = self._checkpointer.save_checkpointables_async(
        step, {_STATE: state}, force=True, custom_metadata=record
      )
      self._recorded = self._worker.submit(self._finish, step, response)
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
    if self._manifest(step).exists():
      digests.check(path, self._manifest(step), self._verify_below)
    else:  # A kill between the two: the commit marker alone says that it is whole.
      logging.warning('%s: contents not verified: it has no digests', path)
    wanted = placed(abstract_state)
    with disk.reading(path):
      saved = ocp.checkpointables_metadata(str(path))
      tree = saved.metadata[_STATE]
      record: Any = saved.custom_metadata or {}
    check_format(path, record)
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
      recorded, self._recorded = self._recorded, None
      if recorded is not None:
        recorded.result()
      self._checkpointer.wait()

  def close(self) -> None:
    """Finishes the save under way and stops; same errors as `wait`."""
    try:
      self.wait()
    finally:
      self._worker.shutdown()
      with self._saving():
        self._checkpointer.close()

  def _finish(self, step: int, response: Any) -> None:
    """Waits until a step is committed, then writes its digests; in the background."""
    # A response without a `result()` keeps its thread and event loop for ever: three
    # file descriptors per save.
    response.result()
    if multihost.index() == 0:
      digests.record(self.directory / str(step), self._manifest(step))
      self._remove_idle_digests()

  def _manifest(self, step: int) -> pathlib.Path:
    return self.directory / f'{step}{DIGESTS}'

  def _saving(self) -> contextlib.AbstractContextManager[None]:
    return disk.saving(self.directory, self.steps)

  def _complete(self, step: int) -> bool:
    path = self.directory / str(step)
    return all((path / name).is_file() for name in _COMMITTED)

  def _tidy(self) -> None:
    """Clears what a killed process left unfinished."""
    self._set_aside_incomplete()
    self._remove_idle_digests()

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

  def _remove_idle_digests(self) -> None:
    """Deletes the manifests of steps that are gone."""
    for path in self.directory.glob(f'*{DIGESTS}'):
      if not (self.directory / path.name.removesuffix(DIGESTS)).is_dir():
        path.unlink(missing_ok=True)


def _step_number(path: pathlib.Path) -> int | None:
  # Orbax writes plain decimals; `007` or a superscript would be another's file.
  name = path.name
  return int(name) if name.isdecimal() and str(int(name)) == name else None
