"""What binding makes of dtypes, padding, classes and undefined ids."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from scmdm_jax.models import denoiser
from scmdm_jax.models.attention import AttentionMask
from tests.compiling import quick_jit
from tests.models import parameters
from tests.models.tiny import (
  ARCHITECTURES,
  DIM,
  LENGTH,
  MASK,
  SIGMA,
  describe,
  embedding_table,
  in_bfloat16,
  some_probs,
  tokens_with_masks,
)


@pytest.mark.parametrize('injection', ['embedding', 'gate', 'table'])
def test_signal_of_a_bfloat16_table_is_summed_in_float32(injection):
  description = describe('dit', injection)
  params = in_bfloat16(parameters.random_params(description, seed=7))
  probs = some_probs()
  found = quick_jit(lambda p, probs: denoiser.bind(p, description).signal(probs))(
    params, probs
  )
  assert found.dtype == np.float32
  own = params['self_conditioning'].get('table')
  table = embedding_table(params['backbone']) if own is None else own
  table = table.astype(np.float32)
  wanted = probs @ table - (table[MASK] if injection == 'gate' else 0)
  # Probabilities in bfloat16 would be off by 1e-3.
  np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize('arch', list(ARCHITECTURES))
def test_computes_in_the_dtype_of_the_parameters(arch):
  description = describe(arch, 'mlp')
  params = parameters.random_params(description, seed=3)
  x_t, signal = tokens_with_masks(), np.ones((4, LENGTH, DIM), np.float32)

  def outputs(params):
    bound = denoiser.bind(params, description)
    hidden = bound.encode(x_t, signal, SIGMA)
    return hidden, bound.logits(hidden), bound.signal(some_probs())

  def dtypes(params):
    return tuple(leaf.dtype for leaf in jax.eval_shape(outputs, params))

  for cast, wanted in ((lambda p: p, np.float32), (in_bfloat16, ml_dtypes.bfloat16)):
    hidden, logits, given = dtypes(cast(params))
    assert (hidden, logits, given) == (wanted, np.float32, np.float32)
  # New parameters on an old model need not share its dtype.
  mixed = params | {'backbone': in_bfloat16(params['backbone'])}
  assert dtypes(mixed)[0] == ml_dtypes.bfloat16


@pytest.mark.parametrize('arch', list(ARCHITECTURES))
@pytest.mark.slow
def test_padding_changes_nothing_at_real_positions(arch):
  description = describe(arch, 'embedding')
  params = parameters.random_params(description, seed=3)
  lengths = np.int32([LENGTH, 5, 3, 1])
  real = np.arange(LENGTH)[None] < lengths[:, None]
  signal = np.random.default_rng(4).standard_normal((4, LENGTH, DIM))
  x_t, signal = tokens_with_masks(), signal.astype(np.float32)

  def logits(x_t, signal, lengths):
    bound = denoiser.bind(params, description)
    mask = AttentionMask(lengths=lengths)
    return bound.logits(bound.encode(x_t, signal, SIGMA, mask))

  compiled = quick_jit(logits)
  found = np.asarray(compiled(x_t, signal, lengths))
  assert np.all(np.isfinite(found))
  # Whatever lies in the padding, masks and signals too.
  for token in (0, MASK):
    other = np.where(real, x_t, token).astype(np.int32)
    noisy = np.where(real[..., None], signal, 1e3).astype(np.float32)
    again = np.asarray(compiled(other, noisy, lengths))
    assert np.array_equal(again[real], found[real])
  # It is the same as not being there: the third example is three tokens long.
  short = np.asarray(compiled(x_t[:, :3], signal[:, :3], lengths))
  np.testing.assert_allclose(found[2, :3], short[2], atol=1e-4)
  # And it is seen when it is called real, by those who see behind them.
  everyone = np.asarray(compiled(x_t, noisy, np.full_like(lengths, LENGTH)))
  causal = arch == 'gpt2'
  assert (np.abs(everyone - found)[real].max() > 0.01) == (not causal)


def test_classes_of_a_batch():
  description = describe('udlm', 'none')
  params = parameters.random_params(description, seed=3)
  x_t, null = tokens_with_masks(), np.zeros((4, LENGTH, DIM), np.float32)

  @quick_jit
  def logits(classes):
    bound = denoiser.bind(params, description, classes)
    return bound.logits(bound.encode(x_t, null, SIGMA))

  found = np.asarray(logits(np.int32([0, 1, 2, 2])))
  none = np.asarray(logits(None))
  assert np.array_equal(found[2:], none[2:])
  assert np.all(np.abs(found - none).max((1, 2))[:2] > 0.01)
  plain = describe('dit', 'none')
  with pytest.raises(ValueError, match='classes are given, but the model has none'):
    denoiser.bind(parameters.random_params(plain), plain, np.zeros(4, np.int32))


@pytest.mark.parametrize('arch', ['dit', 'tied'])
def test_undefined_ids_are_banned(arch):
  plain = describe(arch, 'none')
  params = parameters.random_params(plain, seed=3)
  holes = dataclasses.replace(plain, undefined_ids=((0, 1), (6, 8)))
  hidden = np.random.default_rng(0).standard_normal((2, 3, DIM)).astype(np.float32)
  wanted = np.asarray(denoiser.bind(params, plain).logits(hidden)).copy()
  found = np.asarray(denoiser.bind(params, holes).logits(hidden))
  wanted[..., [0, 6, 7]] = -1e30
  assert np.array_equal(found, wanted)
  probs = np.asarray(jax.nn.softmax(found, axis=-1))
  assert np.all(probs[..., [0, 6, 7]] == 0)


@pytest.mark.parametrize('injection', ['gate', 'table'])
@pytest.mark.parametrize('arch', list(ARCHITECTURES))
@pytest.mark.slow
def test_a_vocabulary_that_is_filled_up_reads_the_same(arch, injection, monkeypatch):
  description = describe(arch, injection)
  vocab = description.architecture.vocab_size
  params = parameters.random_params(description, seed=3)
  rng = np.random.default_rng(5)
  hidden = jnp.asarray(rng.standard_normal((4, LENGTH, DIM), np.float32))
  probs = jnp.asarray(some_probs())

  def outputs(params):
    bound = denoiser.bind(params, description)
    scores, given = bound.logits(hidden), bound.signal(probs)
    return jnp.tanh(scores).sum() + given.sum(), (scores, given)

  def found():
    return quick_jit(jax.value_and_grad(outputs, has_aux=True))(params)

  plain = found()
  monkeypatch.setattr(denoiser, '_columns', lambda *_: vocab + 3)
  # The same products, but for zeros among them.
  for a, b in zip(*map(jax.tree.leaves, (found(), plain)), strict=True):
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)
