"""`--mode=verify`: is a checkpoint what was written, and are its logits right?

Without a reference, every file is compared with its digest. With one, the model's
logits are compared with logits that were made elsewhere.
"""

import math
import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scmdm_jax.buckets import paths
from scmdm_jax.checkpoints import digests, steps, store
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.runs import converting, opening
from scmdm_jax.settings.options import Settings

TOLERANCE = 1e-3
_EVERYTHING = 1 << 62  # Bytes: nothing is too large to be compared.
_BATCH = 8


def run(
  settings: Settings, workdir: str, source: str, reference: str, tolerance: str
) -> dict[str, Any]:
  """Verifies the files of `source`, or its logits where a reference is given."""
  del settings, workdir  # Every byte is read, and nothing written.
  if not reference:
    if tolerance:
      raise BadInput('--tolerance: given without --reference, whose logits it is for')
    return verify(source)
  try:
    largest = float(tolerance or TOLERANCE)
  except ValueError:
    largest = -1.0
  if not 0 <= largest < math.inf:
    raise BadInput(f'--tolerance: found {tolerance!r}; wanted a number from 0')
  return compare(source, reference, largest)


def verify(source: str) -> dict[str, Any]:
  """Reads every byte of a checkpoint and compares it with what was written.

  Args:
    source: a model checkpoint, or a training workdir with a model, steps, or both; or
      weights of another format, whose structure alone can be checked.

  Returns:
    Main figures: which parts are `verified`; `unverified`, complete but without
    digests; `incomplete`, older than a complete one, as a kill leaves them that comes
    while they are deleted; `ok` if all are verified; files and bytes.

  Raises:
    BadInput: none of these.
    DamagedData: files are missing, foreign, truncated or altered; all parts are named.
  """
  path = paths.local_path(source, everything=True).absolute()
  if converting.is_foreign(path):
    figures = converting.check(str(path))
    return {'ok': True, 'path': str(path), 'digests': False, **figures}
  whole, unverified, incomplete = _steps(path / 'checkpoints')
  parts = [(where, steps.manifest_of(where)) for where in whole]
  if not (whole or unverified) or (path / store.MODEL_SUBDIRECTORY).exists():
    model = store.find_model(path)
    parts.append((model, model / digests.MANIFEST))
  verified, damage, found = [], [], []
  for where, manifest in parts:
    try:
      found.append(digests.check(where, manifest, _EVERYTHING))
      verified.append(str(where))
    except DamagedData as e:
      damage.append(str(e))
  lists = {
    'verified': verified,
    'unverified': list(map(str, unverified)),
    'incomplete': list(map(str, incomplete)),
  }
  if damage:
    rest = [f'{name}: {", ".join(where)}' for name, where in lists.items() if where]
    raise DamagedData('; '.join([*damage, *rest]))
  return {
    'ok': not (unverified or incomplete),
    'path': str(path),
    'digests': True,
    **lists,
    'files': sum(figures['files'] for figures in found),
    'bytes': sum(figures['bytes'] for figures in found),
  }


def _steps(directory: pathlib.Path) -> tuple[list[pathlib.Path], ...]:
  """Steps with digests, complete ones without, and what older ones a kill has left.

  A manifest whose step is gone says nothing: a kill came between the two.
  """
  whole, unverified, incomplete = [], [], []
  complete = steps.complete_steps(directory) if directory.is_dir() else []
  for path in steps.step_directories(directory):
    step = int(path.name)
    if step not in complete and step < max(complete, default=0):
      incomplete.append(path)
    elif steps.manifest_of(path).exists():
      whole.append(path)
    else:
      unverified.append(path)
  return whole, unverified, incomplete


