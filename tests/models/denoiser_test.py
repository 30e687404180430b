"""What binding promises for every injection, on every architecture."""

import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.diffusion import readout
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from tests.checkpoints import manifests
from tests.compiling import quick_jit
from tests.models import parameters
from tests.models.tiny import (
  DIM,
  LENGTH,
  MASK,
  SIGMA,
  TABLES,
  VOCAB,
  describe,
  embedding_table,
  in_bfloat16,
  some_probs,
  tokens_with_masks,
)

NAMES = ['embedding', 'mlp', 'table', 'gate']
init_injection = quick_jit(denoiser.init_self_conditioning, static_argnums=1)


# Not `quick_jit`: bit for bit is asked of what the optimizer makes of two programs.
@functools.partial(jax.jit, static_argnums=1)
def logits_of(params, description, x_t, signal):
  """Raw logits [4, L, V]."""
  bound = denoiser.bind(params, description)
  return bound.logits(bound.encode(x_t, signal, SIGMA))


def bits_of(params, description, x_t, signal):
  return np.asarray(logits_of(params, description, x_t, signal)).tobytes()


def base_of(arch):
  """(architecture, description, parameters) without any self-conditioning."""
  description = describe(arch, 'none')
  return arch, description, parameters.random_params(description, seed=2)


@pytest.fixture(scope='module', params=['dit', 'dream'])
def base(request):
  return base_of(request.param)


def with_random_injection(arch, base_params, injection):
  description = describe(arch, injection)
  params = parameters.random_params(description, seed=3)
  return {**params, 'backbone': base_params['backbone']}, description


def signals_at_start(bound, injection):
  """Signals as they reach a fresh model: zero, of usual size, huge."""
  if injection == 'table':
    # Its signal is read from the table itself; predictions of any size leave zero.
    probs = some_probs() * np.float32([0, 1, 1e4, 1e30])[:, None, None]
    return np.asarray(bound.signal(probs))
  signal = np.random.default_rng(4).standard_normal((4, LENGTH, DIM))
  scale = np.float32([0, 1, 1e4, 1e30])[:, None, None]
  return signal.astype(np.float32) * scale


@pytest.mark.slow
@pytest.mark.parametrize(
  ('arch', 'injection'),
  [(arch, name) for arch in ('dit', 'llada', 'dream') for name in NAMES]
  + [(arch, 'embedding') for arch in ('udlm', 'tied', 'gpt2')],
)
def test_identity_at_start_bit_for_bit(arch, injection):
  _, base_description, base_params = base_of(arch)
  description = describe(arch, injection)
  fresh = init_injection(jax.random.key(5), description)
  params = {'backbone': base_params['backbone'], 'self_conditioning': fresh}
  signal = signals_at_start(denoiser.bind(params, description), injection)
  x_t = tokens_with_masks()
  wanted = np.asarray(logits_of(base_params, base_description, x_t, 0 * signal))
  assert np.std(wanted) > 0.1
  assert bits_of(params, description, x_t, signal) == wanted.tobytes()


@pytest.mark.parametrize(
  ('arch', 'injection'), [('dit', 'mlp'), ('dream', 'embedding'), ('llada', 'gate')]
)
def test_identity_at_start_in_bfloat16(arch, injection):
  _, base_description, base_params = base_of(arch)
  base_params = in_bfloat16(base_params)
  description = describe(arch, injection)
  fresh = init_injection(jax.random.key(5), description)  # Float32, as in training.
  params = {'backbone': base_params['backbone'], 'self_conditioning': fresh}
  signal = signals_at_start(denoiser.bind(params, description), injection)
  x_t = tokens_with_masks()
  wanted = bits_of(base_params, base_description, x_t, 0 * signal)
  assert bits_of(params, description, x_t, signal) == wanted


