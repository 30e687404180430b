"""The PyTorch contender computes the same network, and MDLM's own chain."""

import numpy as np
import pytest

from scmdm_jax.checkpoints import layouts
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from tests.compiling import quick_jit
from tests.models import parameters

torch = pytest.importorskip('torch')

DESCRIPTION = ModelDescription(
  DiTConfig(
    vocab_size=11, length=12, hidden_dim=16, num_blocks=2, num_heads=2, cond_dim=8
  ),
  mask_id=10,
  tokenizer='',
)


@pytest.fixture(scope='module')
def network():
  from scmdm_jax.benchmarks import torch_mdlm

  params = parameters.random_params(DESCRIPTION, seed=0, scale=0.3)
  tensors = {}
  for name, entry in layouts.entries_of(DESCRIPTION).items():
    value = params
    for key in entry.path:
      value = value[key]
    tensors[name] = np.asarray(value).T if entry.transposed else np.asarray(value)
  return params, torch_mdlm.TorchMDLM(tensors, num_heads=2)


def test_logits_agree(network):
  params, theirs = network
  ids = np.random.default_rng(1).integers(0, 11, (3, 12))
  bound = denoiser.bind(params, DESCRIPTION)
  null = np.zeros((3, 12, 16), np.float32)
  ours = quick_jit(lambda *inputs: bound.logits(bound.encode(*inputs)))
  with torch.no_grad():
    wanted = theirs(torch.from_numpy(ids)).numpy()
  found = ours(ids.astype(np.int32), null, np.zeros(3, np.float32))
  np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_its_sampler_reveals_everything_at_the_right_rate():
  from scmdm_jax.benchmarks import torch_mdlm

  probs = torch.tensor([0.5, 0.3, 0.2, 0.0])
  torch.manual_seed(0)
  n = 200_000
  found = torch_mdlm.sample(
    lambda x: probs.log().expand(*x.shape, 4).clone(), n // 100, 100, 3, num_steps=4
  )
  counts = np.bincount(found.numpy().ravel(), minlength=4)
  assert counts[3] == 0
  wanted = n * probs.numpy()[:3]
  assert np.all(np.abs(counts[:3] - wanted) < 4 * np.sqrt(wanted))
