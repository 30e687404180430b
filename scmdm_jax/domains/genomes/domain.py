"""Genomes: an example is a species and a stretch of bases."""

import math
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from scmdm_jax import files
from scmdm_jax.data import pipeline
from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.domains.genomes import builder
from scmdm_jax.domains.genomes import measures as judges
from scmdm_jax.domains.genomes import rows as genome_rows
from scmdm_jax.domains.genomes import tokenizer as species
from scmdm_jax.domains.genomes.contexts import Following
from scmdm_jax.domains.genomes.options import GenomeEvaluation, GenomeSettings
from scmdm_jax.domains.genomes.tokenizer import DNA, SpeciesTokenizer
from scmdm_jax.domains.options import CHECKPOINT_TOKENIZER
from scmdm_jax.domains.protocol import BuiltIn, Domain, Figure, Measure, Readers
from scmdm_jax.errors import BadInput
from scmdm_jax.judges.classifier import accuracy, macro_f1
from scmdm_jax.judges.protocol import ClassJudge

_LINE = 80  # Bases of a line of FASTA.
FIGURES = {
  'class_accuracy': Figure('class accuracy', 'higher', quality=True),
  'js_distance_6': Figure('6-mer JS distance', 'lower', quality=True, of_count=True),
  'macro_f1': Figure('macro F1', 'higher', quality=True),
  'js_distance_3': Figure('3-mer JS distance', 'lower', of_count=True),
  'gc_error': Figure('GC error', 'lower'),
  'auroc': Figure('discriminator AUROC', 'lower'),
  'context_bits': Figure('context bits', 'lower'),
  'kmer_entropy': Figure('6-mer entropy', of_count=True),
  'stray_rate': Figure('stray tokens', 'lower'),
  'class_accuracy_real': Figure('class accuracy, real'),
  'js_distance_3_real': Figure('3-mer JS distance, real'),
  'js_distance_6_real': Figure('6-mer JS distance, real'),
  'gc_error_real': Figure('GC error, real'),
  'macro_f1_real': Figure('macro F1, real'),
  'context_bits_real': Figure('context bits, real'),
  'kmer_entropy_real': Figure('6-mer entropy, real'),
  'auroc_real': Figure('discriminator AUROC, real'),
}


def check_settings(data: GenomeSettings, evaluation: Any, judge: str) -> None:
  """Refuses bases without classes, and rows without bases."""
  del evaluation, judge
  choice = data.tokenizer
  if not (choice == CHECKPOINT_TOKENIZER or species.is_name(choice)):
    raise BadInput(
      f'data.tokenizer: found {choice!r} with data.name = {data.name!r}; wanted '
      "'species:COUNT' with 2 to 1000 species, as in species:9"
    )
  if data.length < 2:
    raise BadInput(f'data.length: found {data.length}; wanted a class and bases')


def read_rows(data: GenomeSettings, tokenizer: Tokenizer, split: str) -> Rows:
  """A class and a stretch per row; the other strand, too, where one trains on it."""
  return genome_rows.open_rows(data, _species(tokenizer, data.name), split)


def _species(tokenizer: Tokenizer, name: str) -> SpeciesTokenizer:
  if isinstance(tokenizer, SpeciesTokenizer):
    return tokenizer
  raise BadInput(
    f'data.tokenizer: found {tokenizer.name!r} with data.name = {name!r}; wanted '
    "'species:COUNT', as in species:9"
  )


