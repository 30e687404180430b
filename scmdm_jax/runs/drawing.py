"""Samples of a model: the compiled sampler, what it starts from, and their file."""

import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from scmdm_jax import files
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.diffusion.blocks import NO_ANSWERS, Answers
from scmdm_jax.diffusion.sampling import Sampler, Samples, sample
from scmdm_jax.diffusion.schedules import Schedule
from scmdm_jax.domains.protocol import Domain
from scmdm_jax.errors import BadInput
from scmdm_jax.models import denoiser
from scmdm_jax.models.attention import AttentionMask, Span
from scmdm_jax.models.denoiser import Denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.execution import Execution
from scmdm_jax.parallel import mesh as meshes
from scmdm_jax.parallel.placement import Placement
from scmdm_jax.processes import multihost
from scmdm_jax.runs.opening import Model, place
from scmdm_jax.settings.building import reported, sampler_of
from scmdm_jax.settings.options import SampleSettings, Settings


class Drawn(NamedTuple):
  """What `draw` returns, on the host."""

  tokens: np.ndarray  # int32 [N, L]
  trajectory: np.ndarray | None  # int32 [T, N, L]: tokens after every step.
  evaluations: int  # Denoiser evaluations of a batch, the most of all batches.
  positions: int  # Of an example that were evaluated in a batch, likewise.
  rows: int  # Examples evaluated, added up over evaluations and batches.
  seconds: float  # Of sampling, compilation included.
  written: np.ndarray  # int [N]; after so many evaluations a sample stood as it is.
  generated: np.ndarray | None = None  # int [N], see `counting`.


class Spans(NamedTuple):
  """Of examples of different lengths in one batch."""

  starts: np.ndarray  # int32 [B], where the first block begins.
  ends: np.ndarray  # int32 [B], where padding begins, which nobody attends to.
  stops: np.ndarray | None = None  # int32 [B, E], see `blocks.Answers`.
  behind: np.ndarray | None = None  # int32 [B], likewise.


@functools.cache
def compiled_sampler(
  description: ModelDescription, sampler: Sampler, keep_trajectory: bool, mesh: Mesh
):
  """Compiles `(params, keys [B], x_init [B, L], temperature, spans) -> Samples`.

  `spans` is as `Spans`; None: all examples are L long and their blocks begin at 0.
  """
  assert description.mask_id is not None
  mask_id = description.mask_id
  if description.injection == 'none':
    sampler = dataclasses.replace(sampler, self_conditioning=False)

  def draw_batch(params, keys, x_init, temperature, spans=None) -> Samples:
    denoise = denoiser.bind(params, description, execution=Execution(Placement(mesh)))
    ends, answers = None, NO_ANSWERS
    if spans is not None:
      ends, answers = spans.ends, Answers(spans.starts, spans.stops, spans.behind)
    network, unconditional = _networks(denoise, mask_id, x_init != mask_id, ends)
    return sample(
      keys,
      network,
      x_init,
      sampler,
      mask_id=mask_id,
      temperature=temperature,
      unconditional=unconditional if sampler.guidance else None,
      answers=answers,
      keep_trajectory=keep_trajectory,
    )

  return jax.jit(draw_batch, out_shardings=meshes.replicated(mesh))


def _networks(
  denoise: Denoiser, mask_id: int, prompt: jax.Array, ends: jax.Array | None
) -> tuple[Denoiser, Denoiser]:
  """Returns the network, and the same that is shown no prompt (LLaDA).

  Args:
    denoise: bound parameters.
    mask_id: what stands for the prompt then.
    prompt: bool [B, L], where it is.
    ends: int32 [B], where padding begins; None: there is none.
  """
  real = AttentionMask(lengths=ends)

  def encode(x_t, signal, sigma):
    return denoise.encode(x_t, signal, sigma, real)

  def encode_unprompted(x_t, signal, sigma):
    return encode(jnp.where(prompt, mask_id, x_t), signal, sigma)

  def encode_part(*inputs):
    assert denoise.cached is not None
    return denoise.cached.encode(*inputs, real)

  def encode_unprompted_part(x_t, signal, sigma, cache, start, fresh):
    shown = Span(start, fresh).cut(prompt, x_t.shape[1])
    x_t = jnp.where(shown, mask_id, x_t)
    return encode_part(x_t, signal, sigma, cache, start, fresh)

  def of(order: jax.Array) -> tuple[Denoiser, Denoiser]:
    own = None if ends is None else ends[order]
    return _networks(denoise, mask_id, prompt[order], own)

  network = denoise._replace(encode=encode, of=lambda order: of(order)[0])
  unconditional = denoise._replace(
    encode=encode_unprompted, of=lambda order: of(order)[1]
  )
  if denoise.cached is not None:
    cached = denoise.cached
    network = network._replace(cached=cached._replace(encode=encode_part))
    unconditional = unconditional._replace(
      cached=cached._replace(encode=encode_unprompted_part)
    )
  return network, unconditional


