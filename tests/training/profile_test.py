import jax.numpy as jnp
import pytest

from scmdm_jax.training.profile import Trace


def traced(monkeypatch, steps):
  """The steps during which JAX was tracing."""
  running, found, folders = [], [], []

  def start(folder):
    assert not running
    running.append(True)
    folders.append(folder)

  monkeypatch.setattr('jax.profiler.start_trace', start)
  monkeypatch.setattr('jax.profiler.stop_trace', running.pop)
  trace = Trace('where', 5, 8)
  for step in steps:
    trace.begin(step)
    found += [step] * len(running)
    trace.end(step, {'loss': jnp.zeros(())})
  trace.close()
  assert not running
  assert folders == ['where'] * bool(found)
  return found


@pytest.mark.parametrize(
  ('steps', 'wanted'),
  [
    (range(1, 21), [5, 6, 7, 8]),
    (range(7, 21), [7, 8]),  # Resumed among them.
    (range(9, 21), []),
    (range(1, 7), [5, 6]),  # Stopped among them.
    (range(1, 4), []),
  ],
)
def test_the_steps_that_were_asked_for_are_traced(monkeypatch, steps, wanted):
  assert traced(monkeypatch, steps) == wanted
