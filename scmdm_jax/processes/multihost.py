"""What several processes of one run agree on: places, options, mistakes, when to stop.

All of it on the host, over JAX's coordination service, which lives in process 0. In a
single process every function here returns at once. `joining` says how a process finds
the others.
"""

import contextlib
import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax._src import distributed  # For its client: the public part has no barriers.
from jax.experimental import multihost_utils

from scmdm_jax.errors import BadInput, PeerLost, Stopped, first_line
from scmdm_jax.processes import joining, stopping, watch

S = TypeVar('S')
T = TypeVar('T')

_KEPT_ROUNDS = 1000  # A process that is further behind would hang in a collective.
_rounds = itertools.count()
_tasks = itertools.count()


class CommonMistake(BadInput):
  """A mistake that every process of the run reports, each with the same exit code."""

  def __init__(self, message: str, exit_code: int = BadInput.exit_code):
    super().__init__(message)
    self.exit_code = exit_code


def count() -> int:
  """Number of processes of the run."""
  return distributed.global_state.num_processes if _client() else 1


def index() -> int:
  """Number of this process; process 0 is the one that writes."""
  return distributed.global_state.process_id if _client() else 0


def _client() -> Any:
  return distributed.global_state.client


def barrier(name: str, seconds: int = 600) -> None:
  """Waits until every process is here.

  Args:
    name: of the place, unique within the run.
    seconds: how long to wait.

  Raises:
    PeerLost: somebody did not come; the message names the process.
  """
  if count() == 1:
    return
  try:
    _client().wait_at_barrier(f'scmdm/{name}', 1000 * seconds)
  except jax.errors.JaxRuntimeError as e:
    # One number per line.
    _, _, late = str(e).partition('timed out task names')
    missing = sorted({int(n) for n in re.findall(r'\b\d+$', late, re.MULTILINE)})
    who = ', '.join(map(str, missing)) or f'unknown ({first_line(e)})'
    raise PeerLost(
      f'barrier {name!r}: waited {seconds} s for process {who}; look at its log'
    ) from e


def same_everywhere(values: dict[str, Any]) -> None:
  """Makes sure that all processes were started alike.

  Args:
    values: plain JSON data by name, such as the options of the run.

  Raises:
    BadInput: in all processes, with the first name that differs and both values.
  """
  if count() == 1:
    return
  client = _client()
  client.key_value_set(f'scmdm/values/{index()}', json.dumps(values))
  barrier('options written')
  found = client.key_value_dir_get('scmdm/values/')
  barrier('options read')  # Nobody leaves before all know.
  by_process = sorted((int(key.rsplit('/', 1)[1]), text) for key, text in found)
  first = json.loads(by_process[0][1])
  for process, text in by_process[1:]:
    other = json.loads(text)
    for name in (*first, *other):
      a, b = first.get(name), other.get(name)
      if a != b:
        raise CommonMistake(
          f'{name}: process 0 was started with {a!r}, process {process} with {b!r}; '
          'start all processes with the same command'
        )


def first_does(name: str, do: Callable[[], T]) -> T | None:
  """Runs `do` in process 0 while the others wait; its BadInput is everybody's.

  Args:
    name: of what is done, for messages.
    do: what to do.

  Returns:
    What `do` returned, in process 0; None in the others.
  """
  if count() == 1:
    return do()
  key = f'scmdm/done/{next(_tasks)}'  # All processes come to it in the same order.
  if index() > 0:
    problem = json.loads(_get(key, name))
    if problem:
      raise CommonMistake(*problem)
    return None
  try:
    result = do()
  except BadInput as e:
    problem = [str(e), e.exit_code]
    _client().key_value_set(key, json.dumps(problem))
    raise CommonMistake(*problem) from e
  _client().key_value_set(key, json.dumps([]))
  return result


def from_first(text: str) -> str:
  """The `text` of process 0, in all processes, once process 0 is here."""
  if count() == 1:
    return text
  key = f'scmdm/done/{next(_tasks)}'
  if index() > 0:
    return _get(key, 'word from the first')
  _client().key_value_set(key, text)
  return text


