"""Compilation for tests, where compiling takes longer than running."""

import functools

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
