"""One run at a time in a workdir that is in a bucket, where no system releases locks.

The objects `.lock/1`, `.lock/2`, ... are written only where there is none of that name
(`If-None-Match: *`, `ifGenerationMatch=0`); the highest number has the workdir. Its
owner writes it again and again. Who finds one that is not written any more takes the
next number; the old owner, should it still live, sees that and stops.
"""

import json
import logging
import os
import pathlib
import secrets
import socket
import threading
import time
from typing import Any

from scmdm_jax.buckets.objects import Objects
from scmdm_jax.errors import BadInput, DamagedData, first_line

FOLDER = '.lock'
BEAT = 10.0  # Seconds between two writes of an owner.
PATIENCE = 60.0  # Seconds without a write after which a lock is taken over.


class Lock:
  """The lock of a workdir, from the time it is made until `release`."""

  def __init__(self, objects: Objects):
    """Takes the lock.

    Raises:
      BadInput: another run has it; or see `Objects`.
    """
    self._objects = objects
    self._me = {**_here(), 'token': secrets.token_hex(8)}
    self._name = f'{FOLDER}/{self._taken()}'
    self._lost = ''
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._beat, daemon=True)
    self._thread.start()

  def check(self) -> None:
    """Raises BadInput if another run has taken the workdir over."""
    if self._lost:
      raise BadInput(
        f'{self._objects.url}: {self._lost}; this one has stopped writing there'
      )

  def release(self) -> None:
    """Lets other runs have the workdir."""
    self._ended.set()
    self._thread.join()
    if not self._lost:
      self._objects.delete([self._name])

  def _taken(self) -> int:
    """The number that this run has now."""
    numbers = self._numbers()
    last = max(numbers, default=0)
    seen = self._content(last) if last else None
    if seen is not None and not self._is_dead(last, seen):
      raise self._refusal(seen)
    mine = f'{FOLDER}/{last + 1}'
    if not self._objects.create(mine, self._text(0)):
      raise self._refusal(self._content(last + 1))
    # Somebody may have come in between: of two, at least one sees the other.
    now = self._content(last) if last else None
    others = [n for n in self._numbers() if n > last + 1]
    ours = (self._content(last + 1) or {}).get('token') == self._me['token']
    if others or not ours or (now is not None and now != seen):
      if ours:
        self._objects.delete([mine])
      raise self._refusal(now)
    if seen is not None:
      logging.warning(
        '%s: took over the lock of %s, which is gone', self._objects.url, _who(seen)
      )
    self._objects.delete([f'{FOLDER}/{n}' for n in numbers])
    return last + 1

  def _is_dead(self, number: int, seen: dict[str, Any]) -> bool:
    """Whether the owner is gone: not running here, or not writing elsewhere."""
    here = _here()
    if all(seen.get(name) == here[name] for name in ('host', 'boot', 'space')):
      return _start_of(seen.get('pid')) != seen.get('started')
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
      time.sleep(min(BEAT / 2, PATIENCE / 4))
      if self._content(number) not in (seen, None):
        return False
    return True

  def _beat(self) -> None:
    count = 0
    while not self._ended.wait(BEAT):
      count += 1
      try:
        number = int(self._name.rpartition('/')[2])
        if any(n > number for n in self._numbers()):
          self._lost = 'another run has taken the workdir over'
          return
        self._objects.write(self._name, self._text(count))
      except (BadInput, DamagedData) as e:  # It may be back at the next beat.
        logging.warning('the lock could not be renewed: %s', first_line(e))

  def _numbers(self) -> list[int]:
    names = Objects(f'{self._objects.url}/{FOLDER}').list()
    return sorted(int(name) for name in names if name.isdecimal())

  def _content(self, number: int) -> dict[str, Any] | None:
    content = self._objects.read(f'{FOLDER}/{number}')
    try:
      found = None if content is None else json.loads(content)
    except ValueError:
      found = {}
    return found if found is None or isinstance(found, dict) else {}

  def _text(self, beat: int) -> bytes:
    return json.dumps({**self._me, 'beat': beat}).encode()

  def _refusal(self, seen: dict[str, Any] | None) -> BadInput:
    who = f' ({_who(seen)})' if seen else ''
    return BadInput(
      f'--workdir {self._objects.url}: another run is using it{who}; wait'
    )


def _who(seen: dict[str, Any]) -> str:
  return f'process {seen.get("pid")} of {seen.get("host")}'


def _here() -> dict[str, Any]:
  """Who this process is, among all that could ever see the bucket."""
  try:
    boot = pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()
    space = os.readlink('/proc/self/ns/pid')
  except OSError:
    boot, space = '', ''
  pid = os.getpid()
  return {
    'host': socket.gethostname(),
    'boot': boot,
    'space': space,
    'pid': pid,
    'started': _start_of(pid),
  }


def _start_of(pid: Any) -> str | None:
  """When the process `pid` of this machine was started; None: there is none."""
  try:
    fields = pathlib.Path(f'/proc/{int(pid)}/stat').read_text().rpartition(')')[2]
  except (OSError, TypeError, ValueError):
    return None
  state, *_ = fields.split()
  return None if state in 'ZX' else fields.split()[19]
