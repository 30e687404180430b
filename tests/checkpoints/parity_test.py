"""Tensors under their published names give the logits of independent implementations.

Every case is one kind of file with all-random numbers in it, at a size where the parts
are all different. Padding and classes are on wherever a model has them.
"""

import functools

import jax
import ml_dtypes
import numpy as np
import pytest

from scmdm_jax.checkpoints import layouts, model_config
from scmdm_jax.diffusion.masking import clean_logits
from scmdm_jax.models import denoiser
from scmdm_jax.models.attention import EVERYBODY, AttentionMask
from tests.checkpoints import llama_numpy_reference, manifests
from tests.compiling import quick_jit

# Of logits of order 1 to 10, in float32; the largest error found is 3e-5.
TOLERANCE = 1e-4
BATCH, LENGTH = 3, 17
VOCAB, WIDTH, BLOCKS, HEADS, KV_HEADS, MLP = 35, 48, 2, 4, 2, 56
KV_WIDTH = WIDTH // HEADS * KV_HEADS

SIGMA = np.array([0.01, 0.7, 6.5], np.float32)
CLASSES = np.array([0, 2, 3], np.int32)  # 3 of 3 classes is "none".
# The first is whole, the others are padded on the right.
REAL = np.arange(LENGTH)[None] < np.array([LENGTH, 12, 5])[:, None]
IDS = np.random.default_rng(2).integers(0, VOCAB, (BATCH, LENGTH)).astype(np.int32)

MDLM_SIZES = {
  'vocab_size': VOCAB,
  'model_length': 32,
  'hidden_dim': WIDTH,
  'n_blocks': BLOCKS,
  'n_heads': HEADS,
  'cond_dim': 16,
}
LLAMA_SIZES = {
  'vocab_size': VOCAB,
  'max_position_embeddings': 32,
  'hidden_size': WIDTH,
  'num_hidden_layers': BLOCKS,
  'num_attention_heads': HEADS,
  'num_key_value_heads': KV_HEADS,
  'intermediate_size': MLP,
}
LLADA_SIZES = {
  'vocab_size': VOCAB,
  'embedding_size': VOCAB,
  'max_sequence_length': 32,
  'd_model': WIDTH,
  'n_layers': BLOCKS,
  'n_heads': HEADS,
  'n_kv_heads': HEADS,
  'mlp_hidden_size': MLP,
}
GPT2_SIZES = {
  'vocab_size': VOCAB,
  'n_positions': 32,
  'n_ctx': 32,
  'n_embd': WIDTH,
  'n_layer': BLOCKS,
  'n_head': HEADS,
}
mdlm = functools.partial(manifests.mdlm, V=VOCAB, d=WIDTH, L=BLOCKS, h=HEADS, c=16)
llama = functools.partial(
  manifests.llama, V=VOCAB, d=WIDTH, L=BLOCKS, ff=MLP, kv=KV_WIDTH
)
dream = manifests.dream(V=VOCAB, d=WIDTH, L=BLOCKS, ff=MLP, kv=KV_WIDTH)
llada = manifests.llada(V=VOCAB, d=WIDTH, L=BLOCKS, ff=MLP)
gpt2 = manifests.gpt2(V=VOCAB, L=BLOCKS, d=WIDTH, length=32)
# (config.json, shapes, size of the random numbers: logits come out of order 1 to 10).
CASES = {
  'mdlm': (manifests.MDLM_CONFIG | MDLM_SIZES, mdlm(), 0.3),
  'udlm_without_classes': (
    manifests.UDLM_CONFIG | MDLM_SIZES | {'cfg': False},
    mdlm(),
    0.3,
  ),
  'udlm': (manifests.UDLM_CONFIG | MDLM_SIZES, mdlm(classes=3), 0.3),
  'llama': (manifests.LLAMA_CONFIG | LLAMA_SIZES, llama(), 0.5),
  'tied_llama': (manifests.TIED_LLAMA_CONFIG | LLAMA_SIZES, llama(tied=True), 0.5),
  'qwen2': (manifests.QWEN2_CONFIG | LLAMA_SIZES, dream, 0.5),
  'dream': (manifests.DREAM_CONFIG | LLAMA_SIZES, dream, 0.5),
  'llada': (manifests.LLADA_CONFIG | LLADA_SIZES, llada, 0.5),
  'gpt2': (manifests.GPT2_CONFIG | GPT2_SIZES, gpt2, 0.5),
}


def reference_logits(name, tensors, real):
  """The logits of the PyTorch reference, float32 [B, L, V]."""
  torch = pytest.importorskip('torch', reason='PyTorch is the reference')
  from tests.checkpoints import gpt2_torch_reference as gpt2_reference
  from tests.checkpoints import llama_torch_reference as llama_reference
  from tests.checkpoints import mdlm_torch_reference as mdlm_reference

  config = CASES[name][0]
  tensors = {name: torch.from_numpy(value) for name, value in tensors.items()}
  ids = torch.from_numpy(IDS).long()
  real = None if real is None else torch.from_numpy(real)
  if 'n_blocks' in config:
    classes = torch.from_numpy(CLASSES).long() if name == 'udlm' else None
    return mdlm_reference.forward(
      tensors,
      ids,
      torch.from_numpy(SIGMA),
      num_heads=HEADS,
      time_conditioning=config['time_conditioning'],
      classes=classes,
      real=real,
    ).numpy()
  if name == 'gpt2':
    return gpt2_reference.forward(tensors, ids, heads=HEADS, real=real).numpy()
  names = llama_reference.LLADA if name == 'llada' else llama_reference.HUGGING_FACE
  return llama_reference.forward(
    tensors,
    ids,
    names=names,
    heads=HEADS,
    kv_heads=HEADS if name == 'llada' else KV_HEADS,
    theta=config['rope_theta'],
    eps=config['rms_norm_eps'],
    causal=name not in ('llada', 'dream'),
    shifted=name == 'dream',
    real=real,
  ).numpy()


