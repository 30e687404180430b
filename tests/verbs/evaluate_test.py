import dataclasses
import math

import jax
import numpy as np
import pytest

from scmdm_jax.diffusion.masking import mask_tokens
from scmdm_jax.diffusion.objectives import T_MIN
from scmdm_jax.diffusion.schedules import (
  LogLinear,
  block_times,
  nelbo_weight,
  noise_level,
)
from scmdm_jax.domains.registry import get_tokenizer
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from scmdm_jax.models.families.llama import DecoderConfig
from scmdm_jax.parallel.mesh import one_device
from scmdm_jax.runs import drawing, scoring
from scmdm_jax.runs.opening import Model
from scmdm_jax.settings.options import EvaluateSettings
from tests.compiling import quick_jit
from tests.data.encoded import Encoded

TOKENIZER = get_tokenizer('smiles_qm9')
TEXTS = ['CCO', 'c1ccoc1', 'C#N', 'CC(C)=O', 'OCC1CC1']
MODEL = ModelDescription(
  DiTConfig(35, 12, 16, 1, 2, 8), TOKENIZER.mask_id, 'smiles_qm9', 'embedding'
)
JUDGE = ModelDescription(DecoderConfig(35, 12, 16, 1, 2, 2, 16), None, 'smiles_qm9')
OPTIONS = EvaluateSettings(
  num_examples=5, batch_size=2, repeats=200, carried_steps=(1, 3)
)


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'jit', quick_jit)
    scoring._compiled.cache_clear()
    yield
    scoring._compiled.cache_clear()


def uniform(description):
  """A model of `description` that finds every token equally likely."""
  params = denoiser.init_params(jax.random.key(0), description)
  if description.mask_id is None:
    kernel = params['backbone']['lm_head']['kernel']
    params['backbone']['lm_head']['kernel'] = np.zeros_like(kernel)
  return Model(description, params, TOKENIZER)


def likelihood(model, options=OPTIONS):
  key = jax.random.key(1)
  rows = Encoded(TEXTS, TOKENIZER, 12)
  return scoring.likelihood(model, LogLinear(), rows, options, key, one_device())


@pytest.mark.slow
def test_likelihood_of_the_uniform_model():
  found = likelihood(uniform(MODEL))
  # 34 clean tokens. In one step everything is masked and revealed: no randomness.
  assert found['carried_nelbo']['1'] == pytest.approx(math.log(34), rel=1e-5)
  # With weight 1/t the count of masked positions over t has mean 1 - eps per token and
  # standard deviation sqrt(E[(1-t)/t] / 12) <= sqrt(ln(1000) / 12) = 0.76; 1000 draws.
  tolerance = 4 * 0.76 / math.sqrt(1000) * math.log(34)
  assert found['nelbo_null'] == pytest.approx(0.999 * math.log(34), abs=tolerance)
  # The fresh injection is the identity and the signal changes nothing.
  assert found['nelbo_two_pass'] == pytest.approx(found['nelbo_null'], rel=1e-6)


@pytest.mark.slow
def test_padding_rows_of_the_last_batch_do_not_count():
  options = dataclasses.replace(OPTIONS, repeats=1, carried_steps=(1,))
  params = jax.tree.map(
    lambda x: (0.3 * np.random.default_rng(x.size).standard_normal(x.shape)).astype(
      np.float32
    ),
    denoiser.abstract_params(MODEL),
  )
  # T = 1 has no randomness, so the mean over five texts has one value.
  values = [
    likelihood(
      Model(MODEL, params, TOKENIZER), dataclasses.replace(options, batch_size=size)
    )
    for size in (2, 5)  # With a row of padding, and without.
  ]
  carried = [v['carried_nelbo']['1'] for v in values]
  np.testing.assert_allclose(carried, carried[0], rtol=1e-5)


@pytest.mark.slow
def test_more_passes_each_given_the_one_before():
  options = dataclasses.replace(OPTIONS, repeats=2, carried_steps=(1,), passes=(3, 5))
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: (0.5 * rng.standard_normal(x.shape)).astype(np.float32),
    denoiser.abstract_params(MODEL),
  )
  found = likelihood(Model(MODEL, params, TOKENIZER), options)
  # By a loop over the network, on the same times and masks: all rows of both batches.
  key_nelbo, _ = jax.random.split(jax.random.key(1))
  network = denoiser.bind(params, MODEL)
  rows = [TOKENIZER.encode(text, 12) for text in TEXTS]
  batches = [np.stack(rows[i : i + 2]).astype(np.int32) for i in (0, 2, 4)]
  batches[-1] = np.concatenate([batches[-1], batches[-1]])  # Padded, and cut again.
  for passes, name in ((2, 'nelbo_two_pass'), (5, 'nelbo_5_passes')):
    total = 0.0
    for repeat in range(2):
      for i, tokens in enumerate(batches):
        key = jax.random.fold_in(jax.random.fold_in(key_nelbo, repeat), i)
        key_t, key_mask = jax.random.split(key)
        t = block_times(key_t, 2, 1, T_MIN)
        threshold = jax.random.uniform(key_mask, tokens.shape)
        x_t = mask_tokens(threshold, tokens, LogLinear()(t), TOKENIZER.mask_id)
        masked = np.asarray(x_t == TOKENIZER.mask_id)
        signal = np.zeros((*tokens.shape, network.signal_dim), np.float32)
        sigma = noise_level(LogLinear(), t)
        for _ in range(passes):
          scores = network.logits(network.encode(x_t, signal, sigma))
          scores = np.array(scores).astype(np.float64)
          scores[..., TOKENIZER.mask_id] = -np.inf
          p = np.exp(scores - scores.max(-1, keepdims=True))
          p /= p.sum(-1, keepdims=True)
          signal = network.signal(p.astype(np.float32)) * masked[..., None]
        nll = -np.log(np.take_along_axis(p, tokens[..., None], -1)[..., 0])
        values = (nll * masked).sum(1) * np.asarray(nelbo_weight(LogLinear(), t))
        total += values[: len(TEXTS) - 2 * i].sum()
    # Sums of float32 there, of float64 here.
    assert found[name] == pytest.approx(total / (2 * 5 * 12), rel=1e-4)
  assert found['nelbo_null'] != pytest.approx(found['nelbo_3_passes'], rel=1e-3)


def test_measures_of_samples_stand_beside_their_diversity():
  tokens = np.stack([TOKENIZER.encode(text, 12) for text in ['CCO', 'CCO', 'C1CC']])
  drawn = drawing.Drawn(tokens, None, 7, 7, 7, 0.0, np.full(3, 7))
  found = scoring.judge_samples(
    lambda samples: {'sum': int(samples.sum())}, drawn, TOKENIZER
  )
  assert (found['count'], found['evaluations']) == (3, 7)
  assert found['sum'] == tokens.sum()
  assert found['entropy'] > found['entropy_visible'] > 0
