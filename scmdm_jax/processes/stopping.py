"""SIGTERM as a question that a run answers between two steps: is it time to stop?

The first signal only sets a flag: the run finishes its step, saves what it has, and
raises `errors.Stopped`, exit code 75. The second ends the process at once, also when
its main thread is deep in compiled code, where a handler of Python's would wait.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

from scmdm_jax.errors import Stopped

INTERRUPTED = 128 + signal.SIGINT  # The exit code.

_PATIENCE = 30  # Seconds that an interrupted program may take to tidy up.

_asked = threading.Event()
_told = threading.Event()  # Whether the line of an interrupt was printed.


def requested() -> bool:
  """Whether this process was sent SIGTERM while it was listening."""
  return _asked.is_set()


@contextlib.contextmanager
def listening() -> Iterator[None]:
  """SIGTERM sets the flag inside the block; outside it has its usual effect.

  To be used in the main thread, around work that asks `requested` now and then.
  """
  _asked.clear()
  _unwind_on_interrupt()
  receiver, sender = os.pipe()
  os.set_blocking(sender, False)
  # The interpreter writes a signal's number there the moment it arrives.
  other = signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
  handler = signal.signal(signal.SIGTERM, lambda number, frame: None)
  thread = threading.Thread(target=_wait, args=(receiver,), daemon=True)
  thread.start()
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, handler)
    signal.set_wakeup_fd(other)
    os.close(sender)  # Ends the thread.
    thread.join()
    os.close(receiver)


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
  """SIGTERM unwinds the block as Ctrl-C does, so that it tidies up; main thread only.

  Raises:
    Stopped: that happened.
  """
  arrived = []
  _unwind_on_interrupt()

  def interrupt(number: int, frame: object) -> None:
    arrived.append(number)
    raise KeyboardInterrupt

  handler = signal.signal(signal.SIGTERM, interrupt)
  try:
    yield
  except KeyboardInterrupt:
    if not arrived:
      raise
    raise Stopped(
      'stopped by SIGTERM; nothing was left behind, the same command starts over'
    ) from None
  finally:
    signal.signal(signal.SIGTERM, handler)


def say_interrupted() -> None:
  """Prints what an interrupted program says, once."""
  if not _told.is_set():
    _told.set()
    os.write(2, b'error: interrupted; the same command resumes\n')


def interrupted() -> bool:
  """Returns whether an interrupt was answered with its line."""
  return _told.is_set()


def end_on_interrupt() -> None:
  """SIGINT ends the program at once from now on, with its line."""
  signal.signal(signal.SIGINT, _end_interrupted)


def _unwind_on_interrupt() -> None:
  """The next SIGINT raises KeyboardInterrupt, where one would end the program at once.

  Not before there is something to tidy up: raised in the import of a library in C++, it
  can crash the process. Its line is printed at once and is the last one: whatever
  libraries say of being torn out of their work is left out. Whichever follows ends the
  program at once, and so does a timer, should the exception be swallowed.
  """
  if signal.getsignal(signal.SIGINT) is not _end_interrupted or interrupted():
    return

  def unwind(number: int, frame: object) -> None:
    end_on_interrupt()
    say_interrupted()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    signal.signal(signal.SIGALRM, _end_interrupted)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
    raise KeyboardInterrupt

  signal.signal(signal.SIGINT, unwind)


def ignore_interrupts() -> None:
  """Neither SIGINT nor SIGTERM disturbs a program that has come to its end."""
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)


def _end_interrupted(number: int, frame: object) -> None:
  say_interrupted()
  os._exit(INTERRUPTED)


def _wait(receiver: int) -> None:
  interrupts = 0
  while numbers := os.read(receiver, 64):
    for number in numbers:
      if number == signal.SIGINT:
        # The second one may find the main thread deep in compiled code.
        interrupts += 1
        if interrupts > 1 and signal.getsignal(signal.SIGINT) is _end_interrupted:
          _end_interrupted(number, None)
      if number != signal.SIGTERM:
        continue
      if _asked.is_set():
        os._exit(128 + signal.SIGTERM)
      _asked.set()
      print(
        'SIGTERM: the run stops after this step; a second one ends it at once',
        file=sys.stderr,
        flush=True,
      )
