"""What `docs/use_in_pytorch.md` shows, run on an exported model."""

import itertools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from scmdm_jax.checkpoints import store
from scmdm_jax.diffusion.masking import clean_logits
from scmdm_jax.diffusion.schedules import (
  LogLinear,
  reverse_alphas,
  reverse_noise_levels,
)
from scmdm_jax.models import denoiser
from scmdm_jax.models.injection import make_injection
from scmdm_jax.runs import converting
from scmdm_jax.verbs import export
from tests.checkpoints import manifests
from tests.compiling import quick_jit

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'use_in_pytorch.md'
KERNEL = 'self_conditioning.projection.kernel'
WIDTH, VOCAB, MASK, HEADS, LENGTH = 16, 11, 10, 2, 12
# Log-probabilities of order 1 to 10, in float32.
TOLERANCE = 1e-4


def load_page():
  """The names that the Python block of the page defines."""
  [block] = re.findall(r'^```python\n(.*?)^```', PAGE.read_text(), re.M | re.S)
  names = {}
  exec(compile(block, str(PAGE), 'exec'), names)
  return names


@pytest.fixture(scope='module', params=[False, True], ids=['mdlm', 'time conditioned'])
def models(request, tmp_path_factory):
  """(ours as a function, bound model, PyTorch model of the page) of one checkpoint."""
  torch = pytest.importorskip('torch', reason='the page is for PyTorch')
  from tests.checkpoints import mdlm_torch_reference as reference

  path = tmp_path_factory.mktemp('models')
  shapes = manifests.SMALL_MDLM | {KERNEL: (WIDTH, WIDTH)}
  config = manifests.MDLM_CONFIG | {
    'self_conditioning': 'embedding',
    'time_conditioning': request.param,
  }
  tensors = manifests.random_tensors(shapes, seed=5)
  manifests.write_directory(path / 'source', config, tensors)
  converting.import_model(str(path / 'source'), str(path / 'model'))
  export.export_model(str(path / 'model'), str(path / 'exported'))
  weights = {
    name: torch.from_numpy(value)
    for name, value in safetensors.numpy.load_file(
      path / 'exported' / 'model.safetensors'
    ).items()
  }
  kernel = weights.pop(KERNEL)

  class VocabEmbed(torch.nn.Module):
    def __init__(self):
      super().__init__()
      self.embedding = torch.nn.Parameter(weights['backbone.vocab_embed.embedding'])

    def forward(self, indices):
      return self.embedding[indices]

  class MDLM(torch.nn.Module):
    """The modules of the published class that the page touches."""

    def __init__(self):
      super().__init__()
      self.backbone = torch.nn.Module()
      self.backbone.vocab_embed = VocabEmbed()

    def forward(self, input_ids=None, timesteps=None, return_dict=None):
      assert return_dict is False
      return reference.forward(
        weights,
        input_ids,
        timesteps,
        num_heads=HEADS,
        time_conditioning=request.param,
        embed=self.backbone.vocab_embed,
      )

  theirs = load_page()['SelfConditioned'](MDLM(), kernel, MASK)
  description, params = store.load_model(path / 'model')
  bound = denoiser.bind(params, description)

  def ours(x_t, signal, sigma):
    logits = bound.logits(bound.encode(x_t, signal, sigma))
    return jax.nn.log_softmax(clean_logits(logits, MASK), axis=-1)

  return quick_jit(ours), bound, theirs


def assert_close(found, wanted):
  """Of log-probabilities; the mask has none."""
  np.testing.assert_array_equal(np.exp(found[..., MASK]), 0)
  np.testing.assert_allclose(
    found[..., :MASK], wanted[..., :MASK], atol=TOLERANCE, rtol=0
  )


@pytest.mark.slow
def test_log_probabilities_with_and_without_a_signal(models):
  import torch

  ours, _, theirs = models
  rng = np.random.default_rng(6)
  x_t = rng.integers(0, VOCAB, (3, LENGTH)).astype(np.int32)
  x_t[:, ::2] = MASK
  sigma = np.array([0.01, 0.7, 6.5], np.float32)
  signal = rng.standard_normal((3, LENGTH, WIDTH)).astype(np.float32)
  found = []
  for carried in (np.zeros_like(signal), signal):
    inputs = (torch.from_numpy(x) for x in (x_t.astype(np.int64), carried, sigma))
    with torch.no_grad():
      found.append(theirs(*inputs).numpy())
    assert_close(found[-1], np.asarray(ours(x_t, carried, sigma)))
  without, with_signal = (x[..., :MASK] for x in found)
  assert np.abs(with_signal - without).max() > 0.1  # The signal is read.


