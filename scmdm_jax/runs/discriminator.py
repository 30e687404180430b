"""A classifier, trained in an evaluation, that separates drawn rows from real ones."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from scmdm_jax.data import pipeline
from scmdm_jax.judges.classifier import rank_auroc
from scmdm_jax.models import classifier, denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.conv import ConvConfig
from scmdm_jax.runs import judges
from scmdm_jax.training.losses import class_nll
from scmdm_jax.training.step import OptimizerConfig, initial_state, make_train_step

_HELD_OUT = 0.1  # As published.
_BATCH = 16
_LEARNING_RATE = 1e-3
_OPTIMIZER = OptimizerConfig(ema_decay=0.99)


@functools.cache
def _compiled_step(description: ModelDescription, first_class: int):
  def loss(key: jax.Array, params: object, tokens: jax.Array) -> jax.Array:
    del key
    logits = classifier.bind(params, description).logits
    return class_nll(logits, tokens, first_class).mean()

  return make_train_step(loss, _OPTIMIZER)


def _network(vocab_size: int, length: int, first_class: int) -> ModelDescription:
  """A small convolutional network of two classes."""
  sizes = ConvConfig(
    vocab_size=vocab_size,
    length=length,
    hidden_dim=32,
    num_blocks=3,
    embedding_dim=8,
    kernel_size=7,
    first_class=first_class,
    num_classes=2,
  )
  return ModelDescription(sizes, mask_id=None, tokenizer='')


def discriminate(
  real: np.ndarray,
  drawn: np.ndarray,
  class_ids: tuple[int, ...],
  vocab_size: int,
  *,
  epochs: int,
  seed: int,
) -> float | None:
  """Area under the ROC curve of held-out rows: 0.5 if they look the same, else up to 1.

  The published protocol trains a HyenaDNA of two layers for 5 epochs on as many real
  sequences as drawn ones, 10 % of both held out at random; here it is a convolutional
  network. With `n` held-out rows of either kind an area of 0.5 has a standard error of
  about 0.4 / sqrt(n).

  Args:
    real: rows int32 [N, L]; their first token is not looked at.
    drawn: rows int32 [N, L].
    class_ids: of the rows' tokenizer; the first two stand for "drawn" and "real".
    vocab_size: of it.
    epochs: passes over the other 90 %.
    seed: of the split, the network and the order.

  Returns:
    None if there are too few rows to hold out one of each kind.
  """
  rows = np.concatenate([drawn, real])
  rows[:, 0] = np.repeat(class_ids[:2], [len(drawn), len(real)])
  order = np.random.default_rng(seed).permutation(len(rows))
  count = math.ceil(_HELD_OUT * len(rows))
  test, train = rows[order[:count]], rows[order[count:]]
  batch = min(_BATCH, len(train))
  positive = test[:, 0] == class_ids[1]
  if not batch or positive.all() or not positive.any():
    return None
  description = _network(vocab_size, rows.shape[1], class_ids[0])
  key = jax.random.key(seed)
  params = jax.jit(denoiser.init_params, static_argnums=1)(key, description)
  state = initial_state(params, _OPTIMIZER)
  step = _compiled_step(description, class_ids[0])
  batches = pipeline.training_batches(train, batch_size=batch, seed=seed)
  for _ in range(epochs * (len(train) // batch)):
    state, _ = step(state, next(batches).tokens, key, jnp.float32(_LEARNING_RATE))
  judge = judges.class_judge(state.ema, description, batch_size=64)
  scores = judge.logits(test)
  margin = scores[:, 1] - scores[:, 0]
  return rank_auroc(margin[positive], margin[~positive])
