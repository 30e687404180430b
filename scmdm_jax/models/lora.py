"""Low-rank adapters: x W + (alpha / r) (x A) B beside linear layers whose W is frozen.

LoRA (arXiv 2106.09685). The two small factors lie in the parameter tree beside the
kernel they belong to, `lora_a` [in, r] and `lora_b` [r, out], and are applied by an
interceptor of `nn.Dense`: no backbone knows of them. `x W + (x A) B` and not
`x (W + A B)`: the gradient of a merged weight has the size of the weight and costs a
third of a training step, and the merged weights of all layers are a second base in
memory. Since B is zero when fresh, a fresh adapter changes nothing, bit for bit.
"""

import contextlib
import dataclasses
import hashlib
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

Params = dict[str, Any]

FACTORS = ('lora_a', 'lora_b')
# All linear layers of the blocks: the first part of their path ends in a number.
BLOCKS = r'[A-Za-z]+_\d+/.*'


@dataclasses.dataclass(frozen=True)
class Adapter:
  """Which layers are adapted, and how much.

  rank: r, the width between the two factors.
  alpha: the product of the factors is multiplied by alpha / r.
  targets: a regular expression that the path of a linear layer below `backbone` matches
    as a whole, as in 'layers_3/self_attn/q_proj'; '': no layer, so that the injection
    alone is trained beside the frozen backbone.
  """

  rank: int
  alpha: float
  targets: str = BLOCKS

  def __post_init__(self):
    if not (type(self.rank) is int and 0 < self.rank < 1 << 16):
      raise ValueError(f'rank is {self.rank!r}; wanted a whole number from 1')
    if not (math.isfinite(self.alpha) and self.alpha > 0):
      raise ValueError(f'alpha is {self.alpha!r}; wanted a number above 0')
    try:
      re.compile(self.targets)
    except (re.error, TypeError) as e:
      raise ValueError(
        f'targets is {self.targets!r}: no regular expression, {e}'
      ) from e

  @property
  def scale(self) -> float:
    """What the product of the factors is multiplied by."""
    return self.alpha / self.rank


def targeted(backbone: Params, adapter: Adapter) -> dict[str, tuple[int, int]]:
  """Returns the layers that are adapted, by path below `backbone`, with their sizes.

  Args:
    backbone: its parameters, or their shapes.
    adapter: see `Adapter`.

  Raises:
    ValueError: no layer matches, though one is wanted.
  """
  if not adapter.targets:
    return {}
  layers = {
    '/'.join(key.key for key in path[:-1]): leaf.shape
    for path, leaf in jax.tree_util.tree_leaves_with_path(backbone)
    if path[-1].key == 'kernel' and leaf.ndim == 2
  }
  found = {
    path: shape for path, shape in layers.items() if re.fullmatch(adapter.targets, path)
  }
  if not found:
    raise ValueError(
      f'targets is {adapter.targets!r}, which matches none of the linear layers, such '
      f'as {", ".join(sorted(layers)[:3])}'
    )
  return found


def init_factors(key: jax.Array, backbone: Params, adapter: Adapter) -> Params:
  """Returns fresh float32 factors as a tree below `backbone`; the key is consumed.

  A is uniform within +-1 / sqrt(in), as the `peft` library has it, and B is zero. Those
  of a layer depend on its path, whatever else is adapted.
  """
  tree: Params = {}
  for path, (wide, out) in targeted(backbone, adapter).items():
    number = int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], 'big')
    bound = wide**-0.5
    a = jax.random.uniform(
      jax.random.fold_in(key, number), (wide, adapter.rank), minval=-bound, maxval=bound
    )
    node = tree
    for part in path.split('/'):
      node = node.setdefault(part, {})
    node |= {'lora_a': a, 'lora_b': jnp.zeros((adapter.rank, out))}
  return tree


def joined(frozen: Params | None, trained: Params) -> Params:
  """Returns one tree of the leaves of two that share none."""
  tree = dict(frozen or {})
  for name, value in trained.items():
    tree[name] = joined(tree[name], value) if name in tree else value
  return tree


def divided(params: Params, adapter: Adapter | None) -> tuple[Params | None, Params]:
  """Returns what is frozen and what is trained: the factors and the injection.

  Without an adapter nothing is frozen: None, and `params`.
  """
  if adapter is None:
    return None, params
  frozen, factors = _divided(params['backbone'])
  trained = {'backbone': factors} if factors else {}
  conditioning = params['self_conditioning']
  return {'backbone': frozen}, {**trained, 'self_conditioning': conditioning}


def _divided(node: Params) -> tuple[Params, Params]:
  frozen, trained = {}, {}
  for name, value in node.items():
    if isinstance(value, dict):
      kept, new = _divided(value)
      frozen |= {name: kept} if kept else {}
      trained |= {name: new} if new else {}
    else:
      (trained if name in FACTORS else frozen)[name] = value
  return frozen, trained


def applied(adapter: Adapter | None) -> contextlib.AbstractContextManager[Any]:
  """Returns a context in which modules add the factors that lie beside their kernels.

  None: in which factors that may lie there are not read.
  """
  if adapter is None:
    return contextlib.nullcontext()
  scale = adapter.scale

  def add(layer: Any, args: Any, kwargs: Any, context: Any) -> Any:
    y, module = layer(*args, **kwargs), context.module
    if not isinstance(module, nn.Dense) or not module.has_variable('params', 'lora_a'):
      return y
    a, b = (module.get_variable('params', name) for name in FACTORS)
    x = args[0]
    return y + (jnp.dot(x, a) * jnp.asarray(scale, x.dtype)).dot(b).astype(y.dtype)

  return nn.intercept_methods(add)


def merged(kernel: Any, a: Any, b: Any, adapter: Adapter) -> Any:
  """Returns W + (alpha / r) A B in the dtype of `kernel`, worked out in float32."""
  update = a.astype('float32') @ b.astype('float32')
  return (kernel.astype('float32') + adapter.scale * update).astype(kernel.dtype)
