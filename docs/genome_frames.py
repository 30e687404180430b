r"""Long open reading frames out of genomes, and how many bits their context is worth.

  launch/local.sh python docs/genome_frames.py --source=runs/genomes --out=runs/frames

writes a FASTA file per species, which `data.source` takes, and prints a line for each:
frames, training stretches, and the bits of a held-out base under models that know how
frequent it is and nothing else; its place in the codon; that and the 5 bases before.
Half a minute of processor time for the nine species of docs/genome_data.md.

A frame goes from the first ATG or GTG behind a stop to the next stop, on either strand.
Where all bases are equally frequent, one that has begun has 900 bases by chance once in
two million times, so that nearly all are genes; where stops are rarer, as in the two
mycobacteria, more are not.
"""

import argparse
import pathlib
import random
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from scmdm_jax import files
from scmdm_jax.domains.genomes import files as fasta
from scmdm_jax.errors import BadInput

LEAST = 900
STRETCH = 255  # Whole codons, behind the class of a row of 256.
ORDER = 5
_OTHER = bytes.maketrans(b'ACGT', b'TGCA')
_STARTS, _STOPS = {b'ATG', b'GTG'}, {b'TAA', b'TAG', b'TGA'}


def open_frames(sequence: bytes, least: int = LEAST) -> Iterator[bytes]:
  """Yields the frames of both strands that have `least` bases or more, `ACGT` only."""
  for strand in (sequence, sequence[::-1].translate(_OTHER)):
    for shift in range(3):
      start = None
      for at in range(shift, len(strand) - 2, 3):
        codon = strand[at : at + 3]
        if codon in _STOPS:
          if start is not None and at + 3 - start >= least:
            frame = strand[start : at + 3]
            if b'N' not in frame:
              yield frame
          start = None
        elif start is None and codon in _STARTS:
          start = at


def stretches(frames: Sequence[bytes]) -> np.ndarray:
  """Bases 0 to 3 of stretches that begin with a codon, int64 `[N, STRETCH]`."""
  cut = [f[i : i + STRETCH] for f in frames for i in range(0, len(f), STRETCH)]
  whole = b''.join(piece for piece in cut if len(piece) == STRETCH)
  letters = np.frombuffer(whole, np.uint8).reshape(-1, STRETCH)
  return np.searchsorted(np.frombuffer(b'ACGT', np.uint8), letters)


def bits(train: np.ndarray, held_out: np.ndarray, order: int, period: int) -> float:
  """Bits per held-out base of counts by place and context, half a base added to each.

  Args:
    train: `[N, STRETCH]` bases.
    held_out: `[M, STRETCH]` bases; the first ORDER of each are not scored.
    order: how many bases before it are known.
    period: its place modulo so many is known; 1 for none.
  """

  def seen(bases: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    context = np.zeros_like(bases[:, ORDER:])
    for back in range(1, order + 1):
      context = 4 * context + bases[:, ORDER - back : STRETCH - back]
    place = np.arange(ORDER, STRETCH) % period + np.zeros_like(context)
    return place, context, bases[:, ORDER:]

  counts = np.full((period, 4**order, 4), 0.5)
  np.add.at(counts, seen(train), 1)
  probabilities = counts / counts.sum(-1, keepdims=True)
  return float(-np.log2(probabilities[seen(held_out)]).mean())


def main() -> None:
  """Writes the frames and prints what their context is worth."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--source', type=pathlib.Path, required=True)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  options = parser.parse_args()
  options.out.mkdir(parents=True, exist_ok=True)
  print('species frames stretches frequency place place+5')
  for species, paths in fasta.species_files(options.source).items():
    sequences = [s for path in paths for s in fasta.read_fasta(path)]
    frames = [frame for sequence in sequences for frame in open_frames(sequence)]
    text = ''.join(f'>{i}\n{frame.decode()}\n' for i, frame in enumerate(frames))
    files.write_text(options.out / f'{species}.fna', text)
    random.Random(0).shuffle(frames)
    end = len(frames) * 9 // 10
    train, held_out = stretches(frames[:end]), stretches(frames[end:])
    worth = [bits(train, held_out, *kind) for kind in ((0, 1), (0, 3), (ORDER, 3))]
    print(species, len(frames), len(train), *(f'{b:.3f}' for b in worth))


if __name__ == '__main__':
  try:
    main()
  except (BadInput, OSError) as error:
    sys.exit(f'error: {error}')