def test_sampler_carries_the_signal(models):
  """Its trajectory, replayed here: equal predictions at every step."""
  import torch

  ours, bound, theirs = models
  steps, batch = 8, 64
  seen = []
  hook = theirs.register_forward_hook(
    lambda module, inputs, output: seen.append((inputs[0], inputs[2], output))
  )
  start = torch.full((batch, LENGTH), MASK)
  start[:, 3] = 7  # A prompt.
  torch.manual_seed(0)
  samples = load_page()['sample'](theirs, start, steps)
  hook.remove()
  assert len(seen) == steps
  signal = jnp.zeros((batch, LENGTH, WIDTH))
  for x_t, sigma, log_probs in seen:
    x_t = x_t.numpy().astype(np.int32)
    wanted = ours(x_t, signal, sigma.numpy())
    assert_close(log_probs.numpy(), np.asarray(wanted))
    masked = (x_t == MASK)[..., None]
    signal = jnp.where(masked, bound.signal(jnp.exp(wanted)), signal)
  # Tokens are kept once written, and all of them are.
  states = [x_t for x_t, _, _ in seen] + [samples]
  for before, after in itertools.pairwise(states):
    assert torch.equal(after[before != MASK], before[before != MASK])
  assert not (samples == MASK).any()
  # Noise levels and the number of masked positions are the schedule's.
  sigmas = [sigma[0].item() for _, sigma, _ in seen]
  wanted = reverse_noise_levels(LogLinear(), steps)
  np.testing.assert_allclose(sigmas, wanted, rtol=1e-5)  # Float32 beside float64.
  count = batch * (LENGTH - 1)
  masked = np.array([(x_t == MASK).sum().item() / count for x_t in states])
  wanted = 1 - np.asarray(reverse_alphas(LogLinear(), steps))
  # Five standard errors of a share of `count` positions; none at either end.
  np.testing.assert_array_less(
    np.abs(masked - wanted), 5 * np.sqrt(wanted * (1 - wanted) / count) + 1e-6
  )


def test_sampler_draws_by_the_probabilities():
  """One step on one position, many times over, against fixed probabilities."""
  torch = pytest.importorskip('torch', reason='the page is for PyTorch')
  probs = torch.tensor([0.6, 0.25, 0.15, 0.0])

  class Fixed:
    kernel, mask_id = torch.zeros(2, 2), 3

    def __call__(self, x_t, signal, sigma):
      return probs.log().expand(*x_t.shape, 4)

    def next_signal(self, log_probs, x_t, signal):
      return signal

  torch.manual_seed(1)
  count = 20_000
  samples = load_page()['sample'](Fixed(), torch.full((count, 1), 3), 1)
  found = torch.bincount(samples.flatten(), minlength=4) / count
  error = (probs * (1 - probs) / count).sqrt()
  assert ((found - probs).abs() <= 5 * error).all()


def written_addend(name, weights, probs, table):
  """Signal and addend as the last paragraphs of the page say."""
  if name == 'table':
    signal = probs @ weights['table']
    return signal, signal
  if name == 'gate':
    signal = probs @ table - table[MASK]
    return signal, np.tanh(weights['gate']) * signal
  signal = probs @ table
  n = signal / np.sqrt(np.mean(signal**2, -1, keepdims=True) + 1e-6)
  n = n * weights['norm']['scale']
  x = n @ weights['gate']['kernel']
  gelu = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
  return signal, (gelu * (n @ weights['up']['kernel'])) @ weights['down']['kernel']


@pytest.mark.parametrize('name', ['mlp', 'table', 'gate'])
def test_other_injections_are_what_the_page_says(name):
  rng = np.random.default_rng(7)
  table = rng.standard_normal((VOCAB, WIDTH))
  probs = rng.dirichlet(np.ones(VOCAB), (3,))
  module = make_injection(name, VOCAB, WIDTH)
  weights = module.init(jax.random.key(0), jnp.zeros((1, WIDTH)))['params']
  weights = jax.tree.map(lambda x: rng.standard_normal(x.shape), weights)
  signal, wanted = written_addend(name, weights, probs, table)
  if name == 'table':
    read = module.apply({'params': weights}, probs, None, 0, method='signal')
    np.testing.assert_allclose(read, signal, atol=1e-5, rtol=1e-5)
  found = module.apply({'params': weights}, jnp.asarray(signal, jnp.float32))
  # Float32 beside float64, sums of 16 products of order 1 to 10.
  np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=1e-4)