def exchanged(name: str, text: str) -> list[str]:
  """Returns the `text` of every process, once all are here; in any thread.

  Args:
    name: of the exchange, unique within the run.
    text: of this process.
  """
  if count() == 1:
    return [text]
  client = _client()
  client.key_value_set(f'scmdm/exchanged/{name}/{index()}', text)
  names = (f'scmdm/exchanged/{name}/{process}' for process in range(count()))
  found = [_get(key, f'{name} of the processes') for key in names]
  barrier(f'exchanged/{name}', 3600)  # Everybody has read them.
  client.key_value_delete(f'scmdm/exchanged/{name}/{index()}')
  return found


def gathered(tree: Any) -> Any:
  """Arrays that are spread over processes as whole NumPy arrays in each of them."""

  def whole(x: Any) -> np.ndarray:
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
      return multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(x)

  return jax.tree.map(whole, tree) if count() > 1 else jax.device_get(tree)


def mapped(
  function: Callable[[S], np.ndarray | jax.Array], items: Sequence[S]
) -> Iterator[np.ndarray]:
  """Yields `function` of every item, in order, in all processes.

  Each process works out its share, on its own devices. All must come here, with the
  same items; the arrays have one shape and dtype.
  """
  for first in range(0, len(items), count()):
    mine = items[min(first + index(), len(items) - 1)]
    found = np.asarray(function(mine))[None]
    if count() > 1:
      found = multihost_utils.process_allgather(found[0])
    yield from found[: len(items) - first]


def shard(tree: Any, shardings: Any) -> Any:
  """Arrays that every process has as a whole, placed over all by `shardings`.

  Arrays that are placed so already are returned as they are.
  """
  if count() == 1:
    return jax.device_put(tree, shardings)

  def place(x: jax.Array | np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    if isinstance(x, jax.Array) and sharding.is_equivalent_to(x.sharding, x.ndim):
      return x
    whole = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: whole[index])

  return jax.tree.map(place, tree, shardings)


def stop_agreed() -> bool:
  """Whether any process was sent SIGTERM; the same answer in all of them.

  Process 0 decides, once for each time that all processes have asked: so it must be
  asked equally often everywhere. It waits for process 0 to ask, not for any device.
  """
  if count() == 1:
    return stopping.requested()
  turn = next(_rounds)
  watch.progress(turn)
  client = _client()
  if stopping.requested():
    client.key_value_set(f'scmdm/asked/{index()}', '', allow_overwrite=True)
  key = f'scmdm/stop/{turn}'
  if index() > 0:
    return _get(key, f'decision {turn} whether to stop') == 'yes'
  stop = bool(client.key_value_dir_get('scmdm/asked/'))
  client.key_value_set(key, 'yes' if stop else 'no')
  if turn >= _KEPT_ROUNDS:
    client.key_value_delete(f'scmdm/stop/{turn - _KEPT_ROUNDS}')
  return stop


def leave_if_asked(what: str) -> None:
  """Raises `Stopped` when `stop_agreed`; for work that saves nothing on its way.

  Args:
    what: the work, for the message.
  """
  if stop_agreed():
    raise Stopped(
      f'{what}: stopped by SIGTERM, nothing half done was written; the same command '
      'starts it again'
    )


@contextlib.contextmanager
def joined(variables: Mapping[str, str] = os.environ) -> Iterator[None]:
  """Inside the block the processes are one run; what fails in one ends all."""
  seconds = joining.initialize(variables)
  if count() > 1:
    watch.start(_client(), index(), count(), seconds)
  try:
    yield
    if count() > 1:
      watch.stop(_client(), index())
  except (CommonMistake, Stopped):
    if count() > 1:
      watch.stop(_client(), index())
    raise
  except Exception as e:
    if count() == 1:
      raise
    # Of a peer that has died, compiled code only says that it has no connection.
    silent = [] if isinstance(e, BadInput) else watch.silent(_client(), index())
    if silent:
      who = ', '.join(map(str, silent))
      raise PeerLost(f'process {who} is gone ({first_line(e)})') from e
    watch.report(_client(), f'process {index()} failed: {first_line(e)}')
    raise


def end(exit_code: int) -> None:
  """Ends a failed process of several at once: JAX would let it wait for the rest."""
  if count() == 1 or exit_code in (0, Stopped.exit_code):
    return
  watch.wait_for_readers(index())
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(exit_code)


def _get(key: str, name: str, seconds: int = 3600) -> str:
  try:
    return _client().blocking_key_value_get(key, 1000 * seconds)
  except jax.errors.JaxRuntimeError as e:
    raise PeerLost(
      f'{name}: waited {seconds} s for process 0 ({first_line(e)}); look at its log'
    ) from e
