"""Judges that know classes: models trained with `method.objective=classify`."""

import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.errors import BadInput
from scmdm_jax.judges.classifier import accuracy, macro_f1
from scmdm_jax.models import classifier
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.conv import ConvConfig
from scmdm_jax.runs import opening
from scmdm_jax.settings.options import Settings


class ClassJudge(NamedTuple):
  """A classifier on the host, working through any number of rows in batches.

  features: rows int32 [N, L] -> float32 [N, D].
  logits: rows int32 [N, L] -> class scores float32 [N, C].
  first_class: id of class 0.
  """

  features: Callable[[np.ndarray], np.ndarray]
  logits: Callable[[np.ndarray], np.ndarray]
  first_class: int

  def classes(self, rows: np.ndarray) -> np.ndarray:
    """The likeliest class of every row, int32 [N]."""
    return self.logits(rows).argmax(-1).astype(np.int32)


@functools.cache
def _compiled(description: ModelDescription, name: str):
  """Compiles `(params, rows) -> features or logits`."""
  return jax.jit(
    lambda params, rows: getattr(classifier.bind(params, description), name)(rows)
  )


def judge_of(
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
      found = []
      for first in range(0, len(rows), batch_size):
        batch = rows[first : first + batch_size]
        filled = np.resize(batch, (batch_size, *batch.shape[1:]))  # One shape for all.
        scores = _compiled(description, name)(params, filled)
        found.append(np.asarray(scores)[: len(batch)])
      return np.concatenate(found)

    return of

  return ClassJudge(mapped('features'), mapped('logits'), arch.first_class)


def load_classifier(
  settings: Settings, workdir: pathlib.Path, tokenizer: Tokenizer
) -> ClassJudge | None:
  """The classifier named by `judge`, or None when there is none.

  Raises:
    BadInput: it is another kind of model, or not for the run's tokenizer and length.
  """
  judge = opening.load_judge(settings, workdir, tokenizer)
  if judge is None:
    return None
  where, arch = f'judge {settings.judge}', judge.description.architecture
  if not isinstance(arch, ConvConfig):
    raise BadInput(
      f'{where}: not a classifier; wanted one, as method.objective = classify makes'
    )
  description = opening.fitted(judge.description, tokenizer, settings, where)
  ids = range(arch.first_class, arch.first_class + arch.num_classes)
  if tuple(ids) != tokenizer.class_ids:
    raise BadInput(
      f'{where}: its classes are ids {ids[0]} to {ids[-1]}; wanted those of '
      f'{tokenizer.name}, {tokenizer.class_ids[:1]} to {tokenizer.class_ids[-1:]}'
    )
  return judge_of(judge.params, description, settings.evaluate.batch_size)


def heldout_figures(
  params: object, description: ModelDescription, rows: Rows, batch_size: int
) -> dict[str, float]:
  """Accuracy and macro F1 on rows that a classifier has not seen."""
  judge = judge_of(params, description, batch_size)
  seen = np.stack([rows[i] for i in range(len(rows))])
  wanted, found = seen[:, 0] - judge.first_class, judge.classes(seen)
  arch = description.architecture
  assert isinstance(arch, ConvConfig)
  return {
    'accuracy': accuracy(wanted, found),
    'macro_f1': macro_f1(wanted, found, arch.num_classes),
  }
