"""What is read off a compiled program, on programs made for it."""

import jax
import jax.numpy as jnp
import pytest

from scmdm_jax.parallel.compiled import compile_and_measure

STATE = {'count': jnp.int32(0), 'weights': jnp.zeros((3, 4))}


def step(state, x):
  return {'count': state['count'] + 1, 'weights': state['weights'] + x}, x.sum()


def widened(state, x):
  return {**state, 'count': state['count'] + 0.5}, x.sum()


def turned(state, x):
  return {**state, 'weights': state['weights'].T + x.T}, x.sum()


def moved(state, x):
  return x.sum(), state


def lost(state, x):
  return {'count': state['count']}


@pytest.mark.filterwarnings('ignore:Some donated buffers were not usable')
@pytest.mark.parametrize(
  ('program', 'wanted'),
  [(step, True), (widened, False), (turned, False), (moved, False), (lost, False)],
)
def test_a_state_that_comes_back_otherwise_is_told(program, wanted):
  x = jnp.zeros((3, 4))
  lowered = jax.jit(program, donate_argnums=0).lower(STATE, x)
  facts, _ = compile_and_measure(lowered)
  assert facts is not None
  assert facts.steady is wanted


def test_nothing_is_said_where_nothing_is_kept():
  facts, _ = compile_and_measure(jax.jit(step).lower(STATE, jnp.zeros((3, 4))))
  assert facts is not None
  assert facts.steady is None


class Unplaced:
  """A lowered program whose compiler ends with a message."""

  def __init__(self, message):
    self.message = message

  def compile(self):
    raise jax.errors.JaxRuntimeError(self.message)


@pytest.mark.parametrize(
  ('message', 'wanted'),
  [
    # libtpu 0.0.42.
    (
      'Ran out of memory on HBM, the total memory required for HLO temporaries '
      '(64.50G) exceeds available HBM (15.75G).',
      64.5 * 2**30,
    ),
    (
      'XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used '
      '22.02G of 15.75G hbm. Exceeded hbm capacity by 6.27G.',
      22.02 * 2**30,
    ),
  ],
)
def test_what_the_compiler_wanted_is_read_where_it_found_no_room(message, wanted):
  lowered = Unplaced(f'RESOURCE_EXHAUSTED: {message}')
  assert compile_and_measure(lowered) == (None, round(wanted))


def test_other_failures_of_the_compiler_stay_what_they_are():
  for message in ('INTERNAL: broken', 'RESOURCE_EXHAUSTED: Used 20M of 16M vmem'):
    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
      compile_and_measure(Unplaced(message))
