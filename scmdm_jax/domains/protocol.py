"""What the modes ask of a domain."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.settings.options import DataSettings, Settings

# Samples int32 [N, L] -> measures by name.
Measure = Callable[[np.ndarray], dict[str, Any]]


def _nothing_written(
  directory: pathlib.Path, samples: np.ndarray, tokenizer: Tokenizer
) -> None:
  del directory, samples, tokenizer


def _nothing_refused(
  data: DataSettings, directory: pathlib.Path, tokenizer: Tokenizer
) -> None:
  del data, directory, tokenizer


class Domain(NamedTuple):
  """One kind of data, as plain functions.

  name: what `settings.DATASETS` and the report call it.
  read_rows: (data, tokenizer, split 'train' or 'test') -> examples int32 [L] each,
    prepared first if need be.
  judging: (settings, workdir, tokenizer) -> `Measure` of samples; what it reads (the
    judge named by `settings.judge`, reference data) is read once, here. A measure whose
    judge is not given is None.
  swept: names of the measures that the comparison follows along temperatures, to
    compare at equal entropy.
  of_likelihood: likelihoods in nats per token -> further figures by name.
  write: (workdir, samples, tokenizer): files of the domain beside `samples.jsonl`.
  check: (data, workdir, tokenizer): raises BadInput, before anything is drawn, where
    `write` would refuse or the tokenizer is not one for the data.
  fields: (sample int32 [L], tokenizer) -> what its line of `samples.jsonl` has beside
    index, text and tokens.
  length: data -> tokens of the longest example, where `data.length` may be 0.
  tokenizer: data -> the folder of a tokenizer made of them, where there is one.
  framing: data -> one of `description.FRAMINGS`, of a model trained on its rows.
  """

  name: str
  read_rows: Callable[[DataSettings, Tokenizer, str], Rows]
  judging: Callable[[Settings, pathlib.Path, Tokenizer], Measure]
  swept: tuple[str, ...]
  of_likelihood: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda _: {}
  write: Callable[[pathlib.Path, np.ndarray, Tokenizer], None] = _nothing_written
  check: Callable[[DataSettings, pathlib.Path, Tokenizer], None] = _nothing_refused
  framing: Callable[[DataSettings], str] = lambda _: ''
  length: Callable[[DataSettings], int] = lambda data: data.length
  tokenizer: Callable[[DataSettings], pathlib.Path] | None = None
  fields: Callable[[np.ndarray, Tokenizer], dict[str, Any]] = lambda *_: {}
