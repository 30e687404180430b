"""How well a classifier knows the classes of rows.

A row is int32 [L] and begins with the token of its class; classes have ids in a run.
"""

import numpy as np


def accuracy(wanted: np.ndarray, found: np.ndarray) -> float:
  """Share of classes [N] that were found."""
  return float(np.mean(wanted == found))


def macro_f1(wanted: np.ndarray, found: np.ndarray, num_classes: int) -> float:
  """Unweighted mean over all classes of 2 tp / (2 tp + fp + fn).

  As scikit-learn's `f1_score(average='macro', labels=range(num_classes))`: a class that
  is neither wanted nor found counts as 0.

  Args:
    wanted: classes [N].
    found: what the classifier says, [N].
    num_classes: C.
  """
  scores = []
  for label in range(num_classes):
    hits = np.sum((wanted == label) & (found == label))
    marked = np.sum(wanted == label) + np.sum(found == label)
    scores.append(2 * hits / marked if marked else 0.0)
  return float(np.mean(scores))
