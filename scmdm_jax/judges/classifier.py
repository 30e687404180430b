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


def rank_auroc(positive: np.ndarray, negative: np.ndarray) -> float:
  """Area under the ROC curve, exactly: P(positive > negative) + P(equal) / 2.

  Args:
    positive: scores `[N]` of what should score high.
    negative: scores `[M]` of what should not.
  """
  both = np.concatenate([positive, negative])
  values, inverse, counts = np.unique(both, return_inverse=True, return_counts=True)
  del values
  last = np.cumsum(counts)
  ranks = (last - (counts - 1) / 2)[inverse]  # Equal scores share their mean rank.
  n, m = len(positive), len(negative)
  return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))
