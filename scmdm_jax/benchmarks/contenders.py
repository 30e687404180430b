"""What a benchmark runs in turn: our samplers, straightforward ones, and PyTorch."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scmdm_jax.benchmarks import baselines
from scmdm_jax.checkpoints import layouts
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.diffusion.sampling import Sampler
from scmdm_jax.errors import BadInput
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from scmdm_jax.parallel.mesh import one_device
from scmdm_jax.runs.drawing import compiled_sampler, sampler_on
from scmdm_jax.runs.opening import Model
from scmdm_jax.settings.building import new_model, sampler_of, schedule_of
from scmdm_jax.settings.options import SampleSettings, Settings

REFERENCE = 'straightforward scan'

COPY = 'straightforward scan, again'

OURS = 'self-conditioned'

VANILLA = 'vanilla'


class Bench(NamedTuple):
  """A model and the sizes it is run at."""

  settings: Settings
  description: ModelDescription  # With an injection.
  params: Any
  batch: int
  length: int
  num_steps: int
  tokenizer: Tokenizer | None = None  # Of a model that was trained.

  @property
  def x_init(self) -> jax.Array:
    """All masked, int32 [B, L]."""
    mask_id = self.description.mask_id
    assert mask_id is not None
    return jnp.full((self.batch, self.length), mask_id, jnp.int32)

  @property
  def keys(self) -> jax.Array:
    """One per example, [B]."""
    return jax.random.split(jax.random.key(self.settings.seed), self.batch)


def random_params(description: ModelDescription, seed: int) -> Any:
  """Every weight random: a fresh model's zero layers would predict nothing."""
  leaves, tree = jax.tree.flatten(denoiser.abstract_params(description))
  rng = np.random.default_rng(seed)
  values = [
    jnp.asarray(0.02 * rng.standard_normal(leaf.shape, np.float32)) for leaf in leaves
  ]
  return jax.tree.unflatten(tree, values)


def bench_of(settings: Settings, model: Model | None, **sizes: int) -> Bench:
  """The model, or one of random weights with `benchmark.vocab_size` tokens."""
  if model is not None:
    description, params = model.description, model.params
  else:
    vocab_size = sizes.pop('vocab_size', settings.benchmark.vocab_size)
    length = sizes.get('length', settings.data.length)
    sized = dataclasses.replace(settings.data, length=length)
    description = new_model(
      dataclasses.replace(settings, data=sized), vocab_size, vocab_size - 1
    )
    params = random_params(description, settings.seed)
  if description.injection == 'none':
    raise BadInput(
      f'checkpoint {settings.checkpoint}: has no self-conditioning to measure; wanted '
      'an adapted model'
    )
  return Bench(
    settings,
    description,
    params,
    sizes.get('batch', settings.sample.batch_size),
    sizes.get('length', settings.data.length),
    sizes.get('num_steps', settings.sample.num_steps),
    None if model is None else model.tokenizer,
  )


def _options(bench: Bench, **changes: Any) -> SampleSettings:
  return dataclasses.replace(
    bench.settings.sample,
    num_samples=1,
    batch_size=1,
    num_steps=bench.num_steps,
    prompt='',
    trajectory=False,
    **changes,
  )


def ours(bench: Bench, **changes: Any) -> Callable[..., Any]:
  """The compiled sampler of the package: `(params, keys, x_init, temperature)`."""
  sampler = sampler_in(bench, **changes)
  return compiled_sampler(bench.description, sampler, False, one_device())


def sampler_in(bench: Bench, **changes: Any) -> Sampler:
  """Returns the sampler of the run as the model can have it, with other options.

  Raises:
    BadInput: blocks or a cache that the model cannot have at this length.
  """
  schedule = schedule_of(bench.settings.method)
  sampler = sampler_of(_options(bench, **changes), schedule)
  return sampler_on(bench.description, sampler, one_device(), bench.length)


def straightforward(bench: Bench) -> Callable[..., Any]:
  """The straightforward sampler, compiled; called as `ours` is, at temperature 1."""
  mask_id = bench.description.mask_id
  assert mask_id is not None
  schedule = schedule_of(bench.settings.method)
  description = dataclasses.replace(bench.description, injection='none')

  def run(params, keys, x_init, temperature):
    del temperature
    network = denoiser.bind(params, description)
    return baselines.scanned(keys, network, x_init, schedule, mask_id, bench.num_steps)

  return jax.jit(run)


def looped(bench: Bench, wait: bool) -> Callable[[], Any]:
  """The straightforward step, one call at a time from Python."""
  description = dataclasses.replace(bench.description, injection='none')
  mask_id = bench.description.mask_id
  assert mask_id is not None

  @jax.jit
  def step(params, keys, x_t, alpha_t, alpha_s, sigma):
    network = denoiser.bind(params, description)
    return baselines.vanilla_step(network, keys, x_t, alpha_t, alpha_s, sigma, mask_id)

  return lambda: baselines.python_loop(
    functools.partial(step, bench.params),
    bench.keys,
    bench.x_init,
    schedule_of(bench.settings.method),
    bench.num_steps,
    wait=wait,
  )


def pytorch(bench: Bench) -> dict[str, Callable[[], Any]]:
  """The PyTorch sampler, if PyTorch is there and the layout is its own."""
  arch = bench.description.architecture
  if not isinstance(arch, DiTConfig) or arch.time_conditioning or arch.num_classes:
    return {}
  if arch.grid or arch.window or arch.block_length:
    return {}
  if not bench.settings.benchmark.torch:
    return {}
  try:
    import torch

    from scmdm_jax.benchmarks import torch_mdlm
  except ImportError:
    return {}
  tensors = {}
  for name, entry in layouts.entries_of(bench.description).items():
    if entry.path[0] == 'backbone':
      value = bench.params
      for key in entry.path:
        value = value[key]
      value = np.asarray(value, np.float32)
      tensors[name] = value.T if entry.transposed else value
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  network = torch_mdlm.TorchMDLM(tensors, arch.num_heads, device)
  assert bench.description.mask_id is not None
  sizes = (bench.batch, bench.length, bench.description.mask_id, bench.num_steps)

  def run(network: Any) -> Any:
    mixed = torch.autocast(device, torch.bfloat16, enabled=device == 'cuda')
    with torch.device(device), mixed:
      return torch_mdlm.sample(network, *sizes).cpu()

  found: dict[str, Callable[[], Any]] = {
    f'PyTorch {torch.__version__}, eager': lambda: run(network)
  }
  compiled: Any = torch.compile(network.__call__)
  try:
    compiled(torch.zeros((1, 2), dtype=torch.int64, device=device))
  except Exception:  # It wants a C++ compiler, and reports its lack in many ways.
    return found
  name = f'PyTorch {torch.__version__}, torch.compile'
  return found | {name: lambda: run(compiled)}
