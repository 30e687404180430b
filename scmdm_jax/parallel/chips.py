"""What accelerators can do, and devices of pods that are not at hand."""

import importlib.util
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from scmdm_jax.errors import BadInput


class Chip(NamedTuple):
  """One device."""

  name: str
  hbm_bytes: float
  flops: float  # Per second, dense, bfloat16.


# https://cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}, "System architecture".
TPUS = {
  'v4': Chip('TPU v4', 32e9, 275e12),
  'v5e': Chip('TPU v5 lite', 16e9, 197e12),
  'v5p': Chip('TPU v5', 95e9, 459e12),
  'v6e': Chip('TPU v6 lite', 32e9, 918e12),
}
# Data sheets of A100 80GB SXM and H100 SXM.
GPUS = {
  'A100-SXM4-80GB': Chip('A100', 80e9, 312e12),
  'H100 80GB HBM3': Chip('H100', 80e9, 989e12),
}


def pod(topology: str) -> Sequence[Any]:
  """Devices of a TPU slice such as v5e:4x4, to compile for; nothing can run on them.

  Raises:
    BadInput: no such slice, or the compiler (libtpu) is not installed.
  """
  generation = topology.partition(':')[0]
  if generation not in TPUS:
    raise BadInput(
      f'plan.topology: found {topology!r}; wanted GENERATION:SHAPE, such as v5e:4x4, '
      f'of {", ".join(TPUS)}'
    )
  if importlib.util.find_spec('libtpu') is None:
    raise BadInput(
      f'plan.topology: {topology} wants the TPU compiler; pip install libtpu'
    )
  # Nothing is loaded but a compiler: no chip to look for, or to have for oneself.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  try:
    return topologies.get_topology_desc(platform='tpu', topology_name=topology).devices
  except jax.errors.JaxRuntimeError as e:
    first = str(e).splitlines()[0]
    raise BadInput(f'plan.topology: found {topology!r}; {first}') from e


def chip_of(device: Any) -> Chip | None:
  """What is known of a device; None of others, such as host CPUs."""
  for chip in TPUS.values():
    if device.device_kind in (chip.name, chip.name.replace('TPU v5', 'TPU v5p')):
      return chip
  for kind, chip in GPUS.items():
    if kind in device.device_kind:
      return chip
  return None
