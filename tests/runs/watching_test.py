"""What is kept of two samples, against all predictions and plain loops."""

import base64
import io
import math
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

import scmdm_jax as sc
from scmdm_jax.domains import registry
from scmdm_jax.domains.images import drawing
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from scmdm_jax.report import animation
from scmdm_jax.runs import watching
from scmdm_jax.runs.opening import Model
from tests.compiling import quick_jit
from tests.programs import program

KEY = jax.random.key(2)
ASSETS = {
  'qm9': 'qm9_base',
  'text': 'text_base',
  'fashion_mnist': 'fashion_base',
  'genomes': 'genomes_base',
}


@pytest.fixture(autouse=True)
def quick_compilation(monkeypatch):
  monkeypatch.setattr(jax, 'jit', quick_jit)


def toy(asset, length):
  """A small model with weights of noise, of the tokens of a bundled one."""
  tokenizer = sc.load(sc.ASSETS / asset).tokenizer
  sizes = DiTConfig(tokenizer.vocab_size, length, 8, 1, 2, 4)
  description = ModelDescription(
    sizes, tokenizer.mask_id, tokenizer.name, injection='embedding'
  )
  shapes = denoiser.abstract_params(description)
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: rng.normal(0, 0.4, x.shape).astype(x.dtype), shapes)
  return Model(description, params, tokenizer)


def start(model, length):
  return np.full((1, length), model.tokenizer.mask_id, np.int32)


def masked_pixels(uri):
  """How many pixels of a picture have the colour of masked ones."""
  png = Image.open(io.BytesIO(base64.b64decode(uri.partition(',')[2])))
  return int((np.array(png.convert('RGB')) == drawing.MASKED).all(-1).sum())


@pytest.mark.slow
def test_frames_against_all_predictions():
  model, length, steps = toy('qm9_base', 12), 12, 30
  sampler = sc.Sampler(steps)
  found = watching.side_by_side(
    model,
    sampler,
    sc.SampleSettings(),
    KEY,
    start(model, length),
    sc.make_mesh(1, 1, 1),
  )
  assert found['obstacle'] == '' and found['length'] == length
  chosen = found['steps']
  assert len(chosen) == 24 and chosen[0] == 1 and chosen[-1] == steps
  assert chosen == sorted(set(chosen))
  names, mask = model.tokenizer.tokens, model.tokenizer.mask_id
  special = dict(
    zip(
      (model.tokenizer.bos_id, model.tokenizer.eos_id, model.tokenizer.pad_id),
      '^$·',
      strict=True,
    )
  )
  for sample, carried in zip(found['samples'], (True, False), strict=True):
    how = sc.Sampler(steps, self_conditioning=carried)
    whole = sc.beliefs(KEY, model, sampler=how)
    states, log_probs = whole.states[:, 0], whole.log_probs[:, 0].astype(float)
    for t, entropy in enumerate(sample['entropy']):
      wanted = sum(
        -math.exp(x) * x
        for i in range(length)
        if states[t, i] == mask
        for x in log_probs[t, i]
        if x > -1e9
      )
      # Kept to four digits behind the point, of float32.
      assert entropy == pytest.approx(wanted, abs=1e-4, rel=1e-5)
    before = states[0]
    for frame, t in enumerate(chosen):
      for i in range(length):
        token, letter = int(states[t, i]), sample['state'][frame][i]
        if token == mask:
          token = int(log_probs[t - 1, i].argmax())
          assert int(letter) == math.ceil(math.exp(log_probs[t - 1, i, token]) * 8)
        else:
          assert letter == ('w' if before[i] == mask else 'f')
        assert sample['shown'][frame][i] == special.get(token, names[token])
      before = states[t]
    assert set(sample['state'][-1]) <= {'w', 'f'}
  first, second = found['samples']
  assert first['entropy'][0] == second['entropy'][0]  # Neither has a signal yet.
  assert first['entropy'][1:] != second['entropy'][1:]


def test_a_sampler_that_is_not_replayed_says_so():
  model = toy('qm9_base', 12)
  found = watching.side_by_side(
    model,
    sc.Sampler(4, block_length=4),
    sc.SampleSettings(),
    KEY,
    start(model, 12),
    sc.make_mesh(1, 1, 1),
  )
  assert found == {'obstacle': 'block_length: 4; wanted no blocks'}


@pytest.mark.slow
@pytest.mark.parametrize('name', ASSETS)
def test_every_domain_has_an_animation(name):
  base = sc.load(sc.ASSETS / ASSETS[name])
  length = base.description.architecture.length
  model, steps = toy(ASSETS[name], length), 3
  data = registry.data_settings()(name=name, length=length)
  domain, tokenizer = registry.of(data), model.tokenizer
  show = (lambda rows: domain.show(data, rows, tokenizer)) if domain.film else None
  found = watching.side_by_side(
    model,
    sc.Sampler(steps),
    sc.SampleSettings(),
    KEY,
    start(model, length),
    sc.make_mesh(1, 1, 1),
    show,
  )
  webp = animation.animated(found)
  assert webp is not None and len(webp) <= animation.MOST_BYTES
  file = Image.open(io.BytesIO(webp))
  assert file.n_frames == steps and file.width == 840
  for sample in found['samples']:
    if show is None:
      assert all(len(row) == min(length, 256) for row in sample['shown'])
      assert not any(x.isdigit() for x in sample['state'][-1])
    else:
      # At the end nothing is masked, and what is believed is what is there.
      state, believed = sample['pictures'][-1]
      assert state == believed
      blue = [masked_pixels(uri) for uri in (*sample['pictures'][0], state)]
      assert blue[0] > 0 and blue[1] == blue[2] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
  ('config', 'asset', 'steps', 'shown'),
  [
    ('fashion_few_greys.py', 'fashion_seven_base', 100, 'pictures'),
    ('letters_small.py:whole', 'letters_base', 64, 'shown'),
  ],
)
def test_the_program_of_the_page_draws_what_a_run_has_left(
  config, asset, steps, shown, tmp_path, monkeypatch
):
  root = pathlib.Path(sc.__file__).parents[1]
  trajectory = program('trajectory')
  length = sc.load(sc.ASSETS / asset).description.architecture.length
  sc.save(toy(asset, length), tmp_path / 'adapted')
  drawn = []
  animated = animation.animated
  monkeypatch.setattr(
    animation, 'animated', lambda *of: (drawn.append(of[0]), animated(*of))[1]
  )
  webp = trajectory.of_run(str(root / 'configs' / config), str(tmp_path / 'adapted'))
  [beliefs] = drawn
  assert beliefs['length'] == length
  for sample in beliefs['samples']:
    assert len(sample[shown]) == watching.FRAMES and len(sample['entropy']) == steps
  assert Image.open(io.BytesIO(webp)).n_frames == watching.FRAMES
