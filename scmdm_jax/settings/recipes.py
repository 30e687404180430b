"""A recipe of adaptation in one text: an estimate, its rate, its injection."""

import dataclasses

from scmdm_jax.diffusion import estimates
from scmdm_jax.models.injection import INJECTIONS


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What an arm of a comparison does.

  estimate: as `method.estimate`.
  rate: lambda, the share of conditioned examples.
  injection: '': the run's.
  """

  estimate: str
  rate: float = 1.0
  injection: str = ''


def parse(text: str) -> Recipe:
  """Reads NAME:field=value,... as an estimate, with `rate` and `injection` among them.

  Raises:
    ValueError: unknown names, or a value that is not one.
  """
  name, _, written = text.partition(':')
  own, rest = {}, []
  for item in filter(None, written.split(',')):
    field, _, value = item.partition('=')
    if field in own:
      raise ValueError(f'{field} is there twice')
    if field in ('rate', 'injection'):
      own[field] = float(value) if field == 'rate' else value
    else:
      rest.append(item)
  recipe = Recipe(':'.join([name, *filter(None, [','.join(rest)])]), **own)
  estimates.parse(recipe.estimate)
  if not 0 < recipe.rate <= 1:
    raise ValueError(f'rate is {recipe.rate}; wanted a number above 0, up to 1')
  if recipe.injection and recipe.injection not in tuple(INJECTIONS)[1:]:
    raise ValueError(
      f'injection {recipe.injection!r} is none of {tuple(INJECTIONS)[1:]}'
    )
  return recipe


def is_recipe(text: object) -> bool:
  """Returns whether `parse` takes it."""
  try:
    parse(text)  # pyright: ignore[reportArgumentType]
  except (ValueError, AttributeError):
    return False
  return True
