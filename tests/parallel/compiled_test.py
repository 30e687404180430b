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
