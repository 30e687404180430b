"""Where a process belongs, from its environment alone."""

import socket

import pytest

from scmdm_jax.errors import BadInput, PeerLost
from scmdm_jax.processes import joining

THREE = {
  'SCMDM_COORDINATOR': 'node-0:8476',
  'SCMDM_NUM_PROCESSES': '4',
  'SCMDM_PROCESS_ID': '3',
}
SLURM = {
  'SLURM_JOB_ID': '7',
  'SLURM_STEP_NODELIST': 'node[1-2]',
  'SLURM_NTASKS': '2',
  'SLURM_PROCID': '1',
  'SLURM_LOCALID': '0',
}


@pytest.mark.parametrize(
  'variables',
  [
    {},
    {**THREE, 'SCMDM_NUM_PROCESSES': '1', 'SCMDM_PROCESS_ID': '0'},
    # In a shell of `srun --pty`, and in the script of `sbatch`.
    {**SLURM, 'SLURM_NTASKS': '1'},
    {'SLURM_JOB_ID': '7', 'SLURM_NTASKS': '8', 'SLURM_PROCID': '0'},
    # A TPU machine of one host.
    {'TPU_WORKER_HOSTNAMES': 'localhost', 'TPU_WORKER_ID': '0'},
  ],
)
def test_single_process(variables):
  assert joining.place(variables) is None


def test_three_variables_leave_nothing_to_be_found():
  assert joining.place({**SLURM, **THREE}) == {
    'coordinator_address': 'node-0:8476',
    'num_processes': 4,
    'process_id': 3,
    'cluster_detection_method': 'deactivate',
  }


def test_loopback_is_not_offered_to_the_network():
  how = joining.place({**THREE, 'SCMDM_COORDINATOR': '127.0.0.1:1234'})
  assert how['coordinator_bind_address'] == '127.0.0.1:1234'


def test_clusters_are_left_to_jax():
  assert joining.place(SLURM) == {'cluster_detection_method': 'slurm'}
  assert joining.place({'TPU_WORKER_HOSTNAMES': 'host-0,host-1'}) == {}
  assert joining.place({'SCMDM_COORDINATOR': 'auto'}) == {}


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('SCMDM_COORDINATOR', ''),
    ('SCMDM_COORDINATOR', 'node-0'),
    ('SCMDM_COORDINATOR', 'node 0:1'),
    ('SCMDM_NUM_PROCESSES', ''),
    ('SCMDM_NUM_PROCESSES', '0'),
    ('SCMDM_NUM_PROCESSES', 'x'),
    ('SCMDM_PROCESS_ID', ''),
    ('SCMDM_PROCESS_ID', '4'),
    ('SCMDM_PROCESS_ID', '-1'),
  ],
)
def test_wrong_variable_is_named(name, value):
  with pytest.raises(BadInput, match=f'^{name}: '):
    joining.place({**THREE, name: value})


def test_silence_has_a_limit():
  assert joining.initialize({}) == 100
  assert joining.initialize({'SCMDM_TIMEOUT': '7'}) == 7
  with pytest.raises(BadInput, match=r'^SCMDM_TIMEOUT: found .0.; wanted'):
    joining.initialize({'SCMDM_TIMEOUT': '0'})


@pytest.fixture
def taken():
  """A port that somebody listens to."""
  with socket.create_server(('', 0)) as server:
    yield server.getsockname()[1]


def test_port_that_is_taken_is_named(taken):
  # JAX 0.10 crashes on it (a segmentation fault).
  place = {**THREE, 'SCMDM_COORDINATOR': f'127.0.0.1:{taken}', 'SCMDM_PROCESS_ID': '0'}
  with pytest.raises(BadInput, match=f'port {taken} is not free'):
    joining.initialize(place)


def test_coordinator_that_does_not_answer_is_named(taken):
  with socket.create_server(('', 0)) as server:
    free = server.getsockname()[1]
  place = {**THREE, 'SCMDM_COORDINATOR': f'127.0.0.1:{free}', 'SCMDM_TIMEOUT': '1'}
  with pytest.raises(
    PeerLost, match=f'process 0: not there at 127.0.0.1:{free} within 1'
  ):
    joining.initialize(place)