def our_params(description, tensors):
  entries = layouts.check(description, {n: t.shape for n, t in tensors.items()}, 'here')
  params = {'backbone': {}, 'self_conditioning': {}}
  for name, entry in entries.items():
    node = params
    for key in entry.path[:-1]:
      node = node.setdefault(key, {})
    node[entry.path[-1]] = entry.from_file(tensors[name])
  return params


@functools.cache
def our_function(name):
  """(parameters, ids, sigma, mask) -> raw logits of the bound model, compiled."""
  description = model_config.description_from_config(CASES[name][0], 'config.json')
  classes = CLASSES if name == 'udlm' else None

  def logits(params, ids, sigma, mask):
    model = denoiser.bind(params, description, classes)
    null = np.zeros((*ids.shape, model.signal_dim), np.float32)
    return model.logits(model.encode(ids, null, sigma, mask))

  return description, quick_jit(logits)


def our_logits(name, tensors, real):
  """Raw logits through config.json, the table of names and the bound model."""
  description, function = our_function(name)
  mask = EVERYBODY if real is None else AttentionMask(segments=real.astype(np.int32))
  return np.asarray(function(our_params(description, tensors), IDS, SIGMA, mask))


def tensors_of(name):
  _, shapes, scale = CASES[name]
  return manifests.random_tensors(shapes, seed=1, scale=scale)


@pytest.mark.parametrize('real', [np.ones_like(REAL), REAL], ids=['whole', 'padded'])
@pytest.mark.parametrize('name', list(CASES))
def test_logits(name, real):
  tensors = tensors_of(name)
  wanted = reference_logits(name, tensors, real)
  found = our_logits(name, tensors, real)
  assert 0.5 < np.std(wanted) < 20
  assert found.dtype == np.float32
  np.testing.assert_allclose(found[real], wanted[real], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize('causal', [True, False])
def test_llama_by_hand(causal):
  # One head and one position at a time, in float64; no PyTorch needed. Our own field
  # `causal` makes a denoiser of the layout.
  config = manifests.LLAMA_CONFIG | {'causal': causal}
  tensors = manifests.random_tensors(manifests.SMALL_LLAMA, seed=3, scale=0.5)
  description = model_config.description_from_config(config, 'config.json')
  ids = np.random.default_rng(4).integers(0, 11, (2, 9)).astype(np.int32)
  model = denoiser.bind(our_params(description, tensors), description)
  null = np.zeros((2, 9, model.signal_dim), np.float32)
  encode = quick_jit(lambda ids: model.logits(model.encode(ids, null, np.zeros(2))))
  wanted = np.stack(
    [llama_numpy_reference.forward(tensors, config, row, causal) for row in ids]
  )
  assert np.std(wanted) > 0.5
  np.testing.assert_allclose(encode(ids), wanted, atol=TOLERANCE, rtol=0)


# Mean KL divergence per token in nats, from the float32 reference to ours in bfloat16,
# both on the rounded weights. Measured: 1.5e-5 (mdlm), 1.4e-5 and 1.2e-5 (udlm without
# and with classes), 3.5e-4 and 2.7e-4 (llama, untied and tied), 4.9e-4 (qwen2), 6.3e-4
# (dream), 5.1e-4 (llada), 2.0e-5 (gpt2). A KL is half the variance of the error of the
# logits: eight bits of activation leave one of up to 2% in logits whose deviation is 2.
# The bounds allow twice the KL, for other orders of summation.
KL_BOUNDS = {
  'mdlm': 3e-5,
  'udlm': 3e-5,
  'llama': 7e-4,
  'qwen2': 1e-3,
  'Dream': 1.3e-3,
  'llada': 1e-3,
  'gpt2': 4e-5,
}


def log_softmax(logits):
  logits = logits.astype(np.float64)
  logits = logits - logits.max(-1, keepdims=True)
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize('name', ['mdlm', 'llada', 'dream'])
def test_log_probabilities_of_clean_tokens(name):
  # SUBS as its authors do it: the mask's score falls by a million, then log-softmax.
  tensors = tensors_of(name)
  mask_id = CASES[name][0].get('mask_token_id', VOCAB - 1)
  wanted = reference_logits(name, tensors, None).astype(np.float64)
  wanted[..., mask_id] -= 1e6
  wanted = log_softmax(wanted)
  clean = clean_logits(our_logits(name, tensors, None), mask_id)
  found = np.asarray(jax.nn.log_softmax(clean, axis=-1))
  assert np.all(np.exp(found[..., mask_id]) == 0)
  others = np.arange(VOCAB) != mask_id
  np.testing.assert_allclose(
    found[..., others], wanted[..., others], atol=TOLERANCE, rtol=0
  )


@pytest.mark.parametrize('name', list(CASES))
def test_bfloat16_is_near_float32(name):
  rounded = {n: t.astype(ml_dtypes.bfloat16) for n, t in tensors_of(name).items()}
  widened = {n: t.astype(np.float32) for n, t in rounded.items()}
  wanted = log_softmax(reference_logits(name, widened, None))
  found = our_logits(name, rounded, None)
  assert found.dtype == np.float32
  kl = np.sum(np.exp(wanted) * (wanted - log_softmax(found)), axis=-1)
  # Below this nothing was rounded: it would not be bfloat16.
  assert 1e-6 < kl.mean() < KL_BOUNDS[CASES[name][0]['model_type']]
