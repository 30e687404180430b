import json

import pytest
from tensorboardX.proto import event_pb2

from scmdm_jax.training import writer as writer_lib
from scmdm_jax.training.writer import MetricWriter, read_metrics

METRICS = {'loss': 2.0, 'grad_norm': 0.5}


def open_writer(directory, first_step=0):
  writer = MetricWriter(directory, num_steps=10, name='tiny')
  writer.begin(first_step)
  return writer


def write(directory, steps, first_step=0):
  writer = open_writer(directory, first_step)
  for step in steps:
    writer.progress(step, METRICS)
    writer.write(step, METRICS | {'loss': float(step)})
  writer.close()


def steps_in(directory):
  return [line['step'] for line in read_metrics(directory / 'metrics.jsonl')]


def test_one_json_object_a_line(tmp_path):
  write(tmp_path, [1, 2])
  text = (tmp_path / 'metrics.jsonl').read_text()
  assert text.endswith('\n')
  records = [json.loads(line) for line in text.splitlines()]
  assert [(r['step'], r['loss'], r['grad_norm']) for r in records] == [
    (1, 1.0, 0.5),
    (2, 2.0, 0.5),
  ]
  assert all(r['steps_per_second'] > 0 for r in records)
  assert records == read_metrics(tmp_path / 'metrics.jsonl')


def test_a_line_is_on_disk_as_soon_as_it_is_written(tmp_path):
  writer = open_writer(tmp_path)
  writer.write(1, METRICS)
  assert steps_in(tmp_path) == [1]
  writer.close()


def test_no_file_reads_as_no_lines(tmp_path):
  assert read_metrics(tmp_path / 'metrics.jsonl') == []


@pytest.mark.parametrize('cut', [1, 2, 10, -1])
def test_a_last_line_cut_short_is_ignored_and_overwritten(tmp_path, cut):
  write(tmp_path, [1, 2, 3])
  path = tmp_path / 'metrics.jsonl'
  whole = path.read_bytes()
  last = whole.splitlines(keepends=True)[-1]
  # Also a line that lacks nothing but its end (-1): more could follow.
  path.write_bytes(whole[: -len(last)] + last[:cut])
  assert steps_in(tmp_path) == [1, 2]
  write(tmp_path, [3, 4], first_step=2)
  assert steps_in(tmp_path) == [1, 2, 3, 4]
  assert len(path.read_text().splitlines()) == 4


@pytest.mark.parametrize('first_step', [0, 2, 3, 4, 9])
def test_resume_drops_the_lines_it_will_write_again(tmp_path, first_step):
  write(tmp_path, [2, 4, 6])
  before = (tmp_path / 'metrics.jsonl').read_bytes().splitlines()
  open_writer(tmp_path, first_step).close()
  after = (tmp_path / 'metrics.jsonl').read_bytes().splitlines()
  assert after == [
    x for x, step in zip(before, (2, 4, 6), strict=True) if step <= first_step
  ]


@pytest.mark.parametrize(
  'damage',
  [b'{"step": 3, "lo\n', b'[1, 2]\n', b'7\n', b'null\n', b'{"step": "3"}\n', b'\xff\n'],
)
def test_a_damaged_line_costs_no_other(tmp_path, caplog, damage):
  write(tmp_path, range(1, 31))
  path = tmp_path / 'metrics.jsonl'
  lines = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(b''.join([*lines[:4], damage, *lines[5:]]))
  assert steps_in(tmp_path) == [*range(1, 5), *range(6, 31)]
  write(tmp_path, range(27, 31), first_step=26)
  sound = [line for n, line in enumerate(lines[:26]) if n != 4]
  assert path.read_bytes().splitlines(keepends=True)[:25] == sound
  assert steps_in(tmp_path) == [*range(1, 5), *range(6, 31)]
  assert 'dropped 1 damaged lines' in caplog.text


def events_in(directory):
  """Step, tag and value of every point of the TensorBoard files, in order."""
  points = []
  for path in sorted((directory / 'tensorboard').iterdir()):
    data = path.read_bytes()
    while data:
      # A TFRecord: length (8 bytes), its checksum (4), the event, its checksum (4).
      size = int.from_bytes(data[:8], 'little')
      event = event_pb2.Event.FromString(data[12 : 12 + size])
      data = data[16 + size :]
      points += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
  return points


def test_tensorboard_file_holds_the_same_numbers(tmp_path):
  write(tmp_path, [1, 2])
  points = {(step, tag): value for step, tag, value in events_in(tmp_path)}
  for record in read_metrics(tmp_path / 'metrics.jsonl'):
    for name in ('loss', 'grad_norm', 'steps_per_second'):
      assert points[record['step'], name] == pytest.approx(record[name])
  assert len(points) == 6


class Terminal:
  def __init__(self, is_terminal):
    self.is_terminal, self.text = is_terminal, ''

  def isatty(self):
    return self.is_terminal

  def write(self, text):
    self.text += text

  def flush(self):
    pass


@pytest.mark.parametrize('is_terminal', [True, False])
def test_progress_bar_on_a_terminal_only(tmp_path, monkeypatch, is_terminal):
  stream = Terminal(is_terminal)
  monkeypatch.setattr(writer_lib.sys, 'stderr', stream)
  write(tmp_path, [5, 6, 10], first_step=4)
  if not is_terminal:
    assert stream.text == ''
    return
  assert 'tiny: ' in stream.text
  assert '4/10' in stream.text
  assert '10/10' in stream.text
  assert 'loss=2.0000' in stream.text
