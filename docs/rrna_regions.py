r"""Regions out of genes of ribosomal RNA, and how many bits their context is worth.

  launch/local.sh python docs/rrna_regions.py --source=runs/ssu.fna --out=runs/rrna

writes a FASTA file per region, which `data.source` takes: the 63 bases behind the
primer in front of regions V5, V6 and V9 of the gene of 16S RNA, each sequence once.
`--regions V3 V5 V7 --bases=255` are three that do not overlap in rows of 256.
Prints a line for each: how many genes have the region, how many sequences those are,
and the bits of a base held out under counts that know how frequent it is and nothing
else; its place; the seven bases before it as well. Half a minute of a core for the
genes of docs/genome_data.md.

The primers are the usual ones, 341F, 787F, 967F, 1099F and 1391F (Escherichia coli's
numbering), in IUPAC's codes.
"""

import argparse
import collections
import pathlib
import random
import re
import sys

import numpy as np

from scmdm_jax import files
from scmdm_jax.domains.genomes import files as fasta
from scmdm_jax.domains.genomes.contexts import Following
from scmdm_jax.errors import BadInput
from scmdm_jax.judges.ngrams import Contexts

PRIMERS = {
  'V3': 'CCTACGGGNGGCNGCAG',
  'V5': 'ATTAGATACCCNNGTAGTCC',
  'V6': 'AACGCGAAGAACCTTACC',
  'V7': 'GNAACGAGCGCAACCC',
  'V9': 'GTACACACCGCCCGTC',
}


def pattern(primer: str) -> re.Pattern[bytes]:
  """What a primer binds to; N is any base."""
  return re.compile(primer.replace('N', '[ACGT]').encode())


def bits(train: np.ndarray, held_out: np.ndarray) -> tuple[float, float, float]:
  """Bits per held-out base under counts of bases; with their place; with those before.

  Args:
    train: bases 0 to 3, `[N, bases]`.
    held_out: the same of others.
  """

  def with_place(bases: np.ndarray) -> np.ndarray:
    return np.stack([np.indices(bases.shape)[1].ravel(), bases.ravel()], axis=1)

  known = with_place(train), with_place(held_out)
  found = []
  for columns, sizes in ((slice(1, 2), (4,)), (slice(2), (train.shape[1], 4))):
    model = Contexts(known[0][:, columns], sizes)
    found.append(float(-model.log_probs(known[1][:, columns]).mean() / np.log(2)))
  of_one = [np.zeros(len(bases), int) for bases in (train, held_out)]
  following = Following(train, of_one[0], 1)
  return found[0], found[1], following.bits(held_out, of_one[1])


def main() -> None:
  """Writes the regions and prints what their context is worth."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--source', type=pathlib.Path, required=True)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument(
    '--regions', nargs='+', choices=PRIMERS, default=['V5', 'V6', 'V9']
  )
  parser.add_argument('--bases', type=int, default=63, help='behind the primer')
  options = parser.parse_args()
  if options.bases < 1:
    raise BadInput(f'--bases {options.bases}: wanted 1 or more')
  options.out.mkdir(parents=True, exist_ok=True)
  patterns = {region: pattern(PRIMERS[region]) for region in options.regions}
  found = {region: collections.Counter[bytes]() for region in patterns}
  for gene in fasta.read_fasta(options.source):
    for region, primer in patterns.items():
      if site := primer.search(gene):
        stretch = gene[site.end() : site.end() + options.bases]
        if len(stretch) == options.bases and b'N' not in stretch:
          found[region][stretch] += 1
  print('region genes sequences frequency place context')
  for region, stretches in found.items():
    unique = sorted(stretches)
    random.Random(0).shuffle(unique)
    text = ''.join(f'>{i}\n{s.decode()}\n' for i, s in enumerate(unique))
    files.write_text(options.out / f'{region}.fna', text)
    letters = np.frombuffer(b''.join(unique), np.uint8).reshape(-1, options.bases)
    bases = np.searchsorted(np.frombuffer(b'ACGT', np.uint8), letters)
    train, held_out = np.split(bases, [len(bases) * 9 // 10])
    worth = [f'{b:.3f}' for b in bits(train, held_out)] if len(train) else []
    print(region, stretches.total(), len(unique), *worth)


if __name__ == '__main__':
  try:
    main()
  except (BadInput, OSError) as error:
    sys.exit(f'error: {error}')
