"""Training checkpoints: a series of steps from which a killed run resumes.

`<directory>/<step>/` is an Orbax checkpoint of the whole training state, and
`<directory>/<step>.digests.json` what its files must be.
"""

import base64
import concurrent.futures
import contextlib
import json
import logging
import os
import pathlib
import secrets
from collections.abc import Collection, Mapping
from typing import Any

from orbax.checkpoint import v1 as ocp

from scmdm_jax import files
from scmdm_jax.checkpoints import apart, digests, disk, model_writer, tree_diff
from scmdm_jax.checkpoints import steps as steps_on_disk
from scmdm_jax.checkpoints.store import FORMAT, check_format, placed
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.processes import multihost
from scmdm_jax.regular_files import special_files

# Orbax logs, with a traceback from each of its threads, what it also raises.
logging.getLogger('absl').addFilter(
  lambda record: f'{os.sep}orbax{os.sep}' not in record.pathname
)

_STATE = 'state'


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
    provenance: Mapping[str, str] | None = None,
    accept: Collection[str] = (),
  ):
    """Opens or creates the store and clears what a killed process left unfinished.

    Args:
      directory: one subdirectory per step.
      keep: number of newest steps that stay.
      verify_below: contents of larger steps, in bytes, are not compared with their
        digests when they are restored.
      provenance: what the run is made of, by name; kept with every step, and compared
        with what a step has when it is restored.
      accept: names in it that may have changed.

    Raises:
      BadInput: the directory cannot be written.
    """
    self.directory = pathlib.Path(directory).absolute()
    with steps_on_disk.writing(self.directory):
      self.directory.mkdir(parents=True, exist_ok=True)
    steps_on_disk.require_writable(self.directory)
    self._verify_below = verify_below
    self._provenance = dict(provenance or {})
    self._accept = accept
    self._checked: set[int] = set()  # Steps whose digests have been compared.
    apart.on_each_disk('opening the checkpoints', self._tidy)
    self._keep = keep
    self._opened: ocp.training.Checkpointer | None = None
    self._worker = concurrent.futures.ThreadPoolExecutor(1)
    self._recorded: concurrent.futures.Future[None] | None = None

  @property
  def _checkpointer(self) -> ocp.training.Checkpointer:
    # When it is made it reads what every step says of itself: damaged steps that
    # `sound_step` puts aside must be gone by then.
    if self._opened is None:
      # Orbax annotates the policy by a protocol that its own classes do not match.
      policy: Any = ocp.training.preservation_policies.LatestN(self._keep)
      with disk.reading(self.directory):
        self._opened = ocp.training.Checkpointer(
          str(self.directory),
          context=model_writer.context(),
          preservation_policy=policy,
          cleanup_tmp_directories=True,
        )
    return self._opened

  def __enter__(self) -> 'TrainingStore':
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def steps(self) -> list[int]:
    """Complete steps on disk, oldest first."""
    return steps_on_disk.complete_steps(self.directory)

  def latest_step(self) -> int | None:
    """The newest complete step, or None."""
    return max(self.steps(), default=None)

  def sound_step(self, fall_back: bool) -> int | None:
    """Returns the newest step whose files are what was written, or None.

    Args:
      fall_back: where the newest is damaged and an earlier one is sound, the newest is
        put aside under another name, and the earlier one is returned.

    Raises:
      DamagedData: the newest step is damaged, and none takes its place.
    """
    self.wait()
    apart.on_each_disk('finding a sound step', lambda: self._find_sound(fall_back))
    if self._opened is not None:
      self._opened.reload()
    latest = self.latest_step()
    apart.check_equal(f'{self.directory.name}: newest sound step', str(latest))
    if multihost.index() == 0:  # A copy elsewhere must not keep what was put aside.
      files.written(self.directory)
    return latest

  def _find_sound(self, fall_back: bool) -> None:
    newest, *earlier = reversed(self.steps() or [-1])
    for step in earlier if fall_back else ():
      # Orbax reads this much of all of them.
      try:
        with disk.reading(self.directory / str(step)):
          ocp.checkpointables_metadata(str(self.directory / str(step)))
      except DamagedData as e:
        self.set_aside(step, e, 'does not need it')
        earlier = [s for s in earlier if s != step]
    try:
      if newest >= 0:
        self._check(newest)
      return
    except DamagedData as e:
      damage = e
    for step in earlier if fall_back else ():
      with contextlib.suppress(DamagedData):
        self._check(step)
        for damaged in [s for s in self.steps() if s > step]:
          self.set_aside(damaged, damage, f'goes on from step {step}')
        return
    raise DamagedData(
      f'{damage}; to go on from the one before it, delete it and run the same command '
      'again'
    ) from damage

  def set_aside(self, step: int, damage: Exception, then: str) -> None:
    """Renames a damaged step, so that it neither counts nor is lost.

    Args:
      step: one of `steps()`.
      damage: what is wrong with it.
      then: what happens instead; both are named in one line.
    """
    aside = self.directory / f'{step}.damaged-{secrets.token_hex(4)}'
    (self.directory / str(step)).rename(aside)
    if self._manifest(step).exists():
      self._manifest(step).rename(f'{aside}{steps_on_disk.DIGESTS}')
    logging.warning('%s; kept as %s, the run %s', damage, aside.name, then)

  def raise_if_failed(self) -> None:
    """Raises DamagedData if the save under way has failed; waits for nothing."""
    if self._recorded is not None and self._recorded.done():
      with self._saving():
        self._recorded.result()

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
      'provenance': self._provenance,
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
    self._check(step)
    wanted = placed(abstract_state)
    with disk.reading(path):
      saved = ocp.checkpointables_metadata(str(path))
      tree = saved.metadata[_STATE]
      record: Any = saved.custom_metadata or {}
    check_format(path, record)
    self._compare_provenance(path, record.get('provenance', {}))
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
      if self._opened is not None:
        self._opened.wait()

  def close(self) -> None:
    """Finishes the save under way and stops; same errors as `wait`."""
    try:
      self.wait()
    finally:
      self._worker.shutdown()
      with self._saving():
        if self._opened is not None:
          self._opened.close()

  def _finish(self, step: int, response: Any) -> None:
    """Waits until a step is committed, then writes its digests; in the background."""
    # A response without a `result()` keeps its thread and event loop for ever: three
    # file descriptors per save.
    response.result()
    apart.record(self.directory / str(step), self._manifest(step))
    if multihost.index() == 0:
      self._remove_idle_digests()

  def _check(self, step: int) -> None:
    """Compares the files of a step with their digests, once."""
    if step in self._checked:
      return
    path = self.directory / str(step)
    if self._manifest(step).exists():
      digests.check(path, self._manifest(step), self._verify_below)
    elif special := special_files(path):
      raise DamagedData(f'{path}: {special[0]} is not a regular file; use another copy')
    else:  # A kill between the two: the commit marker alone says that it is whole.
      logging.warning('%s: contents not verified: it has no digests', path)
    self._checked.add(step)

  def _compare_provenance(self, path: pathlib.Path, saved: Mapping[str, str]) -> None:
    """Refuses to go on with other data, tokenizer or code, unless that is accepted."""
    for name, ours in self._provenance.items():
      theirs = saved.get(name, ours)  # Steps of older versions have none.
      if ours == theirs:
        continue
      if name not in self._accept:
        raise BadInput(
          f'{path}: {name} was {theirs}, now it is {ours}; go on with what the run '
          f'began with, or take it on by --config.train.accept_changes="(\'{name}\',)"'
        )
      logging.warning('%s: %s was %s, now it is %s', path, name, theirs, ours)

  def _manifest(self, step: int) -> pathlib.Path:
    return steps_on_disk.manifest_of(self.directory / str(step))

  def _saving(self) -> contextlib.AbstractContextManager[None]:
    return disk.saving(self.directory, self.steps)

  def _complete(self, step: int) -> bool:
    return steps_on_disk.is_committed(self.directory / str(step))

  def _tidy(self) -> None:
    """Clears what a killed process left unfinished."""
    self._set_aside_incomplete()
    self._remove_idle_digests()
    # No later write takes the name of one that was killed: that step may never return.
    for path in self.directory.glob(f'.*{steps_on_disk.DIGESTS}.tmp'):
      path.unlink(missing_ok=True)

  def _set_aside_incomplete(self) -> None:
    """Renames incomplete steps newer than the last complete one.

    Orbax would refuse to save under their numbers. Older ones are half-pruned and go
    with the next pruning.
    """
    latest = self.latest_step()
    for path in sorted(self.directory.iterdir()):
      step = steps_on_disk.step_number(path)
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
    for path in self.directory.glob(f'*{steps_on_disk.DIGESTS}'):
      if not (self.directory / path.name.removesuffix(steps_on_disk.DIGESTS)).is_dir():
        path.unlink(missing_ok=True)
