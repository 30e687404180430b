"""Who is named when a run stands still, by a clock and signs of life made up."""

import itertools
import threading

import pytest

from scmdm_jax.processes import watch

_LIMIT = 30


class Run:
  """Processes that take a step every `step` seconds until each comes to its last one.

  Stands for `time`, whose clock goes on where somebody sleeps, and for JAX's client.
  """

  def __init__(self, step, last, phases):
    self.now = 0.0
    self.step, self.last, self.phases = step, last, phases
    self.problem = ''

  def monotonic(self):
    return self.now

  def sleep(self, seconds):
    self.now += seconds

  def key_value_set(self, key, value, allow_overwrite):
    assert allow_overwrite
    if key == 'scmdm/problem/it':
      self.problem = value

  def key_value_dir_get(self, directory):
    if directory == 'scmdm/problem/':
      return [('scmdm/problem/it', self.problem)] if self.problem else []
    signs = []
    for process, (last, phase) in enumerate(zip(self.last, self.phases, strict=True)):
      at = (self.now - phase) // 1 + phase  # Of its last sign, one a second.
      turn = max(min(int(at / self.step), last), 0)
      signs.append((f'{directory}{process}', f'{at} {turn}'))
    return signs


def named(monkeypatch, run):
  """What process 0 says in the end."""
  said, leaving = [], threading.Event()

  def end(problem):
    said.append(problem)
    leaving.set()

  for name, value in {
    'time': run,
    '_end': end,
    '_leaving': leaving,
    '_STUCK': _LIMIT,
  }.items():
    monkeypatch.setattr(watch, name, value)
  watch._watch_all(run, 0, len(run.last), 100)
  return said


PHASES = list(itertools.product((0.05, 0.35, 0.65, 0.95), repeat=2))


@pytest.mark.parametrize('step', [0.1, 0.5, 3.0])
def test_whoever_waits_for_a_process_that_hangs_is_not_named(monkeypatch, step):
  for phases, last in itertools.product(PHASES, range(20, 30)):
    # Process 0 is one step further, and waits there for process 1.
    run = Run(step, (last + 1, last), phases)
    assert named(monkeypatch, run) == [f'process 1: no step for {_LIMIT} s']
    assert run.now < last * step + _LIMIT + 10


def test_those_that_hang_at_the_same_step_are_all_named(monkeypatch):
  for phases, last in itertools.product(PHASES, range(20, 30)):
    run = Run(0.1, (last, last), phases)
    assert named(monkeypatch, run) == [f'process 0, 1: no step for {_LIMIT} s']


def test_others_may_go_on(monkeypatch):
  run = Run(0.5, (10**9, 10), (0.05, 0.35))
  assert named(monkeypatch, run) == [f'process 1: no step for {_LIMIT} s']


class Ahead(Run):
  """A run whose process 0 is at its last step from the beginning."""

  def key_value_dir_get(self, directory):
    found = super().key_value_dir_get(directory)
    if directory == 'scmdm/problem/':
      return found
    return [(found[0][0], f'{self.now} {self.last[0]}'), *found[1:]]


def test_whoever_waits_for_a_slow_process_may_wait(monkeypatch):
  run = Ahead(20.0, (200, 12), (0.05, 0.35))
  assert named(monkeypatch, run) == [f'process 1: no step for {_LIMIT} s']
  assert run.now > 12 * 20
