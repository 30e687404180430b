r"""How diverse real molecules are, by every measure that samples are held equal by.

  launch/local.sh python docs/molecule_diversity.py

draws sets of as many held-out molecules of QM9 as samples are judged (`--count=2048`;
`--source=PATH`: a file of molecules in place of the package's, of QM9's tokens) and
prints, over the sets, mean and standard deviation of the entropy within a molecule with
and without padding, of distinct 4-grams, of the share of the data's 4-grams that occur,
and of MOSES's internal diversity. Half a minute of a core.
"""

import argparse
import sys

import numpy as np

from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.domains.molecules.domain import Known, known_of, measures
from scmdm_jax.domains.molecules.prepared import all_texts, read_rows
from scmdm_jax.domains.molecules.tokenizer import SmilesTokenizer
from scmdm_jax.domains.options import DataSettings
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.judges.diversity import judge_diversity


def diversity(
  tokens: np.ndarray, tokenizer: Tokenizer, known: Known
) -> dict[str, float]:
  """All measures of one set of molecules, int32 `[N, L]`."""
  general = judge_diversity(tokens, tokenizer.invisible_ids)
  own = measures(tokens, tokenizer, known, None)
  return {
    'entropy': general.unigram_entropy,
    'entropy_visible': general.unigram_entropy_visible,
    'distinct_4': general.distinct_4,
    'coverage_4': own['coverage_4'],
    'internal_diversity': own['internal_diversity'],
  }


def main() -> None:
  """Prints a line for each measure."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--source', default='')
  parser.add_argument('--count', type=int, default=2048, help='molecules in a set')
  options = parser.parse_args()
  tokenizer = SmilesTokenizer()
  data = DataSettings(name='qm9', source=options.source, tokenizer=tokenizer.name)
  held_out = read_rows(data, tokenizer, 'test')
  known = known_of(all_texts(data), tokenizer)
  order = np.random.default_rng(0).permutation(len(held_out))
  sets = len(order) // options.count if options.count > 0 else 0
  if not sets:
    raise BadInput(f'--count {options.count}: wanted 1 to {len(order)}, all held out')
  found = []
  for chosen in np.split(order[: sets * options.count], sets):
    tokens = np.stack([held_out[i] for i in chosen])
    found.append(diversity(tokens, tokenizer, known))
  print(f'{sets} sets of {options.count}')
  for name in found[0]:
    values = [one[name] for one in found]
    print(f'{name} {np.mean(values):.4f} {np.std(values):.4f}')


if __name__ == '__main__':
  try:
    main()
  except (BadInput, DamagedData, OSError) as error:
    sys.exit(f'error: {error}')
