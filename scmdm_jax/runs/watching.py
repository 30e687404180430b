"""Samples and what the model believed while they were written.

`report.animation` draws what `side_by_side` returns.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.diffusion.beliefs import Likeliest, likeliest, obstacle, replay
from scmdm_jax.diffusion.sampling import Sampler
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.execution import Execution
from scmdm_jax.parallel import mesh as meshes
from scmdm_jax.parallel.placement import Placement
from scmdm_jax.processes import multihost
from scmdm_jax.runs import drawing
from scmdm_jax.runs.opening import Model, place
from scmdm_jax.settings.options import SampleSettings

FRAMES = 24  # Steps that are kept, at most.
POSITIONS = 256  # Of a sequence that are kept, at most, where it is no picture.
LEVELS = 8  # Of how likely a token is.
_TITLES = {
  'with the carried prediction': True,
  'without it: same weights, same random numbers': False,
}


def watched(
  model: Model,
  sampler: Sampler,
  options: SampleSettings,
  key: jax.Array,
  x_init: np.ndarray,
  mesh: Mesh,
  keep: Callable[[jax.Array], Any] | None = None,
) -> tuple[np.ndarray, Any]:
  """Returns states int32 [T + 1, N, L] of samples, and what was predicted of each.

  Args:
    model: a masked diffusion model.
    sampler: one that can be replayed; see `diffusion.beliefs`.
    options: of `drawing.draw_rows`.
    key: consumed; equal keys give the samples of `draw_rows`.
    x_init: int32 [N, L], what they start from.
    mesh: of the run.
    keep: what is kept of log p [N, L, V] of a step; None: all of it. The result has
      [T, N, ...] of it.

  Raises:
    ValueError: a sampler that cannot be replayed.
  """
  options = dataclasses.replace(options, trajectory=True)
  drawn = drawing.draw_rows(model, sampler, options, key, x_init, mesh)
  assert drawn.trajectory is not None
  states = np.concatenate([x_init[None], drawn.trajectory])
  count, shards = len(x_init), meshes.batch_shards(mesh)
  numbers = np.arange(-(-count // shards) * shards, dtype=np.int32)
  rows = states.swapaxes(0, 1)[np.minimum(numbers, count - 1)]
  if model.description.injection == 'none':
    sampler = dataclasses.replace(sampler, self_conditioning=False)
  read = _compiled(model.description, sampler, mesh, keep)
  params = place(model.params, mesh, options.dtype)
  with jax.enable_x64(sampler.noise == 'float64'):
    found = read(params, key, *meshes.place_rows(mesh, (numbers, rows)))
  return states, jax.tree.map(lambda x: x[:, :count], multihost.gathered(found))


def _compiled(
  description: ModelDescription,
  sampler: Sampler,
  mesh: Mesh,
  keep: Callable[[jax.Array], Any] | None,
):
  """Compiles `(params, key, numbers [B], states [B, T + 1, L]) -> kept [T, B, ...]`."""
  assert description.mask_id is not None
  options: dict[str, Any] = {'mask_id': description.mask_id}
  if keep is not None:
    options['keep'] = keep

  def read(params, key, numbers, states):
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
    network = denoiser.bind(params, description, execution=Execution(Placement(mesh)))
    return replay(keys, network, states.swapaxes(0, 1), sampler, **options)

  return jax.jit(read, out_shardings=meshes.replicated(mesh))


def side_by_side(
  model: Model,
  sampler: Sampler,
  options: SampleSettings,
  key: jax.Array,
  x_init: np.ndarray,
  mesh: Mesh,
  show: Callable[[np.ndarray], list[Any]] | None = None,
) -> dict[str, Any]:
  """Returns one sample with and without the carried prediction, as plain data.

  Args:
    model: with an injection.
    sampler: its `self_conditioning` does not count.
    options: of `drawing.draw_rows`.
    key: consumed, by both alike.
    x_init: int32 [1, L].
    mesh: of the run.
    show: rows int32 [N, L] -> pictures, each with an `image`, a data URI; None: the
      sequence is shown as tokens.

  Returns:
    `obstacle`, '' or why there is nothing else; `steps`, those that are shown, F of
    them, counted from 1; `length`, L; `samples`, two, each with `title`, `entropy` (of
    the prediction of each of T steps, nats, added up over what it saw masked), and
    either `pictures`, F pairs of data URIs (what stood there, and with the likeliest
    token where the mask stayed), or `shown`, F lists of tokens, likewise, with `state`,
    F texts of a letter per position: 'f' fixed before, 'w' written since the frame
    before, or a digit up to `LEVELS` where it is masked: how likely the token is.
  """
  reason = obstacle(sampler, model.description.block_length)
  if reason:
    return {'obstacle': reason}
  steps = chosen_steps(sampler.num_steps)
  samples = []
  for title, carried in _TITLES.items():
    how = dataclasses.replace(sampler, self_conditioning=carried)
    states, found = watched(model, how, options, key, x_init, mesh, likeliest)
    one = Likeliest(*(x[:, 0] for x in found))
    samples.append({'title': title} | _frames(states[:, 0], one, steps, model, show))
  return {
    'obstacle': '',
    'steps': steps,
    'length': x_init.shape[1],
    'samples': samples,
  }


def chosen_steps(num_steps: int) -> list[int]:
  """Returns at most `FRAMES` of the steps 1 to `num_steps`, both ends among them."""
  count = min(FRAMES, num_steps)
  return [round(x) for x in np.linspace(1, num_steps, count).tolist()]


def _frames(
  states: np.ndarray,
  found: Likeliest,
  steps: list[int],
  model: Model,
  show: Callable[[np.ndarray], list[Any]] | None,
) -> dict[str, Any]:
  """What `side_by_side` says of a sample, int32 [T + 1, L]."""
  mask_id = model.tokenizer.mask_id
  entropy = (np.asarray(found.entropy) * (states[:-1] == mask_id)).sum(-1)
  after, last = states[steps], np.subtract(steps, 1)
  masked = after == mask_id
  rows = np.where(masked, np.asarray(found.tokens)[last], after)
  record: dict[str, Any] = {'entropy': [round(float(x), 4) for x in entropy]}
  if show is not None:
    shown = [[one['image'] for one in show(x)] for x in (after, rows)]
    return record | {'pictures': [list(pair) for pair in zip(*shown, strict=True)]}
  names = _names(model.tokenizer)
  before = states[[0, *steps[:-1]]] == mask_id
  levels = np.ceil(np.asarray(found.probability)[last] * LEVELS).clip(1, LEVELS)
  letters = np.where(masked, levels.astype(int).astype(str), np.where(before, 'w', 'f'))
  return record | {
    'shown': [[names[int(token)] for token in row[:POSITIONS]] for row in rows],
    'state': [''.join(row[:POSITIONS]) for row in letters],
  }


def _names(tokenizer: Tokenizer) -> list[str]:
  """Every token as it is shown: start, end and padding as ^, $ and a dot."""
  names = list(tokenizer.tokens)
  special = (tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id)
  for index, name in zip(special, '·$^', strict=True):
    if index is not None and len(names[index]) > 1:
      names[index] = name
  return names