class Measuring:
  """Held-out stretches that samples are compared with, and how real ones compare.

  The floor beside a measure, `..._real`, is that of as many real stretches, of each
  species as many as of the samples: what a perfect model would get. They are of the
  training split, which the reference does not have; but for the classifier, which knows
  that one, they are held-out ones.
  """

  def __init__(
    self,
    train: Rows,
    test: Rows,
    tokenizer: SpeciesTokenizer,
    judge: ClassJudge | None,
    discriminate: Callable[[np.ndarray, np.ndarray], float | None],
    counted: int = 0,
  ):
    """Reads the held-out stretches.

    Args:
      train: rows of the training split.
      test: rows of the held-out split.
      tokenizer: of both.
      judge: a classifier of species; None leaves its measures None.
      discriminate: (real rows, drawn rows) -> how well a network separates them.
      counted: of so many training stretches contexts are counted; 0: none.
    """
    self._train, self._tokenizer, self._judge = train, tokenizer, judge
    self._discriminate = discriminate
    self._test = np.stack([test[i] for i in range(len(test))])
    self._reference = judges.reference_of(
      *self._codes(self._test), len(tokenizer.class_ids)
    )
    self._following = None
    if counted:
      rows = np.stack(pipeline.spread(train, counted))  # Of both strands.
      num_species = len(tokenizer.class_ids)
      self._following = Following(*self._codes(rows), num_species)
    self._floors: dict[tuple[int, ...], dict[str, Any]] = {}

  def measures(self, samples: np.ndarray) -> dict[str, Any]:
    """Of samples int32 [N, L], by name, with the floor beside them; see measures.

    A sample whose first token is no class, or one of which nothing is held out, is
    judged by nothing but `stray_rate`, the share of tokens where they do not belong;
    elsewhere these are read as N.
    """
    first = self._tokenizer.class_ids[0]
    species = samples[:, 0] - first
    known = (species >= 0) & (species < len(self._tokenizer.class_ids))
    _, stray = judges.bases_of(samples[:, 1:], self._tokenizer.base_ids)
    length = samples.shape[1]
    found: dict[str, Any] = {
      'stray_rate': (stray * (length - 1) + np.mean(~known)) / length
    }
    known[known] = self._reference.shares[species[known]] > 0
    if not known.any():
      return found
    own, species = self._read(samples[known]), species[known]
    by_species = self._by_species(own, species)
    found |= self._distances(own, species) | self._classified(own, species)
    counts = tuple(np.bincount(species).tolist())
    if counts not in self._floors:
      rows, unseen = self._real(self._train, counts), self._real(self._test, counts)
      self._floors[counts] = {
        **self._distances(rows, rows[:, 0] - first),
        **self._classified(unseen, unseen[:, 0] - first),
      }
      if self._following:
        bits = self._real_bits(self._following, counts)
        self._floors[counts]['context_bits'] = bits
    floor = {f'{name}_real': value for name, value in self._floors[counts].items()}
    if self._following:
      found['context_bits'] = self._following.bits(*self._codes(own))
    return found | floor | {'by_species': by_species}

  def _real_bits(self, model: Following, counts: tuple[int, ...]) -> float:
    """Bits of all held-out rows, a species as often as there are samples of it."""
    codes, species = self._codes(self._test)
    known = [s for s, count in enumerate(counts) if count]
    bits = [model.bits(codes[species == s], species[species == s]) for s in known]
    return float(np.average(bits, weights=[counts[s] for s in known]))

  def _codes(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bases of rows, N where there is none, and the numbers of their species."""
    bases, _ = judges.bases_of(rows[:, 1:], self._tokenizer.base_ids)
    return bases, rows[:, 0] - self._tokenizer.class_ids[0]

  def _read(self, rows: np.ndarray) -> np.ndarray:
    """The rows with an N in the place of what is no base."""
    ids = np.array(self._tokenizer.base_ids, np.int32)
    bases, _ = judges.bases_of(rows[:, 1:], self._tokenizer.base_ids)
    return np.concatenate([rows[:, :1], ids[bases]], axis=1)

  def _by_species(
    self, rows: np.ndarray, species: np.ndarray
  ) -> list[dict[str, float]]:
    bases, _ = self._codes(rows)
    return judges.compare_genomes(bases, species, self._reference)

  def _distances(self, rows: np.ndarray, species: np.ndarray) -> dict[str, Any]:
    """Returns how far rows are from held-out ones, to a network as well."""
    # Too short for a k-mer: no distance.
    found: dict[str, Any] = {
      name: value if math.isfinite(value) else None
      for name, value in judges.weighted_mean(self._by_species(rows, species)).items()
    }
    real = self._real(self._test, tuple(np.bincount(species).tolist()))
    found['auroc'] = self._discriminate(real, rows)
    return found

  def _classified(self, rows: np.ndarray, species: np.ndarray) -> dict[str, Any]:
    """What the classifier takes rows for."""
    if self._judge is None:
      return {'macro_f1': None, 'class_accuracy': None}
    classes = self._judge.classes(rows)
    return {
      'macro_f1': macro_f1(species, classes, len(self._tokenizer.class_ids)),
      'class_accuracy': accuracy(species, classes),
    }

  def _real(self, rows: Rows, counts: tuple[int, ...]) -> np.ndarray:
    """The first so many rows of every species, or as many as there are."""
    left, chosen = list(counts), []
    for i in range(len(rows)):
      row = rows[i]
      species = int(row[0]) - self._tokenizer.class_ids[0]
      if species < len(left) and left[species]:
        left[species] -= 1
        chosen.append(row)
        if not any(left):
          break
    return np.stack(chosen)


def measuring(
  data: GenomeSettings, evaluation: GenomeEvaluation, readers: Readers
) -> Measure:
  """`Measuring.measures`, its stretches read."""
  epochs = evaluation.discriminator_epochs
  return Measuring(
    read_rows(data, readers.tokenizer, 'train'),
    read_rows(data, readers.tokenizer, 'test'),
    _species(readers.tokenizer, data.name),
    readers.classifier,
    lambda real, drawn: readers.discriminate(real, drawn, epochs) if epochs else None,
    evaluation.context_stretches,
  ).measures


def write(directory: pathlib.Path, samples: np.ndarray, tokenizer: Tokenizer) -> None:
  """`samples.fasta`: a header with number and class, then bases, N for what is none."""
  species = _species(tokenizer, 'genomes')
  bases, _ = judges.bases_of(samples[:, 1:], species.base_ids)
  letters = np.frombuffer(judges.BASES.encode(), np.uint8)[bases]
  with files.replacing(directory / 'samples.fasta') as path, path.open('w') as file:
    for i, (first, row) in enumerate(zip(samples[:, 0], letters, strict=True)):
      print(f'>{i} {species.tokens[first]}', file=file)
      text = row.tobytes().decode()
      for start in range(0, len(text), _LINE):
        print(text[start : start + _LINE], file=file)


DOMAIN = Domain(
  name='genomes',
  data_sets=tuple(builder.SETS),
  settings=GenomeSettings,
  tokenizers=(
    BuiltIn('species:COUNT', species.is_name, species.species_tokenizer),
    BuiltIn(DNA.name, lambda name: name == DNA.name, lambda _: DNA, shared=True),
  ),
  judge='classifier',
  read_rows=read_rows,
  measuring=measuring,
  figures=FIGURES,
  swept=('kmer_entropy', 'js_distance_3', 'js_distance_6', 'macro_f1', 'context_bits'),
  evaluation=GenomeEvaluation,
  has_classes=True,
  check_settings=check_settings,
  write=write,
)
