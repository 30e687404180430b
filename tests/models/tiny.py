"""A tiny model of every architecture, and what to feed it."""

import dataclasses

import jax
import ml_dtypes
import numpy as np

from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from scmdm_jax.models.families.gpt2 import GPT2Config
from scmdm_jax.models.families.llama import DecoderConfig

VOCAB, LENGTH, DIM, MASK = 9, 6, 8, 4
DIT = DiTConfig(VOCAB, LENGTH, DIM, num_blocks=1, num_heads=2, cond_dim=4)
LLADA = DecoderConfig(
  VOCAB, LENGTH, DIM, num_blocks=1, num_heads=2, num_kv_heads=2, mlp_dim=8, causal=False
)
ARCHITECTURES = {
  'dit': DIT,
  'udlm': dataclasses.replace(DIT, time_conditioning=True, num_classes=2),
  'llada': LLADA,
  'dream': dataclasses.replace(LLADA, num_kv_heads=1, qkv_bias=True, shifted=True),
  'tied': dataclasses.replace(LLADA, tied=True),
  'gpt2': GPT2Config(VOCAB, LENGTH, DIM, num_blocks=1, num_heads=2, mlp_dim=8),
}
SIGMA = np.zeros(4, np.float32)


def tokens_with_masks():
  rng = np.random.default_rng(0)
  tokens = rng.choice([v for v in range(VOCAB) if v != MASK], (4, LENGTH))
  tokens[:, [1, 2, 5]] = MASK
  return tokens.astype(np.int32)


def some_probs(seed=1):
  """Clean-state predictions, the first of them certain."""
  probs = np.random.default_rng(seed).dirichlet(np.ones(VOCAB), (4, LENGTH))
  probs[..., MASK] = 0
  probs[0] = np.eye(VOCAB)[0]
  return (probs / probs.sum(-1, keepdims=True)).astype(np.float32)


def describe(arch, injection):
  return ModelDescription(ARCHITECTURES[arch], MASK, tokenizer='', injection=injection)


TABLES = ('vocab_embed', 'embed_tokens', 'wte')


def embedding_table(backbone):
  (name,) = backbone.keys() & set(TABLES)
  return np.asarray(backbone[name]['embedding'])


def in_bfloat16(tree):
  return jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16), tree)
