"""Settings for every test."""

import os

# Before NumPy and PyTorch load: their threads only wait for each other on tiny
# arrays, and other programs need the cores.
os.environ.setdefault('OMP_NUM_THREADS', '1')
# Where libtpu is installed for its compiler, it would look for chips, and say so.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

from tests import compiling

# Of programs that tests start, too.
os.environ.setdefault('XLA_FLAGS', compiling.flags())

import hypothesis
import jax

# Implicit broadcasting across ranks hides shape errors.
jax.config.update('jax_numpy_rank_promotion', 'raise')
# Each test compiles what it measures; and the cache is shared between programs.
jax.config.update('jax_enable_compilation_cache', False)
# The same examples every time, however fast the machine; a long run looks for new ones.
hypothesis.settings.register_profile(
  'ours', deadline=None, derandomize=not os.environ.get('SCMDM_LONG'), database=None
)
hypothesis.settings.load_profile('ours')