@pytest.mark.parametrize('injection', NAMES)
def test_signal_is_read_at_masked_positions_only(base, injection):
  arch, base_description, base_params = base
  params, description = with_random_injection(arch, base_params, injection)
  x_t, null = tokens_with_masks(), np.zeros((4, LENGTH, DIM), np.float32)
  # The null signal is the base bit for bit, whatever the injection has learnt.
  wanted = bits_of(base_params, base_description, x_t, null)
  assert bits_of(params, description, x_t, null) == wanted

  # With nothing masked every signal is ignored.
  signal = np.random.default_rng(6).standard_normal(null.shape).astype(np.float32)
  clean = np.where(x_t == MASK, 0, x_t).astype(np.int32)
  wanted = bits_of(base_params, base_description, clean, null)
  assert bits_of(params, description, clean, signal) == wanted

  # It is read where masked, and there only.
  changed = np.asarray(logits_of(params, description, x_t, signal))
  unconditioned = np.asarray(logits_of(params, description, x_t, null))
  assert np.abs(changed - unconditioned).max() > 0.01
  masked = (x_t == MASK)[..., None]
  noisy = np.where(masked, signal, signal + 7).astype(np.float32)
  assert bits_of(params, description, x_t, noisy) == changed.tobytes()


@pytest.mark.parametrize(
  ('arch', 'injection'),
  [('dit', name) for name in (*NAMES, 'none')]
  + [(arch, 'gate') for arch in ('llada', 'tied', 'gpt2')],
)
def test_signal_is_the_expected_embedding(arch, injection):
  description = describe(arch, injection)
  params = parameters.random_params(description, seed=7)
  probs = some_probs()
  found = np.asarray(denoiser.bind(params, description).signal(probs))
  table = embedding_table(params['backbone'])
  wanted = {
    'none': np.zeros((4, LENGTH, DIM)),
    'gate': probs @ table - table[MASK],
  }.get(injection, probs @ table)
  if injection == 'table':
    wanted = probs @ params['self_conditioning']['table']
  np.testing.assert_allclose(found, wanted, atol=1e-5)
  assert found.dtype == np.float32


@pytest.mark.parametrize('injection', NAMES)
def test_signal_is_linear(injection):
  description = describe('dit', injection)
  bound = denoiser.bind(parameters.random_params(description, seed=7), description)
  probs = some_probs()
  found = bound.signal(7 * probs)
  np.testing.assert_allclose(found, 7 * bound.signal(probs), atol=1e-5)
  # As the sampler asks: it gives weights and divides by their sum behind.
  logits = jnp.log(jnp.maximum(probs, 1e-30)) + 3
  told = readout.read_signal(bound, logits)
  np.testing.assert_allclose(told, bound.signal(probs), atol=1e-5)


def test_gate_blends_the_mask_embedding_towards_the_expected_one(base):
  # m + g (p E - m) at masked positions, as the token input of the plain network.
  arch, base_description, base_params = base
  params, description = with_random_injection(arch, base_params, 'gate')
  x_t, probs = tokens_with_masks(), some_probs()
  signal = denoiser.bind(params, description).signal(probs)
  found = logits_of(params, description, x_t, signal)

  table = embedding_table(params['backbone'])
  g = np.tanh(params['self_conditioning']['gate'])
  blend = table[MASK] + g * (probs @ table - table[MASK])
  # As the token input of the plain network: rows of an embedding table of its own.
  rows = np.where((x_t == MASK)[..., None], blend, table[x_t]).astype(np.float32)
  wanted = logits_of_rows(base_params, base_description, rows)
  # Logits of order 1 to 10 in float32.
  np.testing.assert_allclose(found, wanted, atol=1e-4)


def logits_of_rows(params, description, rows):
  """Logits of the plain network on token inputs [4, L, D] of any value.

  Through the public face alone: every position gets a token of its own, whose row of
  the embedding table is the wanted input.
  """
  arch = dataclasses.replace(description.architecture, vocab_size=4 * LENGTH)
  wide = dataclasses.replace(description, architecture=arch, mask_id=None)
  bound = denoiser.bind(with_embeddings(params, rows.reshape(-1, DIM)), wide)
  tokens = np.arange(4 * LENGTH, dtype=np.int32).reshape(4, LENGTH)
  hidden = quick_jit(bound.encode)(tokens, np.zeros_like(rows), SIGMA)
  plain = denoiser.bind(params, description)
  return quick_jit(plain.logits)(hidden)


