"""One optimizer step as a pure function of (state, batch, key, learning rate)."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from scmdm_jax.diffusion.checks import check
from scmdm_jax.diffusion.noise import Batch
from scmdm_jax.training import guards

Params = Any

NO_LIMITS = np.full(2, np.inf, np.float32)

# (key, params, batch: a tree of [B, ...]) -> scalar loss. The key is the run's, of all
# steps: what is drawn is drawn for an example and an epoch. Where a part of the model
# is frozen, it is a fourth argument, `frozen`.
LossFn = Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """AdamW behind a global-norm clip, and the average of the parameters."""

  b1: float = 0.9
  b2: float = 0.999
  eps: float = 1e-8
  weight_decay: float = 0.0
  clip: float = 1.0  # Largest gradient norm.
  ema_decay: float = 0.9999  # Share of the old average kept at every step; 0: none.
  accumulate: int = 1  # Micro-batches per step; divides the batch.
  # (name of a top-level group of parameters, factor on its learning rate), ...
  rate_factors: tuple[tuple[str, float], ...] = ()

  def __post_init__(self):
    for name in ('b1', 'b2', 'ema_decay'):
      value = getattr(self, name)
      check(0 <= value < 1, name, value, 'a number from 0, below 1')
    check(self.eps >= 0, 'eps', self.eps, 'a number of at least 0')
    decay = self.weight_decay
    check(decay >= 0, 'weight_decay', decay, 'a number of at least 0')
    check(self.clip > 0, 'clip', self.clip, 'a number above 0')
    check(self.accumulate > 0, 'accumulate', self.accumulate, 'a number above 0')
    for name, factor in self.rate_factors:
      check(factor > 0, f'rate_factors of {name}', factor, 'a number above 0')


class TrainState(NamedTuple):
  """All that a step changes; what a checkpoint holds."""

  step: jax.Array  # int32 []; steps taken.
  params: Params
  opt_state: optax.OptState
  ema: Params  # Float32 average of `params`: what is sampled and exported.


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
  """AdamW with a unit learning rate; `train_step` scales its updates.

  The rate stays outside so that runs of different lengths share one compiled step.
  """
  return optax.chain(
    optax.clip_by_global_norm(config.clip),
    optax.adamw(
      1.0, b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=config.weight_decay
    ),
  )


def initial_state(params: Params, config: OptimizerConfig) -> TrainState:
  """Step 0: the average starts as a float32 copy of `params`."""
  ema = jax.tree.map(lambda p: jnp.array(p, jnp.float32, copy=True), params)
  return TrainState(jnp.int32(0), params, make_optimizer(config).init(params), ema)


def _mean_loss_and_grads(
  loss_fn: LossFn, key: jax.Array, params: Params, batch: Any, accumulate: int
) -> tuple[jax.Array, Params]:
  """Loss and gradients averaged over `accumulate` micro-batches of `batch`."""
  value_and_grad = jax.value_and_grad(loss_fn, argnums=1)
  if accumulate == 1:
    return value_and_grad(key, params, batch)
  micro = jax.tree.map(lambda x: x.reshape(accumulate, -1, *x.shape[1:]), batch)

  def add(total, part):
    return jax.tree.map(jnp.add, total, value_and_grad(key, params, part)), None

  zeros = (jnp.float32(0), jax.tree.map(jnp.zeros_like, params))
  total, _ = jax.lax.scan(add, zeros, micro)
  return jax.tree.map(lambda x: x / accumulate, total)


def _scaled(
  updates: Params, learning_rate: jax.Array, factors: dict[str, float]
) -> Params:
  """Updates times the learning rate, times the factor of their group if it has one."""

  def scaled(tree: Params, factor: float) -> Params:
    return jax.tree.map(lambda u: learning_rate * factor * u, tree)

  if not factors:
    return scaled(updates, 1.0)
  return {name: scaled(tree, factors.get(name, 1.0)) for name, tree in updates.items()}


def make_train_step(
  loss_fn: LossFn,
  config: OptimizerConfig,
  shardings: Any = None,
  options: Mapping[str, str] | None = None,
):
  """Compiles `train_step(state, batch, key, learning_rate[, limits, frozen])`.

  It returns the new state and metrics, device scalars: `loss`, `grad_norm`,
  `learning_rate`, and `padding`, its share of all positions, where it is counted.
  The state is donated; where `guards.is_sound` of loss, norm and `limits`
  says no, all of it but the number of the step stays as it was. What `frozen` holds has
  no gradient, no moments and no average, and is not donated.

  Args:
    loss_fn: see `LossFn`.
    config: see `OptimizerConfig`.
    shardings: of the new state and of the metrics; None: the compiler's choice.
    options: of the compiler, by name.
  """
  optimizer = make_optimizer(config)

  def updated(state: TrainState, grads, learning_rate):
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    updates = _scaled(updates, learning_rate, dict(config.rate_factors))
    params = optax.apply_updates(state.params, updates)
    n = state.step.astype(jnp.float32)
    decay = jnp.minimum(config.ema_decay, (1 + n) / (10 + n))  # MDLM warms it up so.
    ema = optax.incremental_update(
      jax.tree.map(lambda p: p.astype(jnp.float32), params), state.ema, 1 - decay
    )
    return params, opt_state, ema

  def train_step(
    state: TrainState, batch, key, learning_rate, limits=NO_LIMITS, frozen=None
  ):
    bound = loss_fn if frozen is None else functools.partial(loss_fn, frozen=frozen)
    loss, grads = _mean_loss_and_grads(
      bound, key, state.params, batch, config.accumulate
    )
    grad_norm = optax.tree.norm(grads)
    # Not by `where`: fused with the update, it changes the last bits and the memory.
    new = jax.lax.cond(
      guards.is_sound(loss, grad_norm, limits),
      updated,
      lambda state, *_: tuple(state[1:]),
      *(state, grads, learning_rate),
    )
    metrics = {'loss': loss, 'grad_norm': grad_norm, 'learning_rate': learning_rate}
    if isinstance(batch, Batch) and batch.padding is not None:
      metrics['padding'] = jnp.mean(batch.padding / batch.tokens.shape[1])
    return TrainState(state.step + 1, *new), metrics

  return jax.jit(
    train_step,
    donate_argnums=0,
    out_shardings=shardings,
    compiler_options=dict(options) if options else None,
  )
