"""Two real processes over the loopback."""

import contextlib
import os
import socket
import subprocess
import sys

import pytest

from scmdm_jax.processes import multihost
from tests.processes import processes

PROGRAM = """\
import os, signal, sys, time
from scmdm_jax.errors import BadInput, DamagedData, PeerLost
from scmdm_jax.processes import multihost, stopping
code = 0
try:
  with stopping.listening(), multihost.joined():
    me = multihost.index()
"""
END = """\
except (BadInput, PeerLost) as e:
  print(f'{type(e).__name__}: {e}', flush=True)
  code = e.exit_code
multihost.end(code)
sys.exit(code)
"""


def run(body, count=2, **variables):
  """Exit code, and the lines of each process, of `body` inside the joined run."""
  lines = ''.join(f'    {line}\n' for line in body.splitlines())
  code, out, err = processes.run(
    count, '-c', PROGRAM + lines + END, **{'SCMDM_KILL_AFTER': '30', **variables}
  )
  said = [
    [line[4:] for line in (out + err).splitlines() if line.startswith(f'[{i}] ')]
    for i in range(count)
  ]
  return code, said


def test_single_process_waits_for_nobody():
  assert (multihost.count(), multihost.index()) == (1, 0)
  multihost.barrier('nowhere')
  multihost.same_everywhere({'a': 1})
  assert multihost.first_does('it', lambda: 5) == 5
  assert not multihost.stop_agreed()
  with multihost.joined({}):
    pass
  with pytest.raises(KeyError), multihost.joined({}):
    raise KeyError  # As it is.


def test_processes_find_each_other_and_agree():
  code, said = run("""\
print(me, multihost.count(), flush=True)
multihost.same_everywhere({'a': 1, 'b': [1, 2]})
print(multihost.first_does('it', lambda: 'done by me'), flush=True)
multihost.barrier('end')
""")
  assert (code, said) == (0, [['0 2', 'done by me'], ['1 2', 'None']])


def free_port():
  """One of those that JAX gives to the jobs of SLURM."""
  for port in range(61440, 65536):
    with contextlib.suppress(OSError), socket.create_server(('127.0.0.1', port)):
      return port
  raise AssertionError('no port is free')


@pytest.mark.slow
def test_tasks_of_slurm_find_each_other():
  """The variables of `srun --nodes=2 --ntasks=2` (slurm.schedmd.com/srun.html)."""
  step = {
    'SLURM_JOB_ID': str(free_port() - 61440),
    'SLURM_STEP_NODELIST': 'localhost',
    'SLURM_STEP_TASKS_PER_NODE': '1(x2)',
    'SLURM_NTASKS': '2',
    'SLURM_LOCALID': '0',
  }
  body = """\
    print(me, multihost.count(), flush=True)
    multihost.same_everywhere({'a': 1})
    multihost.barrier('end')
"""
  tasks = [
    subprocess.Popen(
      [sys.executable, '-c', PROGRAM + body + END],
      cwd=processes.ROOT,
      env=os.environ | step | {'SLURM_PROCID': str(task), 'JAX_PLATFORMS': 'cpu'},
      stdout=subprocess.PIPE,
      text=True,
    )
    for task in range(2)
  ]
  try:
    said = [task.communicate(timeout=500)[0] for task in tasks]
  finally:
    for task in tasks:
      task.kill()
  assert [task.returncode for task in tasks] == [0, 0]
  assert said == ['0 2\n', '1 2\n']


@pytest.mark.slow
def test_late_process_is_named_by_the_barrier():
  code, said = run("""\
if me == 1:
  time.sleep(4)
multihost.barrier('before restoring', 2)
""")
  assert code == 4
  wanted = "PeerLost: barrier 'before restoring': waited 2 s for process 1; look at"
  assert said[0][0].startswith(wanted)


def test_other_options_are_named_in_all_processes():
  code, said = run("""\
multihost.same_everywhere({'a': 1, 'train.num_steps': 5 + me, 'z': me})
print('not here')
""")
  line = (
    'CommonMistake: train.num_steps: process 0 was started with 5, process 1 with 6; '
    'start all processes with the same command'
  )
  assert (code, said) == (2, [[line], [line]])


@pytest.mark.slow
def test_mistake_of_the_first_is_everybodys():
  code, said = run("""\
def do():
  raise DamagedData('file: broken')
multihost.first_does('reading', do)
""")
  assert (code, said) == (3, [['CommonMistake: file: broken']] * 2)


def test_signal_to_one_stops_both_at_the_same_step():
  code, said = run("""\
for step in range(100000):
  if me == 1 and step == 20:
    os.kill(os.getpid(), signal.SIGTERM)
  if multihost.stop_agreed():
    break
print(step, flush=True)
""")
  assert code == 0
  first, second = said
  message = 'SIGTERM: the run stops after this step; a second one ends it at once'
  assert second == [*first, message]
  assert 20 <= int(first[0]) < 100000


@pytest.mark.slow
def test_failure_of_one_ends_the_other_and_is_named():
  code, said = run("""\
if me == 1:
  raise DamagedData('file: broken')
time.sleep(60)
""")
  assert code == 3
  assert said[1] == ['DamagedData: file: broken']
  assert said[0][-1] == (
    'error: process 1 failed: file: broken; the run ends, and the same command '
    'resumes it'
  )


@pytest.mark.slow
@pytest.mark.parametrize('process', [0, 1])
def test_process_that_hangs_is_named_within_the_limit(process):
  # They meet first: while the other still joins, it does not watch yet.
  code, said = run(
    f"""\
multihost.barrier('met')
if me == {process}:
  os.kill(os.getpid(), signal.SIGSTOP)
began = time.monotonic()
time.sleep(60)
""",
    SCMDM_TIMEOUT='4',
    SCMDM_KILL_AFTER='1',
  )
  assert code == 4
  assert said[1 - process][-1] == (
    f'error: process {process}: silent for 4 s; the run ends, and the same command '
    'resumes it'
  )


@pytest.mark.slow
@pytest.mark.parametrize('process', [0, 1])
def test_process_that_lives_but_stands_still_is_named_within_the_limit(process):
  code, said = run(f"""\
multihost.watch._STUCK = 8
for step in range(1000000):
  if me == {process} and step == 5:
    time.sleep(60)
  multihost.stop_agreed()
""")
  assert code == 4
  # Where process 1 stands still, process 0, which waits for nobody, goes on.
  assert said[1 - process][-1] == (
    f'error: process {process}: no step for 8 s; the run ends, and the same command '
    'resumes it'
  )


@pytest.mark.slow
def test_process_that_died_is_named_by_the_one_that_computes_with_it():
  code, said = run("""\
import jax.numpy as jnp
from jax.experimental import multihost_utils
for step in range(100000):
  multihost_utils.process_allgather(jnp.ones(3))
  if me == 1 and step == 3:
    os.kill(os.getpid(), signal.SIGKILL)
""")
  assert code == 128 + 9
  (line,) = [line for line in said[0] if line.startswith('PeerLost')]
  assert line.startswith('PeerLost: process 1 is gone (')