def sampler_on(
  description: ModelDescription, sampler: Sampler, mesh: Mesh, length: int = 0
) -> Sampler:
  """Returns the sampler with the blocks and the cache of a model.

  Args:
    description: of the model.
    sampler: as it was asked for.
    mesh: of the run.
    length: of every sample; 0: they differ, and whether blocks fit is not looked at.

  Raises:
    BadInput: blocks or a cache that the model cannot have, or not on this mesh.
  """
  parts = mesh.shape['sequence']
  if parts > 1 and sampler.cache not in ('auto', 'none'):
    raise BadInput(
      f'sample.cache: found {sampler.cache!r} with mesh.sequence = {parts}; wanted '
      'auto or none, or mesh.sequence = 1'
    )

  def fitted() -> Sampler:
    keeps = description.keeps_keys and parts == 1
    found = sampler.of_model(description.block_length, keeps)
    if length:
      found.blocks(length)
    return found

  return reported('sample', fitted)


@functools.cache
def _compiled_keys(mesh: Mesh):
  """Compiles `(key, numbers int32 [B]) -> keys [B]`, one for each sample's number."""
  fold = jax.vmap(jax.random.fold_in, (None, 0))
  return jax.jit(fold, out_shardings=meshes.batch_sharding(mesh))


def draw(
  model: Model,
  schedule: Schedule,
  options: SampleSettings,
  key: jax.Array,
  x_init: np.ndarray,
  mesh: Mesh,
) -> Drawn:
  """Draws as `draw_rows` does, with the sampler that `options` describe."""
  return draw_rows(model, sampler_of(options, schedule), options, key, x_init, mesh)


