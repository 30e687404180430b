"""Processes of one run that do not all come, or are not all of the same code."""

import shutil
import socket
import time

import pytest

from scmdm_jax.errors import BadInput, PeerLost
from scmdm_jax.processes import rendezvous
from tests import tiny_run
from tests.faults import starting


def free_port():
  with socket.create_server(('127.0.0.1', 0)) as server:
    return server.getsockname()[1]


def in_threads(*calls):
  """What each call raised, or None, all at the same time."""
  from concurrent.futures import ThreadPoolExecutor

  with ThreadPoolExecutor(len(calls)) as pool:
    return [future.exception() for future in [pool.submit(*call) for call in calls]]


def test_all_come():
  port = free_port()
  come = [(rendezvous.come, '127.0.0.1', port, n, 30) for n in (1, 2)]
  gather = (rendezvous.gather, '127.0.0.1', port, 3, 30)
  assert in_threads(*come, gather) == [None] * 3
  assert in_threads(gather, *come) == [None] * 3  # And the port is free again.


def test_the_missing_are_named_to_those_who_came():
  port = free_port()
  found = in_threads(
    (rendezvous.gather, '127.0.0.1', port, 4, 2),
    (rendezvous.come, '127.0.0.1', port, 2, 30),
  )
  assert [type(e) for e in found] == [PeerLost] * 2
  message = 'process 1, 3: did not join within 2 s; look at its log'
  assert [str(e) for e in found] == [message] * 2


def test_the_same_number_twice():
  port = free_port()
  found = in_threads(
    (rendezvous.gather, '127.0.0.1', port, 3, 30),
    (rendezvous.come, '127.0.0.1', port, 1, 30),
    (rendezvous.come, '127.0.0.1', port, 1, 30),
  )
  assert {type(e) for e in found} == {BadInput}
  assert 'process 1: started twice' in str(found[0])


def test_visitors_that_are_none_of_us():
  port = free_port()

  def noise():
    for data in (b'', b'GET / HTTP/1.1\r\n\r\n', b'scmdm 99\n', b'\x00' * 9000):
      with socket.create_connection(('127.0.0.1', port)) as connection:
        connection.sendall(data)
    rendezvous.come('127.0.0.1', port, 1, 30)

  assert in_threads((rendezvous.gather, '127.0.0.1', port, 2, 30), (noise,)) == [
    None,
    None,
  ]


@pytest.mark.long
@pytest.mark.parametrize('present', [0, 1])
def test_a_peer_that_never_joins(tmp_path, start, fault, present):
  config = tiny_run.write_config(tmp_path)
  place = {
    'SCMDM_COORDINATOR': f'127.0.0.1:{free_port()}',
    'SCMDM_NUM_PROCESSES': '2',
    'SCMDM_JOIN_TIMEOUT': '5',
  }
  options = [f'--config={config}', f'--workdir={tmp_path / "run"}']
  began = time.monotonic()
  ours = start(*options, **place, SCMDM_PROCESS_ID=str(present))
  # The other one refuses its configuration before it joins.
  other = start(
    *options, '--config.seed=-1', **place, SCMDM_PROCESS_ID=str(1 - present)
  )
  assert other.communicate(timeout=500)[1].startswith('error: seed: found -1')
  out, err = ours.communicate(timeout=500)
  assert (ours.returncode, out, err.count('\n')) == (4, '', 1), err
  assert err.startswith(f'error: process {1 - present}: ')
  fault(
    f'Process {1 - present} of two never joins',
    1,
    'exit 4 and its number, within SCMDM_JOIN_TIMEOUT = 5 s',
    f'exit 4 after {time.monotonic() - began:.0f} s, start included',
  )


@pytest.mark.long
def test_processes_of_different_code(tmp_path, start, fault):
  config = tiny_run.write_config(tmp_path)
  other = tmp_path / 'other'
  shutil.copytree(
    starting.ROOT / 'scmdm_jax', other / 'scmdm_jax', ignore=lambda *_: ['assets']
  )
  errors = other / 'scmdm_jax' / 'errors.py'
  errors.write_text(errors.read_text() + '# Changed.\n')
  place = {
    'SCMDM_COORDINATOR': f'127.0.0.1:{free_port()}',
    'SCMDM_NUM_PROCESSES': '2',
  }
  options = [f'--config={config}', f'--workdir={tmp_path / "run"}']
  processes = [
    start(*options, **place, SCMDM_PROCESS_ID='0'),
    start(*options, **place, SCMDM_PROCESS_ID='1', PYTHONPATH=str(other)),
  ]
  for process in processes:
    out, err = process.communicate(timeout=500)
    assert (process.returncode, out, err.count('\n')) == (2, '', 1), err
    assert err.startswith('error: digest of the code: process 0 was started with ')
  fault('Two processes of different code', 1, 'both exit 2, named', 'as expected')
