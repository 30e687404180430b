"""Genomes: an example is a species and a stretch of bases."""

import math
import pathlib
from typing import Any

import numpy as np

from scmdm_jax import files
from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.domains import prepared
from scmdm_jax.domains.genomes import measures as judges
from scmdm_jax.domains.genomes import rows as genome_rows
from scmdm_jax.domains.genomes.tokenizer import SpeciesTokenizer
from scmdm_jax.domains.protocol import Domain, Measure
from scmdm_jax.errors import BadInput
from scmdm_jax.judges.classifier import accuracy, macro_f1
from scmdm_jax.runs import classifiers, discriminator
from scmdm_jax.runs.classifiers import ClassJudge
from scmdm_jax.settings.options import DataSettings, Settings

_LINE = 80  # Bases of a line of FASTA.


def read_rows(options: DataSettings, tokenizer: Tokenizer, split: str) -> Rows:
  """A class and a stretch per row; the other strand, too, where one trains on it."""
  return genome_rows.open_rows(
    options.name,
    prepared.directory(options),
    split,
    options.source,
    _species(tokenizer, options.name),
    options.length,
    options.chunk_limit,
    options.reverse_complement and split == 'train',
  )


def _species(tokenizer: Tokenizer, name: str) -> SpeciesTokenizer:
  if isinstance(tokenizer, SpeciesTokenizer):
    return tokenizer
  raise BadInput(
    f'data.tokenizer: found {tokenizer.name!r} with prepared.name = {name!r}; wanted '
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
    epochs: int,
    seed: int,
  ):
    """Reads the held-out stretches.

    Args:
      train: rows of the training split.
      test: rows of the held-out split.
      tokenizer: of both.
      judge: a classifier of species; None leaves its measures None.
      epochs: of the discriminator; 0 leaves its measure None.
      seed: of the discriminator.
    """
    self._train, self._tokenizer, self._judge = train, tokenizer, judge
    self._epochs, self._seed = epochs, seed
    self._test = np.stack([test[i] for i in range(len(test))])
    bases, _ = judges.bases_of(self._test[:, 1:], tokenizer.base_ids)
    self._reference = judges.reference_of(
      bases, self._test[:, 0] - tokenizer.class_ids[0], len(tokenizer.class_ids)
    )
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
    floor = {f'{name}_real': value for name, value in self._floors[counts].items()}
    return found | floor | {'by_species': by_species}

  def _read(self, rows: np.ndarray) -> np.ndarray:
    """The rows with an N in the place of what is no base."""
    ids = np.array(self._tokenizer.base_ids, np.int32)
    bases, _ = judges.bases_of(rows[:, 1:], self._tokenizer.base_ids)
    return np.concatenate([rows[:, :1], ids[bases]], axis=1)

  def _by_species(
    self, rows: np.ndarray, species: np.ndarray
  ) -> list[dict[str, float]]:
    bases, _ = judges.bases_of(rows[:, 1:], self._tokenizer.base_ids)
    return judges.compare_genomes(bases, species, self._reference)

  def _distances(self, rows: np.ndarray, species: np.ndarray) -> dict[str, Any]:
    """Returns how far rows are from held-out ones, to a network as well."""
    # Too short for a k-mer: no distance.
    found: dict[str, Any] = {
      name: value if math.isfinite(value) else None
      for name, value in judges.weighted_mean(self._by_species(rows, species)).items()
    }
    found['auroc'] = None
    if self._epochs:
      found['auroc'] = discriminator.discriminate(
        self._real(self._test, tuple(np.bincount(species).tolist())),
        rows,
        self._tokenizer.class_ids,
        self._tokenizer.vocab_size,
        epochs=self._epochs,
        seed=self._seed,
      )
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


def judging(settings: Settings, workdir: pathlib.Path, tokenizer: Tokenizer) -> Measure:
  """`Measuring.measures`, its stretches and its classifier read."""
  return Measuring(
    read_rows(settings.data, tokenizer, 'train'),
    read_rows(settings.data, tokenizer, 'test'),
    _species(tokenizer, settings.data.name),
    classifiers.load_classifier(settings, workdir, tokenizer),
    settings.evaluate.discriminator_epochs,
    settings.seed,
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
  'genomes',
  read_rows,
  judging,
  swept=('js_distance_3', 'js_distance_6', 'macro_f1'),
  write=write,
)
