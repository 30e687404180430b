"""Blocks with kept keys: the tokens of sampling without, and what is evaluated."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.diffusion.caching import write_blocks
from scmdm_jax.diffusion.guidance import Guidance, Predictor
from scmdm_jax.diffusion.sampling import Sampler, sample
from scmdm_jax.diffusion.stepping import Chain
from scmdm_jax.diffusion.strategies import (
  P2,
  Ancestral,
  Confidence,
  Dream,
  Edit,
  EntropyBound,
  Factor,
  FirstHitting,
  Joint,
  MaskGIT,
  ReMDM,
  Threshold,
)
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.lora import Adapter
from scmdm_jax.parallel.mesh import one_device
from scmdm_jax.runs.drawing import Spans, compiled_sampler
from tests.compiling import quick_jit, split_key
from tests.models import tiny

BLOCK, LENGTH, T = 2, 6, 9
KEYS = split_key(jax.random.key(0), 5)
HOT = np.float32(4)  # Random weights are so sure that they write few tokens else.


def model_of(arch, block_length=BLOCK, dtype=np.float32, **options):
  sizes = tiny.ARCHITECTURES[arch]
  if block_length:
    sizes = dataclasses.replace(sizes, block_length=block_length)
  options = {'injection': 'embedding'} | options
  sizes = dataclasses.replace(sizes, num_blocks=2)
  description = ModelDescription(sizes, tiny.MASK, '', **options)
  rng = np.random.default_rng(1)
  shapes = denoiser.abstract_params(description)
  draw = lambda leaf: rng.standard_normal(leaf.shape).astype(dtype)  # noqa: E731
  params = jax.tree.map(draw, shapes)
  output = params['backbone'].get('output_layer')
  if output:  # Whose shifts would be all that matters: one token everywhere.
    output['adaLN_modulation'] = jax.tree.map(
      lambda leaf: leaf * dtype(0.1), output['adaLN_modulation']
    )
    output['linear']['bias'] *= dtype(0.1)
  return description, params


def prompts():
  """None, one inside a block, whole blocks, one block between two, and all."""
  rows = np.full((5, LENGTH), tiny.MASK, np.int32)
  for row, kept in enumerate(('', '0', '0123', '23', '012345')):
    for position in map(int, kept):
      rows[row, position] = (row + 3 * position) % tiny.MASK
  return rows


def both(model, options, keep_trajectory=False, x_init=None, spans=None):
  """Samples without a cache and with that of `options`."""
  description, params = model
  found = []
  plain = dataclasses.replace(options, cache='none', refresh=0, compact=0)
  for sampler in (plain, options):
    jitted = compiled_sampler(description, sampler, keep_trajectory, one_device())
    run = quick_jit(jitted.__wrapped__)
    start = prompts() if x_init is None else x_init
    # Tests with the same sampler share its programs.
    compiled = run._cache_size()
    found.append(run(params, KEYS[: len(start)], start, HOT, spans))
    assert run._cache_size() <= compiled + 1
  return found


STRATEGIES = (
  Ancestral(),
  FirstHitting(),
  Threshold(0.3),
  Edit(0.3, 0.4),
  Factor(2.5),
  Joint(),
  MaskGIT(),
  Confidence('margin'),
  Dream('entropy', alg_temp=0.5),
  ReMDM('loop', eta=0.3),
  ReMDM('cap', eta=0.5),
  P2(),
)


@pytest.mark.parametrize(
  ('strategy', 'arch', 'options'),
  [
    (EntropyBound(1.0), 'dream', {}),
    pytest.param(ReMDM('conf'), 'dream', {}, marks=pytest.mark.long),
    *(
      pytest.param(strategy, 'dit', {}, marks=pytest.mark.long)
      for strategy in STRATEGIES
    ),
    pytest.param(
      Confidence(), 'dream', {'guidance': Guidance(0.7)}, marks=pytest.mark.long
    ),
    pytest.param(
      ReMDM('cap', eta=0.5),
      'llada',
      {'guidance': Guidance(0.7, shared_signal=True), 'keep_signal': False},
      marks=pytest.mark.long,
    ),
  ],
  ids=str,
)
def test_exact_cache_changes_no_token(strategy, arch, options):
  noise = 'low' if isinstance(strategy, Joint) else 'high'
  options = Sampler(T, strategy, noise=noise, cache='exact', **options)
  without, within = both(model_of(arch), options)
  assert np.array_equal(within.tokens, without.tokens)
  assert not np.any(np.asarray(within.tokens) == tiny.MASK)
  x_init = prompts()
  visible = x_init != tiny.MASK
  assert len(np.unique(np.asarray(within.tokens)[~visible])) > 3
  assert np.array_equal(np.asarray(within.tokens)[visible], x_init[visible])
  assert without.positions == without.evaluations * LENGTH
  assert within.positions < without.positions


@pytest.mark.slow
@pytest.mark.parametrize(
  ('model', 'options'),
  [
    (
      {'injection': 'table', 'adapter': Adapter(2, 2.0)},
      {'strategy': EntropyBound(1.0), 'top_p': 0.6, 'noise': 'float64'},
    ),
    (
      {'injection': 'gate'},
      {'strategy': Threshold(0.3), 'top_p': 0.7, 'self_conditioning': False},
    ),
    ({'dtype': jnp.bfloat16}, {'strategy': Confidence(), 'chunk': 1}),
  ],
  ids=str,
)
def test_exact_cache_goes_with_all_else(model, options):
  """Adapters, signals, shaped draws, low precision; batches that shrink, too."""
  sampler = Sampler(T, cache='exact', compact=1, **options)
  with jax.enable_x64(sampler.noise == 'float64'):
    without, within = both(model_of('dream', **model), sampler)
  assert np.array_equal(within.tokens, without.tokens)
  assert not np.any(np.asarray(within.tokens) == tiny.MASK)
  assert within.positions < without.positions


@pytest.mark.slow
def test_trajectory_with_a_cache_is_that_without():
  options = Sampler(T, Confidence(), cache='exact')
  without, within = both(model_of('dit'), options, keep_trajectory=True)
  assert within.trajectory.shape == (T, *prompts().shape)
  assert np.array_equal(within.trajectory, without.trajectory)


@pytest.mark.slow
def test_positions_are_counted():
  start = np.full((2, LENGTH), tiny.MASK, np.int32)
  _, within = both(model_of('dit'), Sampler(T, P2(), cache='exact'), x_init=start)
  # Three blocks of three steps; the first step of each has twice the positions.
  assert within.evaluations == T
  assert within.positions == 3 * (2 * BLOCK + 2 * BLOCK)
  start[:, :4] = 0  # Two whole blocks, which one evaluation reads.
  _, within = both(model_of('dit'), Sampler(T, P2(), cache='exact'), x_init=start)
  assert within.evaluations == 1 + T
  assert within.positions == LENGTH + 2 * BLOCK + (T - 1) * BLOCK


@pytest.mark.slow
@pytest.mark.parametrize('cache', ['prefix', 'dual'])
def test_what_is_made_anew_in_every_step_is_no_approximation(cache):
  options = Sampler(T, P2(), block_length=BLOCK, cache=cache, refresh=1)
  without, within = both(model_of('llada', 0), options)
  assert np.array_equal(within.tokens, without.tokens)
  assert within.positions == within.evaluations * LENGTH


# Examples of 5, 6, 4, 6 and 3 tokens whose blocks begin at 1, 0, 2, 3 and 0.
SPANS = Spans(np.int32([1, 0, 2, 3, 0]), np.int32([5, 6, 4, 6, 3]))


def padded():
  """What is behind the ends of `SPANS` is padding; all else from the starts, masked."""
  places = np.arange(LENGTH)[None]
  rows = (np.arange(5)[:, None] + 3 * places) % tiny.MASK
  written = (places >= SPANS.starts[:, None]) & (places < SPANS.ends[:, None])
  return np.where(written, tiny.MASK, rows).astype(np.int32)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('arch', 'options'),
  [
    ('dream', {'cache': 'exact'}),
    ('dream', {'cache': 'dual', 'refresh': 1}),
    ('dit', {'cache': 'prefix', 'refresh': 1, 'compact': 1}),
    pytest.param(
      'llada',
      {'cache': 'dual', 'refresh': 1, 'guidance': Guidance(0.7), 'compact': 1},
      marks=pytest.mark.long,
    ),
    pytest.param(
      'dit',
      {
        'cache': 'exact',
        'guidance': Guidance(0.7),
        'compact': 2,
        'strategy': FirstHitting(),
      },
      marks=pytest.mark.long,
    ),
  ],
)
def test_examples_of_different_lengths(arch, options):
  """Padding is seen by nobody, blocks begin where prompts end, unless a model has its.

  What is made anew in every step is exact, wherever the blocks of an example begin.
  """
  options = {'strategy': EntropyBound(1.0)} | options
  sampler = Sampler(T, block_length=BLOCK, **options)
  model = model_of(arch, BLOCK if sampler.cache == 'exact' else 0)
  without, within = both(model, sampler, x_init=padded(), spans=SPANS)
  assert np.array_equal(within.tokens, without.tokens)
  assert not np.any(np.asarray(within.tokens) == tiny.MASK)
  assert within.positions < within.evaluations * LENGTH or sampler.refresh
  assert within.rows < within.evaluations * 5 or not sampler.compact


@pytest.mark.slow
@pytest.mark.parametrize(
  ('arch', 'options', 'some'),
  [
    ('dream', {'cache': 'exact', 'compact': 1}, [2, 5]),
    pytest.param(
      'dit', {'cache': 'dual', 'refresh': 1}, [0, 3, 6, 8], marks=pytest.mark.long
    ),
  ],
)
def test_examples_that_end_leave_their_other_blocks(arch, options, some):
  """As without a cache, and what is written before the end is what was."""
  sampler = Sampler(T, EntropyBound(1.0), block_length=BLOCK, **options)
  model = model_of(arch, BLOCK if sampler.cache == 'exact' else 0)
  stops = np.tile(np.int32(some), (5, 1))
  spans = SPANS._replace(stops=stops, behind=SPANS.starts)
  without, within = both(model, sampler, x_init=padded(), spans=spans)
  assert np.array_equal(within.tokens, without.tokens)
  assert not np.any(np.asarray(within.tokens) == tiny.MASK)
  whole = both(model, sampler, x_init=padded(), spans=SPANS)[1]
  ended = np.any(np.asarray(within.tokens != whole.tokens), axis=-1)
  assert ended.any() and within.rows <= whole.rows
  ends = np.isin(within.tokens, some)
  ends &= padded() == tiny.MASK  # Padding is no end.
  up_to_end = np.cumsum(ends, axis=-1) - ends == 0
  assert np.all(np.asarray(within.tokens == whole.tokens)[up_to_end])


@pytest.mark.slow
@pytest.mark.parametrize('cache', ['prefix', 'dual'])
def test_what_is_kept_of_examples_of_different_lengths(cache):
  """Each alone, in a batch of one, is as it is beside the others."""
  options = Sampler(T, P2(), block_length=BLOCK, cache=cache)
  description, params = model_of('dream', 0)
  jitted = compiled_sampler(description, options, False, one_device())
  run = quick_jit(jitted.__wrapped__)
  found = run(params, KEYS, padded(), HOT, SPANS)
  assert found.positions < found.evaluations * LENGTH
  for i in range(5):
    one = slice(i, i + 1)
    spans = Spans(SPANS.starts[one], SPANS.ends[one])
    alone = run(params, KEYS[one], padded()[one], HOT, spans)
    assert np.array_equal(alone.tokens[0], found.tokens[i])


@pytest.mark.slow
@pytest.mark.parametrize(
  ('strategy', 'cache', 'options'),
  [
    (FirstHitting(), 'exact', {}),
    (P2(), 'dual', {}),
    pytest.param(P2(), 'prefix', {}, marks=pytest.mark.long),
    pytest.param(
      Edit(0.3, 0.4), 'exact', {'guidance': Guidance(0.7)}, marks=pytest.mark.long
    ),
  ],
  ids=str,
)
def test_batches_shrink_within_a_block(strategy, cache, options):
  """The same tokens as in whole batches, for fewer rows."""
  sampler = Sampler(T, strategy, block_length=BLOCK, cache=cache, **options)
  description, params = model_of('dit', BLOCK if cache == 'exact' else 0)
  found = []
  for compact in (0, 1):
    shrinking = dataclasses.replace(sampler, compact=compact)
    jitted = compiled_sampler(description, shrinking, False, one_device())
    run = quick_jit(jitted.__wrapped__)
    found.append(run(params, KEYS, prompts(), HOT))
  whole, shrunk = found
  assert np.array_equal(shrunk.tokens, whole.tokens)
  assert np.array_equal(shrunk.written, whole.written)
  assert shrunk.evaluations == whole.evaluations
  assert whole.rows == 5 * whole.evaluations > shrunk.rows


@pytest.mark.slow
@pytest.mark.parametrize(
  ('cache', 'wanted'),
  [
    # L in the first of three steps; of 3, 2, 1 blocks that are left 3, 2, 1 after it.
    ('prefix', 3 * LENGTH + 2 * BLOCK * (3 + 2 + 1)),
    ('dual', 3 * LENGTH + 2 * BLOCK * 3),
  ],
)
def test_approximations_evaluate_less(cache, wanted):
  options = Sampler(T, P2(), block_length=BLOCK, cache=cache)
  start = np.full((2, LENGTH), tiny.MASK, np.int32)
  without, within = both(model_of('dit', 0), options, x_init=start)
  assert not np.any(np.asarray(within.tokens) == tiny.MASK)
  assert within.positions == wanted < without.positions == T * LENGTH


@pytest.mark.parametrize('arch', ['dit', 'dream'])
@pytest.mark.slow
def test_parts_by_kept_keys_are_those_of_the_whole(arch):
  description, params = model_of(arch, 0)
  network = denoiser.bind(params, description)
  rng = np.random.default_rng(2)
  x = tiny.tokens_with_masks()
  signal = rng.standard_normal((*x.shape, tiny.DIM)).astype(np.float32)
  sigma, at = tiny.SIGMA, jnp.int32
  whole = quick_jit(network.encode)(x, signal, sigma)
  keep = quick_jit(network.cached.encode)
  nothing = network.cached.start(*x.shape)
  hidden, cache = keep(x, signal, sigma, nothing, at(0), at(0))
  np.testing.assert_allclose(hidden, whole, atol=2e-5)  # Of float32 sums.
  part, same = keep(x[:, 2:5], signal[:, 2:5], sigma, cache, at(2), at(2))
  np.testing.assert_allclose(part, whole[:, 2:5], atol=2e-5)
  changed = (x[:, 2:5] + 1) % tiny.VOCAB
  _, other = keep(changed, signal[:, 2:5], sigma, cache, at(2), at(4))
  leaves = map(jax.tree.leaves, (cache, same, other))
  for before, again, after in zip(*leaves, strict=True):
    # Keys are sums of terms of up to 100, where float32 has steps of 8e-6.
    np.testing.assert_allclose(again, before, atol=1e-4)
    change = np.abs(np.asarray(after - before)).max(axis=(0, *range(2, after.ndim)))
    differs = change > 1e-3
    assert differs.tolist() == [False, False, False, False, True, False]


def test_one_program_writes_all_blocks():
  """The loop's body, and with it the network, is traced once for each of its sizes."""
  description, params = model_of('dit')
  network = denoiser.bind(params, description)
  sizes = []

  def encode(x, *others):
    sizes.append(x.shape[1])
    return network.cached.encode(x, *others)

  watched = network._replace(cached=network.cached._replace(encode=encode))
  sampler = Sampler(T, Confidence()).of_model(BLOCK, True)
  chain = Chain(Predictor((watched,)), sampler, tiny.MASK)
  jax.eval_shape(lambda: write_blocks(KEYS, jnp.asarray(prompts()), chain, False))
  assert set(sizes) == {BLOCK, 2 * BLOCK, LENGTH}