def with_embeddings(params, table):
  (name,) = params['backbone'].keys() & set(TABLES)
  backbone = {**params['backbone'], name: {'embedding': table}}
  return {**params, 'backbone': backbone}


@pytest.mark.parametrize('injection', NAMES)
def test_only_a_table_of_its_own_learns_through_the_signal(injection):
  description = describe('dit', injection)
  params = parameters.random_params(description, seed=8)
  probs = some_probs()
  weight = np.random.default_rng(9).standard_normal((4, LENGTH, DIM)).astype(np.float32)

  def loss(params):
    return jnp.sum(weight * denoiser.bind(params, description).signal(probs))

  gradient = quick_jit(jax.grad(loss))(params)
  if injection == 'table':
    found = gradient['self_conditioning'].pop('table')
    wanted = np.einsum('blv,bld->vd', probs, weight)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
  assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(gradient))


INJECTION_SHAPES = {
  'none': {},
  'embedding': {'projection/kernel': (DIM, DIM)},
  'mlp': {
    'norm/scale': (DIM,),
    'gate/kernel': (DIM, DIM),
    'up/kernel': (DIM, DIM),
    'down/kernel': (DIM, DIM),
  },
  'table': {'table': (VOCAB, DIM)},
  'gate': {'gate': (DIM,)},
}


@pytest.mark.parametrize('injection', list(INJECTION_SHAPES))
def test_shapes_of_injections(injection):
  params = denoiser.abstract_params(describe('dit', injection))
  assert flat_shapes(params['self_conditioning']) == INJECTION_SHAPES[injection]


@pytest.mark.parametrize('arch', ['udlm', 'dream', 'gpt2'])
@pytest.mark.slow
def test_init_is_what_abstract_params_says(arch):
  description = describe(arch, 'mlp')
  init = quick_jit(denoiser.init_params, static_argnums=1)
  params = init(jax.random.key(10), description)
  abstract = denoiser.abstract_params(description)
  assert flat_shapes(params) == flat_shapes(abstract)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
  assert {leaf.dtype for leaf in jax.tree.leaves(abstract)} == {np.dtype(np.float32)}
  # Only the last layer of the injection starts from zero.
  zero = jax.tree.map(lambda leaf: not np.any(leaf), params['self_conditioning'])
  assert zero['down']['kernel']
  assert not any([zero['gate']['kernel'], zero['up']['kernel'], zero['norm']['scale']])


def flat_shapes(tree):
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf.shape
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def our_name(name):
  """The layout's dotted name as a path here: `blocks.0.mlp.2` -> `blocks_0/mlp_2`."""
  name = re.sub(r'\.(\d+)', r'_\1', name)
  name = re.sub(r'(norm\w*)\.weight$', r'\1.scale', name)
  return name.replace('.weight', '.kernel').replace('.', '/')


def test_names_shapes_and_count_of_mdlm_owt():
  sizes = {'hidden_dim': 768, 'num_blocks': 12, 'num_heads': 12, 'cond_dim': 128}
  arch = DiTConfig(vocab_size=50258, length=1024, **sizes)
  description = ModelDescription(arch, mask_id=50257, tokenizer='gpt2')
  found = flat_shapes({'backbone': denoiser.abstract_params(description)['backbone']})
  # Kernels are stored [in, out]; `inv_freq` is a buffer, no parameter.
  wanted = {
    our_name(name): shape[::-1] if name.endswith('.weight') else shape
    for name, shape in manifests.mdlm().items()
    if not name.endswith('inv_freq')
  }
  assert found == wanted
  assert len(found) == 130
  assert sum(math.prod(shape) for shape in found.values()) == 169_627_218

  # The same by hand: D width, C conditioning, V vocabulary.
  d, c, v, blocks = 768, 128, 50258, 12
  attention, mlp = 4 * d * d, 8 * d * d + 5 * d
  block = attention + mlp + 2 * d + 6 * d * (c + 1)
  sigma_map = c * 257 + c * (c + 1)
  head = d + v * d + v + 2 * d * (c + 1)
  assert v * d + sigma_map + blocks * block + head == 169_627_218
