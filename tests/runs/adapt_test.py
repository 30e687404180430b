"""Every backbone, imported from its own kind of file and adapted by `--mode=train`."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.checkpoints import safetensors_files, store
from scmdm_jax.models import denoiser
from tests import tiny_run
from tests.checkpoints import manifests
from tests.compiling import quick_jit

pytestmark = pytest.mark.slow

V, LENGTH, MASK = 35, 32, 2  # Of the tokenizer 'smiles_qm9'.
NAMED = {'vocab_size': V, 'mask_token_id': MASK, 'tokenizer': 'smiles_qm9'}
DIT = {'model_length': LENGTH} | NAMED
DECODER = {'max_position_embeddings': LENGTH} | NAMED
MASKED = {
  'mdlm': (manifests.MDLM_CONFIG | DIT, manifests.mdlm(V, 16, 2, 2, 8)),
  'udlm': (manifests.UDLM_CONFIG | DIT, manifests.mdlm(V, 16, 2, 2, 8, classes=3)),
  'llada': (
    manifests.LLADA_CONFIG
    | NAMED
    | {'max_sequence_length': LENGTH, 'embedding_size': V, 'eos_token_id': 1},
    manifests.llada(V, 16, 2, 24),
  ),
  'dream': (manifests.DREAM_CONFIG | DECODER, manifests.dream(V, 16, 2, 24, 8)),
}
CAUSAL = {
  'llama': (manifests.LLAMA_CONFIG | DECODER, manifests.llama(V, 16, 2, 24, 8)),
  'qwen2': (manifests.QWEN2_CONFIG | DECODER, manifests.dream(V, 16, 2, 24, 8)),
  'gpt2': (
    manifests.GPT2_CONFIG | NAMED | {'n_positions': LENGTH, 'n_ctx': LENGTH},
    manifests.gpt2(V, 2, 16, LENGTH),
  ),
}


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'jit', quick_jit)
    yield


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  return tiny_run.write_config(tmp_path_factory.mktemp('config'))


def write_source(directory, config, shapes):
  tensors = manifests.random_tensors(shapes, scale=0.1)
  for name, value in tensors.items():  # Norms near one, as in a trained model.
    if ('norm' in name and name.endswith('weight')) or '.ln_' in name:
      value += 1
  return manifests.write_directory(directory, config, tensors)


def train(program, config, source, workdir, *options):
  return program.figures(
    '--mode=train',
    f'--config={config}',
    f'--workdir={workdir}',
    f'--config.checkpoint={source}',
    f'--config.data.length={LENGTH}',
    '--config.train.num_steps=40',
    '--config.train.save_every=40',
    '--config.train.batch_size=32',
    '--config.train.ema_decay=0.0',
    *options,
  )


def falls(workdir):
  """Mean of the last ten losses below that of the first ten by 4 standard errors."""
  losses = np.array([loss for _, loss, _ in tiny_run.curve(workdir)])
  first, last = losses[:10], losses[-10:]
  error = np.sqrt(first.var(ddof=1) / 10 + last.var(ddof=1) / 10)
  return first.mean() - last.mean() > 4 * error


@pytest.mark.parametrize('kind', MASKED)
def test_masked_backbones_adapt(kind, config, tmp_path, capsys):
  program = tiny_run.Program(capsys)
  source = write_source(tmp_path / 'source', *MASKED[kind])
  train(program, config, source, tmp_path / 'run')
  assert falls(tmp_path / 'run')
  description, _ = store.load_model(tmp_path / 'run')
  assert (description.injection, description.noise) == ('embedding', 'mask')
  # And back into files of the source's layout.
  program.figures(
    '--mode=export', f'--source={tmp_path / "run"}', f'--workdir={tmp_path / "out"}'
  )
  names = safetensors_files.open_source(tmp_path / 'out').tensors.keys()
  added = names - MASKED[kind][1].keys()
  assert added == {'self_conditioning.projection.kernel'}


@functools.cache
def logits_of(description):
  """One program, and not one for each of its operations."""

  def compute(params, tokens, signal):
    network = denoiser.bind(params, description)
    return network.logits(network.encode(tokens, signal, jnp.zeros(len(tokens))))

  return quick_jit(compute)


@pytest.mark.parametrize('kind', MASKED)
def test_identity_at_the_start(kind, tmp_path, capsys):
  """Whatever the signal, a fresh injection leaves the imported model's scores."""
  program = tiny_run.Program(capsys)
  source = write_source(tmp_path / 'source', *MASKED[kind])
  program.figures(
    '--mode=import', f'--source={source}', f'--workdir={tmp_path / "base"}'
  )
  base, params = store.load_model(tmp_path / 'base')
  adapted = dataclasses.replace(base, injection='embedding')
  key = jax.random.key(0)
  fresh = denoiser.init_self_conditioning(key, adapted)
  tokens = jax.random.randint(key, (3, LENGTH), 0, V).at[:, ::3].set(MASK)
  signal = jax.random.normal(key, (3, LENGTH, 16))
  found = []
  for description, weights, s in (
    (base, params, jnp.zeros_like(signal)),
    (adapted, params | {'self_conditioning': fresh}, signal),
  ):
    found.append(logits_of(description)(weights, tokens, s))
  np.testing.assert_array_equal(*found)
  # Which could not be told apart from an injection that does nothing at all.
  moved = jax.tree.map(lambda x: jax.random.normal(key, x.shape), fresh)
  changed = logits_of(adapted)(params | {'self_conditioning': moved}, tokens, signal)
  assert float(jnp.abs(changed - found[0]).max()) > 1e-3


@pytest.mark.parametrize('kind', CAUSAL)
def test_causal_backbones_train(kind, config, tmp_path, capsys):
  fields, shapes = CAUSAL[kind]
  fields = {k: v for k, v in fields.items() if k != 'mask_token_id'}
  source = write_source(tmp_path / 'source', fields, shapes)
  train(
    tiny_run.Program(capsys),
    config,
    source,
    tmp_path / 'run',
    '--config.method.objective=causal',
  )
  assert falls(tmp_path / 'run')
