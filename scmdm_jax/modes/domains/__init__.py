"""What a run is about: the only place that knows molecules from texts.

The modes ask a `Domain`; trainer, sampler, report and comparison know none.
"""

from scmdm_jax.modes.domains import genomes, images, molecules, text
from scmdm_jax.modes.domains.protocol import Domain, Measure
from scmdm_jax.settings import DATASETS, DataSettings

__all__ = ['Domain', 'Measure', 'of']

_DOMAINS = {
  d.name: d for d in (molecules.DOMAIN, text.DOMAIN, images.DOMAIN, genomes.DOMAIN)
}


def of(data: DataSettings) -> Domain:
  """The domain of a data set."""
  return _DOMAINS[DATASETS[data.name]]
