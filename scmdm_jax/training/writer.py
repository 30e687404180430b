"""Metrics to JSON lines and TensorBoard, and a progress bar on a terminal."""

import json
import pathlib
import sys
import time
from collections.abc import Iterator

import tqdm
from tensorboardX import SummaryWriter


def read_metrics(path: pathlib.Path) -> list[dict]:
  """The lines of a metrics file; a last line cut short by a kill is left out."""
  return [record for _, record in _lines(path)]


def _lines(path: pathlib.Path) -> Iterator[tuple[int, dict]]:
  """Where each line ends, in bytes, and what it says."""
  end = 0
  for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
    try:
      record = json.loads(line)
    except ValueError:
      return
    if not line.endswith(b'\n'):
      return
    end += len(line)
    yield end, record


class MetricWriter:
  """Writes `metrics.jsonl` and TensorBoard files under `directory`.

  A resumed run drops the lines from its first step on before it writes them again, so a
  step never appears twice.
  """

  def __init__(
    self, directory: pathlib.Path, *, first_step: int, num_steps: int, name: str
  ):
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / 'metrics.jsonl'
    kept = [end for end, record in _lines(path) if record['step'] <= first_step]
    self._file = path.open('a', buffering=1)
    # In one stroke: a kill here must not cost the lines that are to stay.
    self._file.truncate(max(kept, default=0))
    self._tensorboard = SummaryWriter(
      str(directory / 'tensorboard'), purge_step=first_step + 1
    )
    self._started = time.time()
    self._first = first_step
    # On a terminal only: in a log file a bar is noise.
    self._bar = tqdm.tqdm(
      total=num_steps,
      initial=first_step,
      desc=name,
      unit='step',
      disable=not sys.stderr.isatty(),
    )

  def progress(self, step: int, metrics: dict[str, float]) -> None:
    """Moves the bar to `step`."""
    self._bar.update(step - self._bar.n)
    self._bar.set_postfix(loss=f'{metrics["loss"]:.4f}', refresh=False)

  def write(self, step: int, metrics: dict[str, float]) -> None:
    """One line of JSON and one TensorBoard point per metric."""
    rate = (step - self._first) / max(time.time() - self._started, 1e-9)
    record = {'step': step, **metrics, 'steps_per_second': round(rate, 3)}
    self._file.write(json.dumps(record) + '\n')
    for name, value in record.items():
      if name != 'step':
        self._tensorboard.add_scalar(name, value, step)

  def close(self) -> None:
    """Flushes and closes everything."""
    self._bar.close()
    self._file.close()
    self._tensorboard.close()
