"""Compilation for tests, where compiling takes longer than running."""

import functools
import importlib.metadata
import os

import jax

# It jits functions of its own as it is imported: before a test patches `jax.jit`.
import optax  # noqa: F401

# Random bits dominate: the optimizer spends seconds on each program that draws some.
# At level 0 it takes a fifth of that, and the programs run four times slower.
quick_jit = functools.partial(
  jax.jit, compiler_options={'xla_backend_optimization_level': 0}
)
# Alone, even these take a third of a second each to compile.
split_key = quick_jit(jax.random.split, static_argnums=1)
uniform = quick_jit(jax.random.uniform, static_argnums=1)


def flags(devices: int = 1) -> str:
  """`XLA_FLAGS` for so many devices of a host, with code that is made quickly.

  Compiling with them takes a third of the time; the code that comes out is slower and
  computes the same. With SCMDM_LONG=1 the tests compile as users do.
  """
  words = [f'--xla_force_host_platform_device_count={devices}']
  if not os.environ.get('SCMDM_LONG'):
    words += [
      '--xla_backend_optimization_level=0',
      '--xla_cpu_parallel_codegen_split_count=1',
    ]
    # Later releases have no other emitters, and refuse flags that they do not know.
    if _jaxlib() < (0, 11):
      words.append('--xla_cpu_use_fusion_emitters=false')
  return ' '.join(words)


def _jaxlib():
  return tuple(map(int, importlib.metadata.version('jaxlib').split('.')[:2]))
