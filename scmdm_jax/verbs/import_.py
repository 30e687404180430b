"""`--mode=import`: weights of another project become a checkpoint of ours."""

from typing import Any

from scmdm_jax.buckets import staging
from scmdm_jax.errors import BadInput
from scmdm_jax.runs import converting
from scmdm_jax.settings.options import Settings


def run(settings: Settings, workdir: str, source: str, as_: str = '') -> dict[str, Any]:
  """Imports `source` into the new directory `workdir`; see `converting`.

  `as_` is '', or 'masked' to make a masked base of a causal model.
  """
  del settings  # Weights bring along what they are.
  if not workdir:
    raise BadInput('--workdir: not given; --mode=import wants --source and --workdir')
  if as_ not in ('', 'masked'):
    raise BadInput(f"--as: found {as_!r}; wanted 'masked', or no such flag")
  with staging.staged(workdir) as directory:
    return converting.import_model(source, str(directory), as_masked=as_ == 'masked')
