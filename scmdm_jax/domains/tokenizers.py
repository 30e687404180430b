"""Built-in tokenizers by name: those of the domains and the general ones."""

from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.data.tokenizers.characters import DNA, TEXT8
from scmdm_jax.domains.genomes import tokenizer as species
from scmdm_jax.domains.images import tokenizer as pixels
from scmdm_jax.domains.molecules.tokenizer import SmilesTokenizer
from scmdm_jax.errors import BadInput

_BUILT_IN = {
  SmilesTokenizer.name: SmilesTokenizer,
  DNA.name: lambda: DNA,
  TEXT8.name: lambda: TEXT8,
}
NAMES = (*_BUILT_IN, 'pixels:LEVELS[:CLASSES]', 'species:COUNT')


def is_built_in(name: str) -> bool:
  """Whether `get_tokenizer` knows it."""
  return name in _BUILT_IN or pixels.is_name(name) or species.is_name(name)


def get_tokenizer(name: str) -> Tokenizer:
  """The tokenizer of that name.

  Raises:
    BadInput: no such tokenizer.
  """
  if not is_built_in(name):
    raise BadInput(f'tokenizer: {name!r} is not known; choose from {sorted(NAMES)}')
  if pixels.is_name(name):
    return pixels.pixel_tokenizer(name)
  if species.is_name(name):
    return species.species_tokenizer(name)
  return _BUILT_IN[name]()
