"""`--mode=import`: weights of another project become a checkpoint of ours."""

from typing import Any

from scmdm_jax.buckets import staging
from scmdm_jax.errors import BadInput
from scmdm_jax.runs import converting
from scmdm_jax.settings.options import Settings


def run(settings: Settings, workdir: str, source: str) -> dict[str, Any]:
  """Imports `source` into the new directory `workdir`; see `converting`."""
  del settings  # Weights bring along what they are.
  if not workdir:
    raise BadInput('--workdir: not given; --mode=import wants --source and --workdir')
  with staging.staged(workdir) as directory:
    return converting.import_model(source, str(directory))
