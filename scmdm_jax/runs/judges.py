"""Judges that are models, opened once and handed on as plain functions."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.errors import BadInput
from scmdm_jax.judges.classifier import accuracy, macro_f1
from scmdm_jax.judges.protocol import CausalJudge, ClassJudge
from scmdm_jax.judges.windows import Score, score
from scmdm_jax.models import classifier, denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.conv import ConvConfig
from scmdm_jax.processes import multihost
from scmdm_jax.runs import opening
from scmdm_jax.settings.options import Settings
from scmdm_jax.training.losses import CausalNetwork, causal_nll


def last_hidden(
  network: CausalNetwork, tokens: jax.Array, last: jax.Array
) -> jax.Array:
  """Hidden states at the last token of texts, float32 [B, D].

  Args:
    network: a causal model with its parameters bound.
    tokens: int32 [B, L]; what follows a text's last token is not seen.
    last: int32 [B], where that is.
  """
  batch, length = tokens.shape
  nothing = jnp.zeros((batch, length, network.signal_dim), jnp.float32)
  hidden = network.encode(tokens, nothing, jnp.zeros((batch,)))
  return hidden[jnp.arange(batch), last].astype(jnp.float32)


@functools.cache
def _compiled_nll(description: ModelDescription):
  """`causal_nll` of a judge: (parameters, tokens int32 [B, L]) -> nats [B, L - 1]."""

  def compute(params, tokens):
    return causal_nll(denoiser.bind(params, description), tokens)

  return jax.jit(compute)


@functools.cache
def _compiled_features(description: ModelDescription):
  """`last_hidden` of a judge: (parameters, int32 [B, L], int32 [B]) -> [B, D]."""

  def compute(params, tokens, last):
    return last_hidden(denoiser.bind(params, description), tokens, last)

  return jax.jit(compute)


def causal_judge(
  params: Any, description: ModelDescription, tokenizer: Tokenizer, batch_size: int
) -> CausalJudge:
  """A causal model as functions of any number of texts, shared by the processes.

  Its functions raise `multihost.Stopped`, before a batch, after SIGTERM.

  Args:
    params: of `denoiser.init_params`.
    description: a causal model.
    tokenizer: what it reads with.
    batch_size: texts, or windows of them, at a time.
  """
  limit = description.architecture.length

  def nll(tokens: np.ndarray) -> jax.Array:
    multihost.leave_if_asked('judging')
    return _compiled_nll(description)(params, tokens)

  def score_of(
    texts: Sequence[np.ndarray],
    *,
    length: int,
    stride: int,
    counted: Sequence[np.ndarray] | None = None,
  ) -> Score:
    return score(
      nll,
      texts,
      length=length,
      stride=stride,
      batch_size=batch_size,
      counted=counted,
      mapped=multihost.mapped,
    )

  def features(texts: Sequence[np.ndarray], last: np.ndarray) -> np.ndarray:
    width = min(-(-max(len(text) for text in texts) // 64) * 64, limit)
    tokens = np.zeros((len(texts), width), np.int32)
    for i, text in enumerate(texts):
      tokens[i, : len(text)] = text

    def hidden(first: int) -> jax.Array:
      multihost.leave_if_asked('judging')
      # The last batch repeats its last row, so that all have one shape.
      chosen = np.minimum(np.arange(first, first + batch_size), len(texts) - 1)
      return _compiled_features(description)(params, tokens[chosen], last[chosen])

    found = multihost.mapped(hidden, range(0, len(texts), batch_size))
    return np.concatenate([*found])[: len(texts)]

  return CausalJudge(tokenizer, limit, score_of, features)


def load_causal(
  settings: Settings, workdir: pathlib.Path, tokenizer: Tokenizer
) -> CausalJudge | None:
  """The causal model named by `judge`, or None when there is none.

  It reads with its own tokenizer; one that brings none reads with the run's.
  """
  judge = opening.load_judge(settings, workdir, tokenizer)
  if judge is None:
    return None
  return causal_judge(
    judge.params, judge.description, judge.tokenizer, settings.evaluate.batch_size
  )


@functools.cache
def _compiled_classifier(description: ModelDescription, name: str):
  """Compiles `(params, rows) -> features or logits`."""
  return jax.jit(
    lambda params, rows: getattr(classifier.bind(params, description), name)(rows)
  )


def class_judge(
  params: object, description: ModelDescription, batch_size: int
) -> ClassJudge:
  """A classifier as functions of any number of rows.

  Args:
    params: of `denoiser.init_params`.
    description: a classifier.
    batch_size: rows at a time.
  """
  arch = description.architecture
  assert isinstance(arch, ConvConfig)

  def mapped(name: str) -> Callable[[np.ndarray], np.ndarray]:
    def of(rows: np.ndarray) -> np.ndarray:
      def scores(first: int) -> jax.Array:
        batch = rows[first : first + batch_size]
        filled = np.resize(batch, (batch_size, *batch.shape[1:]))  # One shape for all.
        return _compiled_classifier(description, name)(params, filled)

      found = multihost.mapped(scores, range(0, len(rows), batch_size))
      return np.concatenate([*found])[: len(rows)]

    return of

  return ClassJudge(mapped('features'), mapped('logits'), arch.first_class)


def load_classifier(
  settings: Settings, workdir: pathlib.Path, tokenizer: Tokenizer
) -> ClassJudge | None:
  """The classifier named by `judge`, or None when there is none.

  Raises:
    BadInput: it is another kind of model, or not for the run's tokenizer and length.
  """
  judge = opening.load_judge(settings, workdir, tokenizer, 'classify')
  if judge is None:
    return None
  where, arch = f'judge {settings.judge}', judge.description.architecture
  assert isinstance(arch, ConvConfig)
  description = opening.fitted(judge.description, tokenizer, settings, where)
  ids = range(arch.first_class, arch.first_class + arch.num_classes)
  if tuple(ids) != tokenizer.class_ids:
    raise BadInput(
      f'{where}: its classes are ids {ids[0]} to {ids[-1]}; wanted those of '
      f'{tokenizer.name}, {tokenizer.class_ids[:1]} to {tokenizer.class_ids[-1:]}'
    )
  return class_judge(judge.params, description, settings.evaluate.batch_size)


def heldout_figures(
  params: object, description: ModelDescription, rows: Rows, batch_size: int
) -> dict[str, float]:
  """Accuracy and macro F1 on rows that a classifier has not seen."""
  judge = class_judge(params, description, batch_size)
  seen = np.stack([rows[i] for i in range(len(rows))])
  wanted, found = seen[:, 0] - judge.first_class, judge.classes(seen)
  arch = description.architecture
  assert isinstance(arch, ConvConfig)
  return {
    'accuracy': accuracy(wanted, found),
    'macro_f1': macro_f1(wanted, found, arch.num_classes),
  }
