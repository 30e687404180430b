"""A toy network that writes down what every evaluation is shown."""

from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import io_callback

from tests.diffusion import toys


class Seen(NamedTuple):
  """One evaluation's inputs."""

  x_t: np.ndarray
  signal: np.ndarray
  sigma: np.ndarray


def network(weights, seen):
  """The toy of these weights; appends a `Seen` to the list with every evaluation."""

  def record(*inputs):
    seen.append(Seen(*map(np.array, inputs)))

  return toys.network(
    weights, lambda *inputs: io_callback(record, None, *inputs, ordered=True)
  )


def run(function, seen, *arguments):
  """Calls a compiled `function`; its result, with all evaluations written down."""
  seen.clear()
  result = function(*arguments)
  jax.block_until_ready(result)
  jax.effects_barrier()
  return result


def prediction(weights, seen):
  """Probabilities [B, L, V] and signal [B, L, D] of that evaluation, with NumPy."""
  plain = toys.network_np(weights)
  logits = plain.logits(plain.encode(*seen))
  probs = toys.softmax_np(logits, toys.MASK)
  return probs, plain.signal(probs)