def compare(source: str, reference: str, tolerance: float) -> dict[str, Any]:
  """Compares a model's logits with stored ones.

  Args:
    source: a model, of ours or of another format.
    reference: an `.npz` with `input_ids` integer [B, L] and `logits` [B, L, V] of the
      model's own output (Dream: shifted, so that position i scores token i); for a
      time-conditioned model also `sigma` [B].
    tolerance: the largest difference of a logit that passes.

  Returns:
    Main figures: largest and mean difference, KL(reference || ours) in nats per token,
    and `ok`.

  Raises:
    BadInput: the reference has other arrays, ids outside the vocabulary, or logits
      that are not finite.
    DamagedData: it cannot be read, or the model's logits are not finite.
  """
  arrays = _read_reference(paths.local_path(reference))
  with tempfile.TemporaryDirectory() as scratch:
    stored = opening.open_path(source, pathlib.Path(scratch), 'source')
    params = opening.load(stored)
  description = stored.description
  if description.objective == 'classify':
    raise BadInput(f'--source {source}: a classifier; wanted a model of tokens')
  ids, wanted = arrays['input_ids'], arrays['logits']
  defined = _check_fits(ids, wanted, description, reference)
  sigma = arrays.get('sigma', np.zeros(len(ids), np.float32))

  @jax.jit
  def logits(params, tokens, sigma):
    network = denoiser.bind(params, description)
    nothing = jnp.zeros((*tokens.shape, network.signal_dim))
    return network.logits(network.encode(tokens, nothing, sigma))

  largest, total, divergence = 0.0, 0.0, 0.0
  for first in range(0, len(ids), _BATCH):
    rows = slice(first, first + _BATCH)
    ours = np.asarray(logits(params, ids[rows], sigma[rows]), np.float64)[..., defined]
    theirs = wanted[rows].astype(np.float64)[..., defined]
    if not np.isfinite(ours).all():
      raise DamagedData(
        f'{source}: its own logits have NaN or infinity, as its weights may; use '
        'another copy'
      )
    difference = np.abs(ours - theirs)
    largest = max(largest, float(difference.max()))
    total += float(difference.sum())
    divergence += float(_divergence(theirs, ours).sum())
  return {
    'ok': largest <= tolerance,
    'path': source,
    'tokens': int(ids.size),
    'largest_difference': largest,
    'mean_difference': total / (ids.size * int(defined.sum())),
    'kl_per_token': divergence / ids.size,
    'tolerance': tolerance,
  }


def _check_fits(
  ids: np.ndarray, wanted: np.ndarray, description: ModelDescription, reference: str
) -> np.ndarray:
  """Refuses arrays that are not of the model; which ids a token has, bool [V]."""
  vocab_size = description.architecture.vocab_size
  shape = (*ids.shape, vocab_size)
  if wanted.shape != shape:
    raise BadInput(
      f'{reference}: logits are {list(wanted.shape)}; wanted {list(shape)}, by its '
      'input_ids and the vocabulary of the model'
    )
  if ids.min() < 0 or ids.max() >= vocab_size:
    raise BadInput(f'{reference}: input_ids leave the vocabulary [0, {vocab_size})')
  if ids.shape[1] > description.architecture.length:
    raise BadInput(
      f'{reference}: {ids.shape[1]} tokens; the model takes up to '
      f'{description.architecture.length}'
    )
  defined = np.ones(vocab_size, bool)
  for start, stop in description.undefined_ids:
    defined[start:stop] = False
  if not np.isfinite(wanted[..., defined]).all():
    raise BadInput(
      f'{reference}: logits have NaN or infinity; wanted finite ones, but for ids that '
      'no token has'
    )
  return defined


def _divergence(theirs: np.ndarray, ours: np.ndarray) -> np.ndarray:
  """KL(theirs || ours) of logits [..., V], in nats."""

  def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))

  p, q = log_softmax(theirs), log_softmax(ours)
  return (np.exp(p) * (p - q)).sum(-1)


def _read_reference(path: pathlib.Path) -> dict[str, np.ndarray]:
  if not path.is_file():
    raise BadInput(f'--reference {path}: no such file; give an .npz')
  try:
    with np.load(path, allow_pickle=False) as archive:
      arrays = {name: archive[name] for name in archive.files}
  except Exception as e:  # zipfile, zlib and NumPy each have their own.
    raise DamagedData(f'{path}: not a readable .npz ({e}); get it again') from e
  missing = [name for name in ('input_ids', 'logits') if name not in arrays]
  if missing:
    raise BadInput(
      f'{path}: no array {" or ".join(missing)}; wanted input_ids [B, L] and logits '
      '[B, L, V]'
    )
  ids, logits = arrays['input_ids'], arrays['logits']
  if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer) or not ids.size:
    raise BadInput(
      f'{path}: input_ids are {ids.dtype}{list(ids.shape)}; wanted integers [B, L]'
    )
  if not np.issubdtype(logits.dtype, np.floating):
    raise BadInput(f'{path}: logits are {logits.dtype}; wanted floats')
  sigma = arrays.get('sigma', np.zeros(len(ids), np.float32))
  if sigma.shape != ids.shape[:1] or not np.issubdtype(sigma.dtype, np.floating):
    raise BadInput(
      f'{path}: sigma is {sigma.dtype}{list(sigma.shape)}; wanted a float for each of '
      f'the {len(ids)} rows of input_ids'
    )
  if not (np.isfinite(sigma) & (sigma >= 0)).all():
    raise BadInput(f'{path}: sigma has NaN, infinity or less than 0; wanted more')
  return arrays
