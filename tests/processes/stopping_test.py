"""SIGTERM in programs of their own, since the signal is for a whole process."""

import pathlib
import signal
import subprocess
import sys
import time

from scmdm_jax.processes import stopping

ROOT = pathlib.Path(__file__).parents[2]
MESSAGE = 'SIGTERM: the run stops after this step; a second one ends it at once\n'


def start(program):
  process = subprocess.Popen(
    [sys.executable, '-c', 'from scmdm_jax.processes import stopping\n' + program],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'ready\n'
  return process


def test_first_signal_is_a_question_and_the_program_goes_on():
  process = start("""\
import time
with stopping.listening():
  print('ready', flush=True)
  while not stopping.requested():
    time.sleep(0.01)
  print('saved')
""")
  process.terminate()
  out, err = process.communicate(timeout=500)
  assert (process.returncode, out, err) == (0, 'saved\n', MESSAGE)


def test_second_signal_ends_a_program_that_is_deep_in_compiled_code():
  # A handler of Python's would be called when the hash is there, after minutes.
  process = start("""\
import hashlib
with stopping.listening():
  print('ready', flush=True)
  hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)
""")
  process.terminate()
  assert process.stderr.readline() == MESSAGE
  assert process.poll() is None
  process.terminate()
  assert process.communicate(timeout=500) == ('', '')
  assert process.returncode == 128 + signal.SIGTERM


def test_outside_the_block_the_signal_has_its_usual_effect():
  process = start("""\
import time
with stopping.listening():
  pass
print('ready', flush=True)
time.sleep(60)
""")
  process.terminate()
  assert process.communicate(timeout=500) == ('', '')
  assert process.returncode == -signal.SIGTERM


def test_other_signals_are_not_taken_for_it():
  handler = signal.signal(signal.SIGUSR1, lambda number, frame: None)
  try:
    with stopping.listening():
      signal.raise_signal(signal.SIGUSR1)
      time.sleep(0.1)
      assert not stopping.requested()
  finally:
    signal.signal(signal.SIGUSR1, handler)


def test_every_block_starts_anew_and_puts_back_what_was(capfd):
  def mine(number, frame):
    raise AssertionError

  before = signal.signal(signal.SIGTERM, mine)
  try:
    with stopping.listening():
      signal.raise_signal(signal.SIGTERM)
      end = time.monotonic() + 10
      while not stopping.requested() and time.monotonic() < end:
        time.sleep(0.01)
      assert stopping.requested()
    assert signal.getsignal(signal.SIGTERM) is mine
    assert signal.set_wakeup_fd(-1) == -1
    with stopping.listening():
      assert not stopping.requested()
  finally:
    signal.signal(signal.SIGTERM, before)
  assert capfd.readouterr().err == MESSAGE


def test_a_block_without_questions_is_unwound():
  process = start("""\
import signal, time
from scmdm_jax.errors import Stopped
try:
  with stopping.unwinding():
    try:
      print('ready', flush=True)
      time.sleep(60)
    finally:
      print('tidied up', flush=True)
except Stopped as e:
  print(e)
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
""")
  process.terminate()
  out, err = process.communicate(timeout=500)
  assert (process.returncode, err) == (0, '')
  assert out.startswith('tidied up\nstopped by SIGTERM; nothing was left behind')
