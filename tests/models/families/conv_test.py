"""The convolutional classifier against plain loops, and what it can learn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.checkpoints import store
from scmdm_jax.models import classifier, denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.conv import ConvConfig
from scmdm_jax.models.families.dit import DiTConfig
from scmdm_jax.parallel import rules
from scmdm_jax.runs import converting
from scmdm_jax.training.losses import class_nll
from scmdm_jax.training.step import OptimizerConfig, initial_state, make_train_step
from scmdm_jax.verbs import export
from tests.models.parameters import random_params

SEQUENCE = ConvConfig(
  vocab_size=9,
  length=12,
  hidden_dim=6,
  num_blocks=2,
  embedding_dim=3,
  kernel_size=5,
  first_class=5,
  num_classes=3,
)
IMAGE = ConvConfig(9, 41, 6, 2, 3, 3, 5, 3, grid=(2, 4, 5))
KINDS = {'sequence': SEQUENCE, 'image': IMAGE}


def describe(config):
  return ModelDescription(config, mask_id=None, tokenizer='')


def some_rows(config, count=4, seed=0):
  rng = np.random.default_rng(seed)
  rows = rng.integers(0, config.first_class, (count, config.length))
  rows[:, 0] = rng.integers(config.first_class, config.vocab_size - 1, count)
  return rows.astype(np.int32)


def convolved(x, kernel, bias, stride):
  """A cross-correlation over all axes of `x` but the last, position by position.

  As many outputs as strides fit; what is missing of windows is zeros, half on each side
  and the odd one behind.
  """
  window, spatial = kernel.shape[:-2], x.shape[:-1]
  shape = [-(-n // stride) for n in spatial]
  pads = [
    max((m - 1) * stride + k - n, 0)
    for m, k, n in zip(shape, window, spatial, strict=True)
  ]
  x = np.pad(x, [(p // 2, p - p // 2) for p in pads] + [(0, 0)])
  found = np.zeros((*shape, kernel.shape[-1]))
  for at in np.ndindex(*shape):
    for offset in np.ndindex(*window):
      place = tuple(a * stride + o for a, o in zip(at, offset, strict=True))
      found[at] += x[place] @ kernel[offset]
  return found + bias


def normalised(x, scale):
  centred = x - x.mean(-1, keepdims=True)
  return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * scale


def slow_logits(config, params, row):
  """One row [L] -> features [D] and class scores [C], in float64."""
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params['backbone'])
  x = p['embed']['embedding'][row[1:]]
  if config.grid:
    channels, height, width = config.grid
    pixels = np.zeros((height, width, channels * config.embedding_dim))
    for c, i, j in np.ndindex(channels, height, width):
      part = slice(c * config.embedding_dim, (c + 1) * config.embedding_dim)
      pixels[i, j, part] = x[(c * height + i) * width + j]
    x = pixels
  for number in range(config.num_blocks):
    stage = p[f'stages_{number}']
    x = convolved(x, stage['down']['kernel'], stage['down']['bias'], 2)
    h = np.maximum(normalised(x, stage['norm']['scale']), 0)
    x = x + convolved(h, stage['mix']['kernel'], stage['mix']['bias'], 1)
  x = np.maximum(normalised(x, p['norm_final']['scale']), 0)
  features = x.reshape(-1, config.hidden_dim).mean(0)
  return features, features @ p['head']['kernel'] + p['head']['bias']


@pytest.mark.parametrize('kind', KINDS)
def test_it_is_what_a_loop_computes(kind):
  config = KINDS[kind]
  params = random_params(describe(config), seed=1)
  bound = classifier.bind(params, describe(config))
  rows = some_rows(config)
  wanted = [slow_logits(config, params, row) for row in rows]
  # float32 against float64, a few hundred terms a sum.
  for found, i in ((bound.features, 0), (bound.logits, 1)):
    np.testing.assert_allclose(
      jax.jit(found)(rows), np.stack([w[i] for w in wanted]), rtol=2e-5, atol=2e-6
    )


@pytest.mark.parametrize('kind', KINDS)
def test_the_class_is_never_shown(kind):
  config = KINDS[kind]
  params = random_params(describe(config), seed=1)
  logits = jax.jit(classifier.bind(params, describe(config)).logits)
  rows = some_rows(config)
  base = np.asarray(logits(rows))
  other = rows.copy()
  other[:, 0] = config.first_class + (rows[:, 0] - config.first_class + 1) % 3
  assert np.array_equal(np.asarray(logits(other)), base)
  other = rows.copy()
  other[:, -1] = (rows[:, -1] + 1) % config.first_class
  assert np.all(np.abs(np.asarray(logits(other)) - base).max(-1) > 1e-4)


@pytest.mark.slow
def test_it_learns_which_motif_a_row_has():
  """Class 0 has 012 somewhere, class 1 has 210: the same letters, in another order."""
  config = ConvConfig(8, 33, 16, 2, 8, 5, first_class=5, num_classes=2)
  description = describe(config)
  rng = np.random.default_rng(0)

  def rows(count):
    found = rng.integers(3, 5, (count, 33))
    found[:, 0] = 5 + rng.integers(0, 2, count)
    for row, at in zip(found, rng.integers(1, 30, count), strict=True):
      row[at : at + 3] = [0, 1, 2] if row[0] == 5 else [2, 1, 0]
    return found.astype(np.int32)

  def loss(key, params, tokens):
    del key
    return class_nll(classifier.bind(params, description).logits, tokens, 5).mean()

  config_opt = OptimizerConfig(ema_decay=0.9)
  step = make_train_step(loss, config_opt)
  state = initial_state(
    denoiser.init_params(jax.random.key(0), description), config_opt
  )
  for _ in range(80):
    state, _ = step(state, rows(32), jax.random.key(1), jnp.float32(1e-2))
  held = rows(400)
  found = np.argmax(classifier.bind(state.ema, description).logits(held), -1) + 5
  # Chance is 0.5 +- 0.025.
  assert np.mean(found == held[:, 0]) > 0.95


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.slow
def test_it_travels_as_safetensors(kind, tmp_path):
  config = KINDS[kind]
  description, params = describe(config), random_params(describe(config), seed=2)
  store.save_model(tmp_path / 'a', description, params, {}, {})
  export.export_model(str(tmp_path / 'a'), str(tmp_path / 'b'))
  converting.import_model(str(tmp_path / 'b'), str(tmp_path / 'c'))
  found, values = store.load_model(tmp_path / 'c')
  assert found == description
  jax.tree.map(np.testing.assert_array_equal, values, params)
  card = (tmp_path / 'b' / 'README.md').read_text()
  assert '2 blocks, width 6, 3 classes; 9 tokens' in card and 'classification' in card


def test_every_parameter_has_a_rule():
  params = denoiser.abstract_params(describe(IMAGE))
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    assert len(rules.spec_of(name)) <= leaf.ndim


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'num_classes': 5}, r'ids 5 to 9; wanted at least two, inside .* of 9'),
    ({'num_classes': 1}, 'ids 5 to 5; wanted at least two'),
    ({'grid': (2, 4, 4)}, r'grid is \(2, 4, 4\); wanted .* less than the length, 41'),
    ({'grid': (8, 5)}, 'wanted channels, height and width'),
    ({'kernel_size': 0}, 'kernel_size is 0'),
    ({'first_class': -1}, 'first_class is -1; wanted a whole number from 0'),
  ],
)
def test_impossible_sizes_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    describe(dataclasses.replace(IMAGE, **changes))


def test_a_classifier_and_a_denoiser_are_kept_apart():
  description = describe(SEQUENCE)
  with pytest.raises(ValueError, match=r'wanted classifier\.bind'):
    denoiser.bind(random_params(description), description)
  dit = ModelDescription(DiTConfig(9, 6, 8, 1, 2, 4), 4, '')
  with pytest.raises(ValueError, match="the family 'mdlm'; wanted"):
    classifier.bind(random_params(dit), dit)
