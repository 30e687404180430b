"""What accelerators can do, and devices of machines that are not at hand."""

import importlib.util
import os
import re
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
  bytes_per_second: float  # Between the chip and its memory.


# https://cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}, "System architecture".
TPUS = {
  'v4': Chip('TPU v4', 32e9, 275e12, 1228e9),
  'v5e': Chip('TPU v5 lite', 16e9, 197e12, 819e9),
  'v5p': Chip('TPU v5', 95e9, 459e12, 2765e9),
  'v6e': Chip('TPU v6 lite', 32e9, 918e12, 1640e9),
}
# NVIDIA's data sheets of the SXM modules.
GPUS = {
  'a100': Chip('A100-SXM4-80GB', 80e9, 312e12, 2039e9),
  'h100': Chip('H100 80GB HBM3', 80e9, 989e12, 3352e9),
  'h200': Chip('H200', 141e9, 989e12, 4800e9),
  'b200': Chip('B200', 180e9, 2250e12, 7672e9),
}

# Of a training step, by platform, set where it is compiled. TPUs: weights that `fsdp`
# splits are gathered and then multiplied, and while others are, instead of piece by
# piece with a rounding sum.
STEP_OPTIONS = {
  'tpu': {
    'xla_jf_spmd_threshold_for_windowed_einsum_mib': '1000000',
    'xla_enable_async_all_gather': 'true',
    'xla_tpu_enable_async_collective_fusion': 'true',
    'xla_tpu_enable_async_collective_fusion_fuse_all_gather': 'true',
    'xla_tpu_enable_async_collective_fusion_multiple_steps': 'true',
    'xla_tpu_overlap_compute_collective_tc': 'true',
  }
}

# What XLA asks of a GPU, as a GpuTargetConfigProto; figures of openxla/xla,
# xla/backends/gpu/target_config/specs. cuDNN is the oldest with the attention we use.
_TARGET = """\
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {shared_per_core}
  threads_per_core_limit: 2048
  core_count: {cores}
  fpus_per_core: {fpus}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth}
  l2_cache_size: {cache}
  clock_rate_ghz: {clock}
  device_memory_size: {memory}
  shared_memory_per_block_optin: {shared_optin}
  cuda_compute_capability {{ major: {major} feature_extension: {extension} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 12 minor: 8 }}
device_description_str: "NVIDIA {name}"
"""
_HOPPER = {
  'shared_per_core': 233472,
  'cores': 132,
  'fpus': 128,
  'bandwidth': 3352320000000,
  'cache': 52428800,
  'clock': 1.98,
  'memory': 84942979072,
  'shared_optin': 232448,
  'major': 9,
  'extension': 'ACCELERATED_FEATURES',
}
_TARGETS = {
  'a100': _HOPPER
  | {
    'shared_per_core': 167936,
    'cores': 108,
    'fpus': 64,
    'bandwidth': 2039040000000,
    'cache': 41943040,
    'clock': 1.41,
    'memory': 85100068864,
    'shared_optin': 166912,
    'major': 8,
    'extension': 'NONE',
  },
  'h100': _HOPPER,
  'h200': _HOPPER | {'bandwidth': 4800000000000, 'memory': 151397597184},
  'b200': _HOPPER
  | {
    'cores': 148,
    'bandwidth': 7672320000000,
    'cache': 132644864,
    'clock': 1.965,
    'memory': 191514411008,
    'major': 10,
  },
}


def absent(topology: str) -> Sequence[Any]:
  """Devices to compile for that need not be there; nothing can run on them.

  Args:
    topology: a TPU slice, such as v5e:4x4; or GPUs by hosts and GPUs of each, such as
      h100:1x8.

  Raises:
    BadInput: no such thing, or the compiler (libtpu, jax's CUDA plugin) is missing.
  """
  generation = topology.partition(':')[0]
  if generation in GPUS:
    return _gpus(topology)
  if generation in TPUS:
    return _tpus(topology)
  raise BadInput(
    f'plan.topology: found {topology!r}; wanted GENERATION:SHAPE, such as v5e:4x4 or '
    f'h100:1x8, of {", ".join((*TPUS, *GPUS))}'
  )


def _tpus(topology: str) -> Sequence[Any]:
  if importlib.util.find_spec('libtpu') is None:
    raise BadInput(
      f"plan.topology: {topology} wants the TPU compiler; pip install 'jax[tpu]'"
    )
  # Nothing is loaded but a compiler: no chip to look for, or to have for oneself.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  return _devices(topology, platform='tpu', topology_name=topology)


def _gpus(topology: str) -> Sequence[Any]:
  kind, _, shape = topology.partition(':')
  sizes = re.fullmatch(r'([1-9]\d{0,4})x([1-9]\d?)', shape)
  if sizes is None:
    raise BadInput(
      f'plan.topology: found {topology!r}; wanted hosts and GPUs of each, as in '
      f'{kind}:1x8'
    )
  if not any(map(importlib.util.find_spec, ('jax_cuda12_plugin', 'jax_cuda13_plugin'))):
    raise BadInput(
      f"plan.topology: {topology} wants the CUDA compiler; pip install 'jax[cuda12]'"
    )
  # The plugin is loaded for its compiler: it need not find a driver.
  os.environ.setdefault('JAX_SKIP_CUDA_CONSTRAINTS_CHECK', '1')
  return _devices(
    topology,
    platform='cuda',
    topology_name='',
    target_config=_TARGET.format(name=GPUS[kind].name, **_TARGETS[kind]),
    # Partitions (hosts joined by NVLink), hosts of each, GPUs of each.
    topology=f'1x{shape}',
  )


def _devices(found: str, **wanted: Any) -> Sequence[Any]:
  try:
    return topologies.get_topology_desc(**wanted).devices
  except jax.errors.JaxRuntimeError as e:
    first = str(e).splitlines()[0]
    raise BadInput(f'plan.topology: found {found!r}; {first}') from e


def planning_options(topology: str) -> dict[str, Any]:
  """Returns the compiler's options for devices that are not there.

  GPUs: nothing can be timed, and products by Triton would get tiles that nobody chose,
  so that those of cuBLAS stand in for what a real device takes.
  """
  gpu = topology.partition(':')[0] in GPUS
  return {'xla_gpu_enable_triton_gemm': False} if gpu else {}


def chip_of(device: Any) -> Chip | None:
  """Returns what is known of a device; None of others, such as host CPUs."""
  for chip in TPUS.values():
    if device.device_kind in (chip.name, chip.name.replace('TPU v5', 'TPU v5p')):
      return chip
  for chip in GPUS.values():
    if chip.name in device.device_kind:
      return chip
  return None
