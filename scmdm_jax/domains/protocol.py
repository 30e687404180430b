"""What the rest of the package knows of a domain: one record of plain functions."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np

from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.domains.options import DataSettings
from scmdm_jax.judges.protocol import CausalJudge, ClassJudge

# Samples int32 [N, L] -> measures by name.
Measure = Callable[[np.ndarray], dict[str, Any]]
# The data settings of one domain, which have its own options.
Data = TypeVar('Data', bound=DataSettings)


class Figure(NamedTuple):
  """How a measure is called and read.

  Attributes:
    label: its title on a page and in a table.
    better: 'higher', 'lower', or '' where neither is.
    quality: whether it says how good samples are, and stands among the first.
    of_count: whether it depends much on how many samples there are.
  """

  label: str
  better: Literal['higher', 'lower', ''] = ''
  quality: bool = False
  of_count: bool = False


class BuiltIn(NamedTuple):
  """A tokenizer that is chosen by name, or a family of them.

  Attributes:
    pattern: the name for messages, as in 'pixels:LEVELS'.
    is_name: whether a name is one of its.
    make: name -> tokenizer; None where it is made of the data, by
      `Domain.made_tokenizer`.
    shared: whether other domains may use it.
  """

  pattern: str
  is_name: Callable[[str], bool]
  make: Callable[[str], Tokenizer] | None
  shared: bool = False


@dataclasses.dataclass(frozen=True)
class Readers:
  """What a domain reads samples with.

  Attributes:
    tokenizer: of the run.
    causal: the judge, where `Domain.judge` is 'causal' and the run names one.
    classifier: the judge, where `Domain.judge` is 'classifier' and the run names one.
    discriminate: (real rows int32 [N, L], drawn rows int32 [N, L], epochs) -> area
      under the ROC curve of a network that is trained to separate them, or None.
    num_samples: how many samples will be measured at a time.
  """

  tokenizer: Tokenizer
  causal: CausalJudge | None
  classifier: ClassJudge | None
  discriminate: Callable[[np.ndarray, np.ndarray, int], float | None]
  num_samples: int


class Conversing(NamedTuple):
  """How a run speaks.

  A rendering is text whose special tokens are the template's own: those that a turn
  spells are private characters in it, which `read` takes for the text that they are.

  Attributes:
    render: (messages, begun='') -> text up to where the assistant's next turn begins,
      and what it begins with; raises BadInput where the template refuses them.
    read: what `render` returned -> ids, int32 [N].
    ends: ids that end a turn of the assistant.
    template: Jinja.
  """

  render: Callable[..., str]
  read: Callable[[str], np.ndarray]
  ends: tuple[int, ...]
  template: str

  def encode(self, messages: list[dict[str, Any]]) -> np.ndarray:
    """Returns ids up to where the assistant's next turn begins, int32 [N].

    Raises:
      BadInput: the template refuses them.
    """
    return self.read(self.render(messages))


def _no_rule(data: DataSettings, evaluation: Any, judge: str) -> None:
  del data, evaluation, judge


def _decoded(
  data: DataSettings, samples: np.ndarray, tokenizer: Tokenizer
) -> list[Any]:
  del data
  return [tokenizer.decode(tokens) for tokens in samples]


def _nothing_written(
  directory: pathlib.Path, samples: np.ndarray, tokenizer: Tokenizer
) -> None:
  del directory, samples, tokenizer


def _nothing_refused(
  data: DataSettings, directory: pathlib.Path, tokenizer: Tokenizer
) -> None:
  del data, directory, tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Domain(Generic[Data]):
  """One kind of data.

  Attributes:
    name: what the report calls it.
    data_sets: the names that `data.name` may have; the first is its default.
    settings: the data settings with the options of this domain.
    tokenizers: those built in for it; the first is its default.
    judge: which kind of model the run's `judge` is; see `Readers`.
    read_rows: (data, tokenizer, split 'train' or 'test') -> examples int32 [L] each,
      prepared first if need be.
    measuring: (data, evaluation settings, readers) -> `Measure` of samples; reference
      data are read once, here. A measure whose judge is not given is None.
    figures: the measures by name, in the order of the report.
    swept: names of the measures that the comparison follows along temperatures, to
      compare at equal entropy.
    evaluation: a class with the options of `evaluate` that only this domain has.
    has_classes: whether a row begins with a class.
    check_settings: (data, evaluation settings, path of the judge): raises BadInput
      where options of the run do not fit each other.
    check_run: (data, workdir, tokenizer): raises BadInput, before anything is drawn,
      where `write` would refuse or the tokenizer is not one for the data.
    made_tokenizer: data -> the path of a tokenizer made of them, made once; None where
      `data.tokenizer` is another.
    length: data -> tokens of the longest example, where `data.length` may be 0.
    grid: data -> channels, height and width of the picture in a row; () if it is none.
    framing: data -> one of `description.FRAMINGS`, of a model trained on its rows.
    fields: (sample int32 [L], tokenizer) -> what its line of `samples.jsonl` has beside
      index, text and tokens.
    of_likelihood: likelihoods in nats per token -> further figures by name.
    show: (data, samples int32 [N, L], tokenizer) -> samples as a page shows them, one
      each: a text, or {'caption': text, 'image': data URI or None}.
    film: where trajectories are shown as pictures: how masked positions look.
    write: (workdir, samples, tokenizer): files of the domain beside `samples.jsonl`.
    converse: (data, tokenizer) -> `Conversing`; None: the data have no conversations.
  """

  name: str
  data_sets: tuple[str, ...]
  settings: type[Data]
  tokenizers: tuple[BuiltIn, ...]
  judge: Literal['causal', 'classifier']
  read_rows: Callable[[Data, Tokenizer, str], Rows]
  measuring: Callable[[Data, Any, Readers], Measure]
  figures: Mapping[str, Figure]
  swept: tuple[str, ...]
  evaluation: type | None = None
  has_classes: bool = False
  check_settings: Callable[[Data, Any, str], None] = _no_rule
  check_run: Callable[[Data, pathlib.Path, Tokenizer], None] = _nothing_refused
  made_tokenizer: Callable[[Data], pathlib.Path | None] = lambda _: None
  length: Callable[[Data], int] | None = None
  grid: Callable[[Data], tuple[int, ...]] = lambda _: ()
  framing: Callable[[Data], str] = lambda _: ''
  fields: Callable[[np.ndarray, Tokenizer], dict[str, Any]] = lambda *_: {}
  of_likelihood: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda _: {}
  show: Callable[[Data, np.ndarray, Tokenizer], list[Any]] = _decoded
  film: str = ''
  write: Callable[[pathlib.Path, np.ndarray, Tokenizer], None] = _nothing_written
  converse: Callable[[Data, Tokenizer], Conversing] | None = None
