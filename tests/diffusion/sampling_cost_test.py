"""What a sample costs: evaluations, memory carried along, compilations, keys."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from scmdm_jax.diffusion import sampling
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from tests.compiling import quick_jit, split_key
from tests.diffusion import toys

WEIGHTS = toys.weights(0)
ALL_MASKED = jnp.full((6, toys.LENGTH), toys.MASK, jnp.int32)


def keys_of(seed, batch):
  return split_key(jax.random.key(seed), batch)


@pytest.mark.parametrize('self_conditioning', [True, False])
def test_executes_one_evaluation_per_step(self_conditioning):
  calls = []
  network = toys.network(
    WEIGHTS, lambda *_: io_callback(lambda: calls.append(1), None, ordered=True)
  )

  @quick_jit
  def run(keys):
    return sampling.sample(
      keys,
      network,
      ALL_MASKED,
      sampling.Sampler(9, self_conditioning=self_conditioning),
      mask_id=toys.MASK,
    )

  found = run(keys_of(8, 6))
  jax.effects_barrier()
  assert len(calls) == found.evaluations == 9


def test_the_carry_holds_nothing_of_the_size_of_the_vocabulary():
  # Sizes that no other dimension shares.
  batch, length, vocab, dim, steps = 3, 5, 23, 8, 4
  arch = DiTConfig(
    vocab_size=vocab, length=7, hidden_dim=dim, num_blocks=1, num_heads=2, cond_dim=4
  )
  description = ModelDescription(arch, mask_id=22, tokenizer='', injection='table')
  params = denoiser.abstract_params(description)

  def run(keys, params):
    return sampling.sample(
      keys,
      denoiser.bind(params, description),
      jnp.full((batch, length), 22, jnp.int32),
      sampling.Sampler(steps),
      keep_trajectory=True,
      mask_id=22,
    )

  jaxpr = jax.make_jaxpr(run)(keys_of(0, batch), params)
  (loop,) = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == 'scan']
  # The last carry, of the same types as the first, and the trajectory.
  assert sorted((v.aval.shape, str(v.aval.dtype)) for v in loop.outvars) == [
    ((), 'int32'),
    ((batch,), 'int32'),
    ((batch, length), 'float32'),
    ((batch, length), 'int32'),
    ((batch, length, dim), 'float32'),
    ((steps, batch, length), 'int32'),
  ]


def test_one_compilation():
  chex.clear_trace_counter()

  @quick_jit
  @chex.assert_max_traces(n=1)
  def run(keys, x_init, temperature):
    return sampling.sample(
      keys,
      toys.network(WEIGHTS),
      x_init,
      sampling.Sampler(3),
      mask_id=toys.MASK,
      temperature=temperature,
    ).tokens

  one = run(keys_of(12, 6), ALL_MASKED, 1.0)
  other = run(keys_of(13, 6), ALL_MASKED, 0.5)
  run(keys_of(13, 6), jnp.asarray(toys.clean_tokens(0, 6)), 0.0)
  assert not np.array_equal(one, other)


def test_the_network_body_is_traced_once_whatever_the_steps():
  def traces(num_steps):
    calls = []
    network = toys.network(WEIGHTS, lambda *_: calls.append(1))
    jax.eval_shape(
      lambda keys: sampling.sample(
        keys,
        network,
        ALL_MASKED,
        sampling.Sampler(num_steps),
        mask_id=toys.MASK,
      ),
      keys_of(0, 6),
    )
    return len(calls)

  assert traces(2) == traces(50)


def test_no_key_is_used_twice():
  def run(keys):
    return sampling.sample(
      keys,
      toys.network(WEIGHTS),
      ALL_MASKED,
      sampling.Sampler(3, top_p=0.9),
      mask_id=toys.MASK,
    ).tokens

  def careless(key):
    return jax.random.uniform(key) + jax.random.normal(key)

  with jax.debug_key_reuse(True):
    quick_jit(run)(keys_of(14, 6))
    with pytest.raises(jax.errors.KeyReuseError):
      quick_jit(careless)(jax.random.key(0))