def draw_rows(
  model: Model,
  sampler: Sampler,
  options: SampleSettings,
  key: jax.Array,
  x_init: np.ndarray,
  mesh: Mesh,
) -> Drawn:
  """Draws a sample from every row of `x_init` int32 [N, L].

  Of `options` it takes batch size, temperature, dtype and whether to keep the
  trajectory. Sample i depends on its row and `fold_in(key, i)` only, so neither the
  batch size nor the mesh changes it; a last partial batch is filled up and cut.

  Raises:
    BadInput: blocks or a cache that the model cannot have.
    Stopped: by SIGTERM, between two batches.
  """
  started = time.time()
  sampler = sampler_on(model.description, sampler, mesh, x_init.shape[1])
  draw_batch = batches_of(model, sampler, options, key, mesh)
  shards = meshes.batch_shards(mesh)
  count = len(x_init)
  batch = -(-min(options.batch_size, count) // shards) * shards
  results = []
  for first in range(0, count, batch):
    numbers = np.arange(first, first + batch, dtype=np.int32)
    results.append(draw_batch(numbers, x_init[np.minimum(numbers, count - 1)]))
    # One batch ahead of the device, so that a signal is answered between batches.
    jax.block_until_ready(results[-2:-1])
  results = multihost.gathered(results)
  tokens = np.concatenate([r.tokens for r in results])[:count]
  trajectory = None
  if options.trajectory:
    steps = np.concatenate([r.trajectory for r in results], axis=1)
    trajectory = steps[:, :count]
  evaluations = max(int(r.evaluations) for r in results)
  positions = max(int(r.positions) for r in results)
  rows, seconds = sum(int(r.rows) for r in results), time.time() - started
  written = np.concatenate([r.written for r in results])[:count]
  return Drawn(tokens, trajectory, evaluations, positions, rows, seconds, written)


def batches_of(
  model: Model, sampler: Sampler, options: SampleSettings, key: jax.Array, mesh: Mesh
) -> Callable[..., Samples]:
  """Returns `(numbers [B], x_init int32 [B, L], spans or None) -> Samples` on devices.

  Of `options` it takes temperature, dtype and whether to keep the trajectory. What
  number i becomes depends on its row and `fold_in(key, i)` only.

  Raises:
    Stopped: when called, by SIGTERM.
  """
  compiled = compiled_sampler(model.description, sampler, options.trajectory, mesh)
  params = place(model.params, mesh, options.dtype)

  def draw_batch(
    numbers: np.ndarray, x_init: np.ndarray, spans: Spans | None = None
  ) -> Samples:
    multihost.leave_if_asked('sampling')
    # 64-bit types are for the noise alone; everything else names its dtype.
    with jax.enable_x64(sampler.noise == 'float64'):
      keys = _compiled_keys(mesh)(key, numbers)
      start, spans = jax.tree.map(
        lambda rows: meshes.place_rows(mesh, rows), (x_init, spans)
      )
      return compiled(params, keys, start, jnp.float32(options.temperature), spans)

  return draw_batch


def starting_rows(
  settings: Settings, tokenizer: Tokenizer, count: int | None = None
) -> np.ndarray:
  """What every sample starts from, int32 [count, L]; None: `sample.num_samples`.

  The prompt with its masked positions, or else all masked; where a tokenizer has
  classes and the prompt names none, rows begin with `sample.label`, or with every class
  in turn.
  """
  options = settings.sample
  row = _starting_row(settings, tokenizer)
  rows = np.tile(row, (options.num_samples if count is None else count, 1))
  classes = tokenizer.class_ids
  if options.label >= len(classes):
    raise BadInput(
      f'sample.label: found {options.label}; {tokenizer.name} has {len(classes)} '
      'classes, wanted one of them, counted from 0, or -1'
    )
  if classes and row[0] == tokenizer.mask_id:
    turns = np.arange(len(rows)) if options.label < 0 else options.label
    rows[:, 0] = np.array(classes, np.int32)[turns % len(classes)]
  elif classes and options.label >= 0:
    raise BadInput(
      f'sample.label: found {options.label} with a sample.prompt that begins with '
      f'{tokenizer.tokens[row[0]]}; wanted one of the two'
    )
  if options.guidance and (rows == tokenizer.mask_id).all():
    raise BadInput(
      f'sample.guidance: found {options.guidance:g} without sample.prompt or classes; '
      'wanted a prompt to be guided by, or 0'
    )
  return rows


def check_mask(settings: Settings, tokenizer: Tokenizer) -> None:
  """Refuses the tokenizer of a causal model."""
  if tokenizer.mask_id is None:
    raise BadInput(
      f'data.tokenizer: {settings.data.tokenizer} has no mask; wanted that of '
      'a masked diffusion model'
    )


def _starting_row(settings: Settings, tokenizer: Tokenizer) -> np.ndarray:
  """int32 [L]: all masked, or the prompt with its masked positions."""
  prompt = settings.sample.prompt
  check_mask(settings, tokenizer)
  if prompt:
    tokens = tokenizer.encode_prompt(prompt, settings.data.length)
    if not (tokens == tokenizer.mask_id).any():
      raise BadInput(
        f'sample.prompt: {prompt!r} leaves nothing to write; put a masked position '
        'where a token is wanted, or drop the mark at its end'
      )
    return tokens
  return np.full(settings.data.length, tokenizer.mask_id, np.int32)


def _records(
  drawn: Drawn, tokenizer: Tokenizer, domain: Domain[Any]
) -> list[dict[str, Any]]:
  records = []
  for i, tokens in enumerate(drawn.tokens):
    record = {'index': i, 'text': tokenizer.decode(tokens), 'tokens': tokens.tolist()}
    record |= domain.fields(tokens, tokenizer)
    if drawn.generated is not None:
      count, evaluations = int(drawn.generated[i]), int(drawn.written[i])
      record['generated'] = count
      record['evaluations'] = evaluations
      record['tokens_per_evaluation'] = round(count / max(evaluations, 1), 4)
    if drawn.trajectory is not None:
      steps = drawn.trajectory[:, i]
      record['trajectory'] = [[tokenizer.tokens[t] for t in step] for step in steps]
    records.append(record)
  return records


def write_samples(
  directory: pathlib.Path, drawn: Drawn, tokenizer: Tokenizer, domain: Domain[Any]
) -> None:
  """`samples.jsonl`, and what the domain writes beside it.

  One JSON object per sample: index, text, tokens, what the domain adds; the file
  appears complete.
  """
  if multihost.index() > 0:
    return
  domain.write(directory, drawn.tokens, tokenizer)
  lines = (json.dumps(record) + '\n' for record in _records(drawn, tokenizer, domain))
  files.write_text(directory / 'samples.jsonl', ''.join(lines))
