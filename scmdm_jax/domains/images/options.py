"""Options that only images have."""

import dataclasses

from scmdm_jax.domains.options import DataSettings
from scmdm_jax.settings.rules import at_least, plain


@dataclasses.dataclass(frozen=True)
class ImageSettings(DataSettings):
  """How images become rows."""

  side: int = at_least(
    0, 0, 'Images: height and width, averaged down to; 0: as they are.'
  )
  flip: bool = plain(
    False, 'Images: every epoch has each training image mirrored, too.'
  )


@dataclasses.dataclass(frozen=True)
class ImageEvaluation:
  """What is measured on images alone."""

  neighbour_images: int = at_least(
    0,
    0,
    'Images: bits of samples under a model that counts, in so many training images, '
    'which value stands beside which; 0: none.',
  )
