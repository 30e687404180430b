"""Imported weights give the logits of independent implementations."""

import jax
import numpy as np
import pytest

from scmdm_jax.checkpoints import store
from scmdm_jax.models import denoiser
from scmdm_jax.modes import convert
from tests.checkpoints import llama_numpy_reference, manifests

# Of logits of order 1 to 10, in float32.
TOLERANCE = 1e-4
MDLM_SIZES = {
  'vocab_size': 35,
  'model_length': 32,
  'hidden_dim': 48,
  'n_blocks': 3,
  'n_heads': 4,
  'cond_dim': 16,
}


def imported_logits(tmp_path, config, tensors, ids, sigma):
  """Raw logits through the whole road: files -> import -> Orbax -> bound model."""
  source = manifests.write_directory(tmp_path / 'source', config, tensors)
  convert.import_model(str(source), str(tmp_path / 'model'))
  description, params = store.load_model(tmp_path / 'model')

  @jax.jit
  def logits(params, ids, sigma):
    model = denoiser.bind(params, description)
    null = np.zeros((*ids.shape, model.signal_dim), np.float32)
    return model.logits(model.encode(ids, null, sigma))

  return np.asarray(logits(params, ids, sigma))


@pytest.mark.parametrize('time_conditioning', [False, True])
def test_mdlm_logits(tmp_path, time_conditioning):
  torch = pytest.importorskip('torch', reason='PyTorch is the reference')
  from tests.checkpoints import mdlm_torch_reference as reference

  sizes = MDLM_SIZES
  shapes = manifests.mdlm(
    V=sizes['vocab_size'],
    d=sizes['hidden_dim'],
    L=sizes['n_blocks'],
    h=sizes['n_heads'],
    c=sizes['cond_dim'],
  )
  tensors = manifests.random_tensors(shapes, seed=1, scale=0.2)
  rng = np.random.default_rng(2)
  ids = rng.integers(0, sizes['vocab_size'], (3, 17)).astype(np.int32)
  sigma = np.array([0.01, 0.7, 6.5], np.float32)
  wanted = reference.forward(
    {name: torch.from_numpy(value) for name, value in tensors.items()},
    torch.from_numpy(ids).long(),
    torch.from_numpy(sigma),
    num_heads=sizes['n_heads'],
    time_conditioning=time_conditioning,
  ).numpy()
  config = {'model_type': 'mdlm', **sizes, 'time_conditioning': time_conditioning}
  found = imported_logits(tmp_path, config, tensors, ids, sigma)
  assert np.std(wanted) > 0.5
  np.testing.assert_allclose(found, wanted, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize('causal', [True, False])
def test_llama_logits(tmp_path, causal):
  config = manifests.LLAMA_CONFIG | {'causal': causal}
  tensors = manifests.random_tensors(manifests.SMALL_LLAMA, seed=3, scale=0.4)
  ids = np.random.default_rng(4).integers(0, 11, (2, 9)).astype(np.int32)
  sigma = np.zeros(2, np.float32)
  found = imported_logits(tmp_path, config, tensors, ids, sigma)
  wanted = np.stack(
    [llama_numpy_reference.forward(tensors, config, row, causal) for row in ids]
  )
  assert np.std(wanted) > 0.5
  np.testing.assert_allclose(found, wanted, atol=TOLERANCE, rtol=0)
