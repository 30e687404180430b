"""All processes of a run meet at the first one's port, before JAX begins there.

Each says its number; the first answers when all have come, or else who is missing. One
line each way, over TCP.
"""

import contextlib
import re
import socket
import time

from scmdm_jax.errors import BadInput, PeerLost

_GO = b'go'
_AGAIN = 0.1  # Seconds between two tries to reach the first process.
_MOST = 4096  # Bytes of a line.


def gather(host: str, port: int, count: int, seconds: float) -> None:
  """Waits, as process 0, until all others have come.

  Args:
    host: of this process, as the others name it.
    port: where they come to.
    count: number of all processes.
    seconds: how long to wait.

  Raises:
    BadInput: the port is taken, or two processes have the same number.
    PeerLost: somebody did not come; those who did hear of it.
  """
  loopback = host in ('127.0.0.1', 'localhost')
  try:
    server = socket.create_server((host if loopback else '', port), backlog=count)
  except (OSError, OverflowError) as e:
    raise BadInput(
      f'SCMDM_COORDINATOR: port {port} is not free ({e}); give another to all processes'
    ) from e
  missing, end = set(range(1, count)), time.monotonic() + seconds
  with server, contextlib.ExitStack() as stack:
    visitors: list[socket.socket] = []
    answer = _GO.decode()
    while missing and (left := end - time.monotonic()) > 0:
      server.settimeout(left)
      try:
        visitor = stack.enter_context(server.accept()[0])
        visitor.settimeout(min(left, 5.0))
        process = _process(_line(visitor))
      except OSError:
        continue
      if process is None or process >= count:  # Somebody else's program.
        continue
      visitors.append(visitor)
      if process not in missing:
        answer = f'process {process}: started twice; give each its own number'
        break
      missing.remove(process)
    if missing and answer == _GO.decode():
      names = ', '.join(map(str, sorted(missing)))
      answer = f'process {names}: did not join within {seconds:g} s; look at its log'
    for visitor in visitors:
      with contextlib.suppress(OSError):
        visitor.sendall(answer.encode() + b'\n')
  _raise_unless_go(answer)


def come(host: str, port: int, process: int, seconds: float) -> None:
  """Tells process 0 that this one is there, and waits until all are.

  Args:
    host: of process 0.
    port: where it waits.
    process: number of this one.
    seconds: how long to look for process 0, and then to wait for its answer.

  Raises:
    BadInput: two processes have the same number.
    PeerLost: there is no process 0, or somebody else did not come.
  """
  end = time.monotonic() + seconds
  while True:
    try:
      with socket.create_connection((host, port), timeout=5) as first:
        first.sendall(f'scmdm {process}\n'.encode())
        # The first one gives up earlier than this one, unless it has died.
        first.settimeout(seconds + 10)
        answer = _line(first).decode(errors='replace').strip()
      if answer:
        return _raise_unless_go(answer)
      reason: object = 'no answer'
    except (OSError, OverflowError) as e:
      reason = e
    if time.monotonic() > end:
      raise PeerLost(
        f'process 0: not there at {host}:{port} within {seconds:g} s ({reason}); see '
        'that it runs and can be reached'
      )
    time.sleep(_AGAIN)


def _line(connection: socket.socket) -> bytes:
  data = b''
  while not data.endswith(b'\n') and len(data) < _MOST:
    more = connection.recv(_MOST)
    if not more:
      break
    data += more
  return data


def _process(line: bytes) -> int | None:
  match = re.fullmatch(rb'scmdm (\d{1,9})\n', line)
  return int(match[1]) if match else None


def _raise_unless_go(answer: str) -> None:
  if answer == _GO.decode():
    return
  raise BadInput(answer) if 'started twice' in answer else PeerLost(answer)
