"""launch/local_multiprocess.sh with small programs in place of ours."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.launch.fakes import ROOT

SCRIPT = ROOT / 'launch' / 'local_multiprocess.sh'

# What the processes do, by number; `ready` tells that the handlers stand.
WAITS = """\
import os, signal, sys, time
me = int(os.environ['SCMDM_PROCESS_ID'])
def leave(number, frame):
  print('got', number, flush=True)
  sys.exit(75)
signal.signal(signal.SIGTERM, leave)
signal.signal(signal.SIGINT, leave)
print('ready', flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def heard():
  """Ctrl-C reaches what is started here, even if the tests run in the background.

  A shell there starts its commands with SIGINT ignored, for good.
  """
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


def start(count, *command, **variables):
  return subprocess.Popen(
    [SCRIPT, str(count), *command],
    env={**os.environ, **variables},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def python(count, program, *arguments, **variables):
  return start(count, sys.executable, '-c', program, *arguments, **variables)


def finish(process):
  out, err = process.communicate(timeout=60)
  return process.returncode, out, err


def test_every_process_knows_its_place():
  show = """\
import os
names = ("COORDINATOR", "NUM_PROCESSES", "PROCESS_ID")
print(*(os.environ["SCMDM_" + name] for name in names))
"""
  code, out, err = finish(python(3, show))
  assert (code, err) == (0, '')
  lines = sorted(out.splitlines())
  address = lines[0].split()[1]
  host, port = address.split(':')
  assert host == '127.0.0.1'
  assert 1024 <= int(port) < 65536
  assert lines == [f'[{i}] {address} 3 {i}' for i in range(3)]


def test_words_arrive_as_they_were_given():
  words = ['a b', '', '*', "it's", '"', '$(touch x)', '\\', 'é', '-n']
  show = 'import sys; print(sys.argv[1:])'
  code, out, err = finish(python(1, show, *words))
  assert (code, out, err) == (0, f'[0] {words}\n', '')


def test_lines_are_numbered_and_streams_stay_apart():
  write = """\
import sys
sys.stdout.write('one\\n\\n  two\\\\n\\nno end')
sys.stderr.write('error\\n')
"""
  code, out, err = finish(python(1, write))
  assert (code, err) == (0, '[0] error\n')
  assert out == '[0] one\n[0] \n[0]   two\\n\n[0] no end\n'


def test_no_line_is_lost_or_broken():
  write = 'for i in range(2000): print(i, "x" * 200)'
  code, out, _ = finish(python(3, write))
  assert code == 0
  lines = out.splitlines()
  for number in range(3):
    mine = [line for line in lines if line.startswith(f'[{number}] ')]
    assert mine == [f'[{number}] {i} {"x" * 200}' for i in range(2000)]


def test_one_failing_ends_all_and_gives_its_exit_code():
  program = """\
import os, sys, time
if os.environ['SCMDM_PROCESS_ID'] == '1':
  sys.exit(7)
time.sleep(60)
"""
  began = time.monotonic()
  code, out, err = finish(python(3, program))
  assert (code, out) == (7, '')
  assert 'process 1 ended with exit code 7; ending the others' in err
  assert time.monotonic() - began < 30


def test_one_that_does_not_leave_is_killed():
  program = """\
import os, signal, sys, time
if os.environ['SCMDM_PROCESS_ID'] == '1':
  time.sleep(2)
  sys.exit(3)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(60)
"""
  code, _, _ = finish(python(2, program, SCMDM_KILL_AFTER='1'))
  assert code == 3


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on(number):
  process = python(2, WAITS)
  ready = {process.stdout.readline(), process.stdout.readline()}
  assert ready == {'[0] ready\n', '[1] ready\n'}
  process.send_signal(number)
  code, out, err = finish(process)
  assert code == 75
  assert sorted(out.splitlines()) == [f'[{i}] got {int(number)}' for i in range(2)]
  assert 'ending the others' not in err


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_processes_are_started_reaches_those_that_run(number):
  # As soon as it runs: a Python takes so long that the next one is known by then.
  at_once = 'trap "echo got; exit 75" INT TERM; echo ready; sleep 60 & wait'
  for _ in range(8):
    process = start(20, 'sh', '-c', at_once)
    ready = process.stdout.readline()
    process.send_signal(number)
    code, out, _ = finish(process)
    assert code  # 75, or that of a process which had no trap yet.
    assert ready.replace('ready', 'got') in out
    assert out.count('ready') < 19  # No more were started.


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_run_of_which_a_part_was_started_is_no_success(number):
  process = start(90, 'sh', '-c', 'echo ran')
  assert process.stdout.readline().endswith('ran\n')
  process.send_signal(number)
  code, _, err = finish(process)
  # One that is there already may end by the signal, with the same code.
  assert code == 128 + number
  assert re.search(rf'{number.name} after \d+ of 90 processes were started', err)


def test_saved_on_a_signal_is_no_failure_and_waits_for_the_others():
  program = """\
import os, sys, time
if os.environ['SCMDM_PROCESS_ID'] == '0':
  sys.exit(75)
time.sleep(1)
print('saved', flush=True)
sys.exit(75)
"""
  assert finish(python(2, program)) == (75, '[1] saved\n', '')


def test_what_a_process_leaves_behind_is_ended():
  program = """\
import subprocess, sys
subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
"""
  began = time.monotonic()
  assert finish(python(1, program)) == (0, '', '')
  assert time.monotonic() - began < 30


def test_unknown_program_is_told():
  code, out, err = finish(start(2, 'no-such-program'))
  assert (code, out) == (127, '')
  assert 'no-such-program' in err


@pytest.mark.parametrize('count', ['0', '-1', 'two', '1x', ''])
def test_wrong_number_of_processes_is_one_line(count):
  code, out, err = finish(start(count, 'true'))
  assert (code, out, err.count('\n')) == (2, '', 1)
  assert 'give a number of processes from 1 to 99 and a command' in err
