"""Metrics to JSON lines and TensorBoard, and a progress bar on a terminal."""

import contextlib
import json
import logging
import pathlib
import sys
import time
from collections.abc import Mapping

import tqdm
from tensorboardX import SummaryWriter

from scmdm_jax import files
from scmdm_jax.errors import DamagedData
from scmdm_jax.regular_files import open_regular, read_regular


def read_metrics(path: pathlib.Path) -> list[dict]:
  """Returns the sound lines of a metrics file; damaged ones are left out.

  Raises:
    DamagedData: it is no regular file, or cannot be read.
  """
  return [record for _, record in _lines(path) if record is not None]


def _lines(path: pathlib.Path) -> list[tuple[bytes, dict | None]]:
  """Every line with its record; None for one that is damaged or was cut by a kill."""
  try:
    lines = read_regular(path).splitlines(keepends=True)
  except FileNotFoundError:
    return []
  except OSError as e:
    raise DamagedData(f'{path}: cannot be read ({e.strerror}); move it away') from e
  return [(line, _record(line)) for line in lines]


def _record(line: bytes) -> dict | None:
  try:
    record = json.loads(line)
  except (ValueError, RecursionError):
    return None
  # Of a line without its end more could follow.
  sound = line.endswith(b'\n') and isinstance(record, dict)
  return record if sound and type(record.get('step')) is int else None


def _keep_until(path: pathlib.Path, step: int) -> None:
  """Drops what is damaged or behind `step`; a kill leaves the old lines or the new."""
  lines = _lines(path)
  damaged = sum(record is None and line.endswith(b'\n') for line, record in lines)
  if damaged:
    logging.warning('%s: dropped %d damaged lines', path, damaged)
  kept = [line for line, record in lines if record and record['step'] <= step]
  if len(kept) < len(lines):
    files.write_bytes(path, b''.join(kept))


class MetricWriter:
  """Writes `metrics.jsonl` and TensorBoard files under `directory`.

  A resumed run drops the lines from its first step on before it writes them again, so a
  step never appears twice.
  """

  def __init__(
    self,
    directory: pathlib.Path,
    num_steps: int,
    *,
    name: str,
    per_step: Mapping[str, float] | None = None,
  ):
    """Opens nothing yet.

    Args:
      directory: where the files go.
      num_steps: of the whole run.
      name: of the run, on the bar.
      per_step: by the name of a rate, what a step counts for; see `write`.
    """
    self._directory = directory
    self._num_steps = num_steps
    self._name = name
    self._per_step = {'steps_per_second': 1.0, **(per_step or {})}
    self._heldout: dict[str, str] = {}
    self._open = contextlib.ExitStack()

  def begin(self, first_step: int) -> None:
    """Opens the files, where what was written after `first_step` is dropped.

    Raises:
      DamagedData: `metrics.jsonl` is no regular file, or cannot be read.
    """
    path = self._directory / 'metrics.jsonl'
    self._directory.mkdir(parents=True, exist_ok=True)
    _keep_until(path, first_step)
    self._file = self._open.enter_context(open_regular(path, 'a', buffering=1))
    self._tensorboard = SummaryWriter(
      str(self._directory / 'tensorboard'), purge_step=first_step + 1
    )
    self._open.callback(self._tensorboard.close)
    self._since = first_step, time.time()
    # On a terminal only: in a log file a bar is noise.
    self._bar = tqdm.tqdm(
      total=self._num_steps,
      initial=first_step,
      desc=self._name,
      unit='step',
      disable=not sys.stderr.isatty(),
    )
    self._open.callback(self._bar.close)

  def progress(self, step: int, metrics: dict[str, float]) -> None:
    """Moves the bar to `step`."""
    self._bar.update(step - self._bar.n)
    self._heldout |= {k: f'{v:.4f}' for k, v in metrics.items() if 'heldout' in k}
    loss = f'{metrics["loss"]:.4f}'
    self._bar.set_postfix({'loss': loss, **self._heldout}, refresh=False)

  def write(self, step: int, metrics: dict[str, float]) -> None:
    """One line of JSON and one TensorBoard point per metric.

    Rates are those since the line before: the first one's have compilation in them, and
    those of a line with held-out losses the time that these took.
    """
    (before, then), now = self._since, time.time()
    rate = (step - before) / max(now - then, 1e-9)
    self._since = step, now
    rates = {name: round(rate * x, 3) for name, x in self._per_step.items()}
    record = {'step': step, **metrics, **rates}
    self._file.write(json.dumps(record) + '\n')
    for name, value in record.items():
      if name != 'step':
        self._tensorboard.add_scalar(name, value, step)

  def close(self) -> None:
    """Flushes and closes everything."""
    self._open.close()