@pytest.mark.parametrize(
  ('arch', 'block_length', 'options', 'words'),
  [
    ('dit', 2, {'cache': 'dual', 'block_length': 2}, "cache: found 'dual'; wanted one"),
    (
      'dit',
      0,
      {'cache': 'exact'},
      "found 'exact'; wanted one of auto, none, prefix, d",
    ),
    (
      'dit',
      2,
      {'block_length': 3},
      'block_length: found 3; wanted 0 or 2 with a model',
    ),
    ('dit', 0, {'block_length': 4}, 'block_length: found 4; wanted a divisor'),
    (
      'gpt2',
      0,
      {'cache': 'dual', 'block_length': 2},
      "found 'dual'; wanted one of auto",
    ),
  ],
)
def test_what_a_model_cannot_have(arch, block_length, options, words):
  description, params = model_of(arch, block_length)
  network = denoiser.bind(params, description)
  start = jnp.asarray(prompts())
  with pytest.raises(ValueError, match=words):
    sample(KEYS, network, start, Sampler(T, **options), mask_id=tiny.MASK)


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    ({'cache': 'fast'}, "cache: found 'fast'; wanted one of auto, none, exact"),
    ({'cache': 'dual'}, "cache: found 'dual'; wanted prefix and dual with a block_l"),
    ({'refresh': 2}, 'refresh: found 2; wanted a number of at least 0; above 0 with'),
    (
      {'refresh': -1, 'cache': 'dual', 'block_length': 2},
      'refresh: found -1; wanted a number of at least 0',
    ),
  ],
)
def test_values_that_no_sampler_has(options, words):
  with pytest.raises(ValueError, match=words):
    Sampler(T, **options)
