"""The domains by data set: the only place that knows molecules from texts.

What runs share asks a `Domain`; trainer, sampler, report and comparison know none.
"""

from scmdm_jax.domains.genomes.domain import DOMAIN as GENOMES
from scmdm_jax.domains.images.domain import DOMAIN as IMAGES
from scmdm_jax.domains.molecules.domain import DOMAIN as MOLECULES
from scmdm_jax.domains.protocol import Domain, Measure
from scmdm_jax.domains.text.domain import DOMAIN as TEXT
from scmdm_jax.settings.options import DATASETS, DataSettings

__all__ = ['Domain', 'Measure', 'of']

_DOMAINS = {d.name: d for d in (MOLECULES, TEXT, IMAGES, GENOMES)}


def of(data: DataSettings) -> Domain:
  """The domain of a data set."""
  return _DOMAINS[DATASETS[data.name]]
