"""How the processes of a run find each other; where each belongs is in its environment.

    SCMDM_COORDINATOR=HOST:PORT, SCMDM_NUM_PROCESSES, SCMDM_PROCESS_ID   as they say
    SCMDM_COORDINATOR=auto                  JAX looks for itself (Cloud TPU hosts)
    SLURM_STEP_NODELIST ... of more than one task; TPU_WORKER_HOSTNAMES of more than one
                                            host (GKE): JAX reads these

None of them: a single process. SCMDM_TIMEOUT is for how many seconds a process may be
silent (default 100), SCMDM_JOIN_TIMEOUT for how many seconds the first waits for all
others to come (default: as SCMDM_TIMEOUT).
"""

import re
from collections.abc import Mapping
from typing import Any

import jax

from scmdm_jax.errors import BadInput, first_line
from scmdm_jax.processes import rendezvous

_EXPLICIT = ('SCMDM_COORDINATOR', 'SCMDM_NUM_PROCESSES', 'SCMDM_PROCESS_ID')


def place(variables: Mapping[str, str]) -> dict[str, Any] | None:
  """Returns the arguments of `jax.distributed.initialize`; None for a single process.

  Raises:
    BadInput: some of the three explicit variables are missing or no numbers.
  """
  given = [name for name in _EXPLICIT if variables.get(name)]
  if variables.get('SCMDM_COORDINATOR') == 'auto':
    return {}
  if given:
    for name in _EXPLICIT:
      if name not in given:
        raise BadInput(f'{name}: not set, but {given[0]} is; wanted all or none')
    return _explicit(*(variables[name] for name in _EXPLICIT))
  if 'SLURM_STEP_NODELIST' in variables and _more(variables.get('SLURM_NTASKS', '')):
    return {'cluster_detection_method': 'slurm'}
  if ',' in variables.get('TPU_WORKER_HOSTNAMES', ''):
    return {}
  return None


def _more(number: str) -> bool:
  return number.isdecimal() and int(number) > 1


def _explicit(address: str, number: str, process: str) -> dict[str, Any] | None:
  if not re.fullmatch(r'\S+:\d+', address):
    raise BadInput(f'SCMDM_COORDINATOR: found {address!r}; wanted HOST:PORT')
  if not number.isdecimal() or int(number) < 1:
    raise BadInput(f'SCMDM_NUM_PROCESSES: found {number!r}; wanted a number above 0')
  if not process.isdecimal() or int(process) >= int(number):
    raise BadInput(
      f'SCMDM_PROCESS_ID: found {process!r}; wanted a number from 0, below '
      f'SCMDM_NUM_PROCESSES = {number}'
    )
  if number == '1':
    return None
  how = {
    'coordinator_address': address,
    'num_processes': int(number),
    'process_id': int(process),
    # Or else SLURM's variables, if there are any, would choose the devices.
    'cluster_detection_method': 'deactivate',
  }
  if address.startswith(('127.0.0.1:', 'localhost:')):
    # By default it would listen to the whole network.
    how['coordinator_bind_address'] = address
  return how


def initialize(variables: Mapping[str, str]) -> int:
  """Joins the processes of the run; before anything else asks JAX for its devices.

  Returns:
    For how many seconds a process may be silent.

  Raises:
    BadInput: the variables are wrong, or the port of the first is taken.
    PeerLost: a process did not come in time; the message names it.
  """
  how = place(variables)
  seconds = _seconds(variables, 'SCMDM_TIMEOUT', '100')
  patience = _seconds(variables, 'SCMDM_JOIN_TIMEOUT', str(seconds))
  if how is None:
    return seconds
  if 'coordinator_address' in how:
    # JAX waits without saying for whom, and ends with the stack of a C++ program.
    host, port = how['coordinator_address'].rsplit(':', 1)
    if how['process_id'] == 0:
      rendezvous.gather(host, int(port), how['num_processes'], patience)
    else:
      rendezvous.come(host, int(port), how['process_id'], patience)
  # It would take SIGTERM away from `stopping`.
  jax.config.update('jax_enable_preemption_service', False)
  try:
    jax.distributed.initialize(
      **how,
      initialization_timeout=patience,
      # `watch` ends the run before and says more; this is for when it cannot.
      heartbeat_timeout_seconds=2 * seconds + 10,
      shutdown_timeout_seconds=600,  # Process 0 writes while others have done.
    )
  except (RuntimeError, ValueError, OSError) as e:
    raise BadInput(
      f'jax.distributed: cannot start ({first_line(e)}); see that all processes of '
      'the run were started and reach each other'
    ) from e
  if re.fullmatch(r'1(\(x\d+\))?', variables.get('SLURM_STEP_TASKS_PER_NODE', '')):
    # JAX gives each SLURM task one GPU; the only one of a node drives them all.
    for kind in ('cuda', 'rocm'):
      jax.config.update(f'jax_{kind}_visible_devices', 'all')
  jax.devices()  # Found by all together: nobody may wait for another before this.
  return seconds


def _seconds(variables: Mapping[str, str], name: str, default: str) -> int:
  text = variables.get(name, default)
  if not text.isdecimal() or int(text) < 1:
    raise BadInput(f'{name}: found {text!r}; wanted whole seconds above 0')
  return int(text)
