"""Ends a run in which a process has died or hangs, and says which one.

A process whose peer is gone waits for ever inside compiled code, where no exception
reaches it. So a thread beside it does the noticing, and ends the process.
"""

import faulthandler
import os
import sys
import threading
import time
from typing import Any

import jax

from scmdm_jax.errors import PeerLost

_EVERY = 1.0  # Seconds from sign of life to sign of life.
_STUCK = 1800  # Seconds without a step, compilation included, that count as a hang.
_LEFT = 'left'  # The last sign of a process that has come to its end.

_turn = 0
_leaving = threading.Event()
_last_word = threading.Lock()  # So that no sign of life follows the last sign.


def progress(turn: int) -> None:
  """Tells that this process has come to `turn`, which counts up."""
  global _turn
  _turn = turn


def start(client: Any, index: int, count: int, seconds: int) -> None:
  """Watches the other processes from now on.

  Args:
    client: of JAX's coordination service.
    index: number of this process.
    count: number of all.
    seconds: how long one may be silent.
  """
  watch = _watch_all if index == 0 else _watch_first
  arguments = (client, index, count, seconds)
  threading.Thread(target=watch, args=arguments, daemon=True).start()


def stop(client: Any, index: int) -> None:
  """Ends the watching: this process, number `index`, has come to its end."""
  with _last_word:
    _leaving.set()
    client.key_value_set(f'scmdm/alive/{index}', _LEFT, allow_overwrite=True)


def report(client: Any, problem: str) -> None:
  """Ends all processes that watch with `problem`, which names one of them."""
  client.key_value_set('scmdm/problem/it', problem, allow_overwrite=True)


def wait_for_readers(index: int) -> None:
  """Lets the others read what they were sent before process 0, which has it, ends."""
  _leaving.set()
  if index == 0:
    time.sleep(3 * _EVERY)


def silent(client: Any, index: int) -> list[int]:
  """The processes other than `index` of which nothing is heard just now."""
  try:
    before = _signs(client)
    time.sleep(5 * _EVERY)
    after = _signs(client)
  except jax.errors.JaxRuntimeError:
    return [0]
  return sorted(p for p in before if before[p] == after[p] != _LEFT and p != index)


def _watch_all(client: Any, index: int, count: int, seconds: int) -> None:
  """Process 0 hears all others, and sends them whom it misses."""
  began = time.monotonic()
  heard: dict[int, tuple[str, float]] = dict.fromkeys(range(count), ('', began))
  moved: dict[int, tuple[int, float]] = dict.fromkeys(range(count), (0, began))
  while not _leaving.is_set():
    _beat(client, index)
    now = time.monotonic()
    signs = _signs(client)
    for process, sign in signs.items():
      if sign == _LEFT:
        heard[process] = (sign, now)
        moved.pop(process, None)
      elif sign != heard[process][0]:
        heard[process] = (sign, now)
        turn = int(sign.split()[1])
        if turn != moved.get(process, (None, now))[0]:
          moved[process] = (turn, now)
    # Whoever waits, for a process that hangs or a slow one, is further on than it.
    least = min((turn for turn, _ in moved.values()), default=0)
    behind = {p: at for p, (turn, at) in moved.items() if turn == least}
    if missing := [p for p, (_, at) in heard.items() if now - at > seconds]:
      report(client, f'process {_list(missing)}: silent for {seconds} s')
    elif behind and now - max(behind.values()) > _STUCK:
      faulthandler.dump_traceback(all_threads=True)
      report(client, f'process {_list(list(behind))}: no step for {_STUCK} s')
    _end_if_told(client, wait=3 * _EVERY)
    time.sleep(_EVERY)


def _watch_first(client: Any, index: int, count: int, seconds: int) -> None:
  """The others hear process 0, and what it reports."""
  del count
  problem = f'process 0: silent for {seconds} s'
  while not _leaving.is_set():
    # Calls to a service that is stopped, not dead, would wait for ever.
    timer = threading.Timer(seconds, _end, [problem])
    timer.daemon = True
    timer.start()
    try:
      _beat(client, index)
      _end_if_told(client)
    except jax.errors.JaxRuntimeError:
      _end('process 0: does not answer')
    timer.cancel()
    time.sleep(_EVERY)


def _beat(client: Any, index: int) -> None:
  sign = f'{time.monotonic()} {_turn}'
  with _last_word:
    if not _leaving.is_set():
      client.key_value_set(f'scmdm/alive/{index}', sign, allow_overwrite=True)


def _signs(client: Any) -> dict[int, str]:
  found = client.key_value_dir_get('scmdm/alive/')
  return {int(key.rsplit('/', 1)[1]): sign for key, sign in found}


def _end_if_told(client: Any, wait: float = 0) -> None:
  if sent := client.key_value_dir_get('scmdm/problem/'):
    time.sleep(wait)
    _end(sent[0][1])


def _list(processes: list[int]) -> str:
  return ', '.join(map(str, sorted(processes)))


def _end(problem: str) -> None:
  if _leaving.is_set():
    return
  print(
    f'error: {problem}; the run ends, and the same command resumes it',
    file=sys.stderr,
    flush=True,
  )
  os._exit(PeerLost.exit_code)
