"""`--mode=verify`: is a checkpoint what was written, and are its logits right?

Without a reference, every file is compared with its digest. With one, the model's
logits are compared with logits that were made elsewhere.
"""

import os
import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scmdm_jax.checkpoints import digests, store, training_store
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.models import denoiser
from scmdm_jax.runs import converting, opening

TOLERANCE = 1e-3
_EVERYTHING = 1 << 62  # Bytes: nothing is too large to be compared.
_BATCH = 8


def verify(source: str) -> dict[str, Any]:
  """Reads every byte of a checkpoint and compares it with what was written.

  Args:
    source: a model checkpoint, or a training workdir with a model, steps, or both; or
      weights of another format, whose structure alone can be checked.

  Returns:
    Main figures: what was verified, files, bytes.

  Raises:
    BadInput: none of these.
    DamagedData: files are missing, foreign, truncated or altered; all are named.
  """
  path = pathlib.Path(os.path.expanduser(source)).absolute()
  if converting.is_foreign(path):
    figures = converting.check(str(path))
    return {'ok': True, 'path': str(path), 'digests': False, **figures}
  steps = sorted((path / 'checkpoints').glob(f'*{training_store.DIGESTS}'))
  parts: list[tuple[pathlib.Path, pathlib.Path]] = [
    (file.with_name(file.name.removesuffix(training_store.DIGESTS)), file)
    for file in steps
  ]
  if not steps or (path / store.MODEL_SUBDIRECTORY).exists():
    model = store.find_model(path)
    parts.append((model, model / digests.MANIFEST))
  found = [digests.check(where, manifest, _EVERYTHING) for where, manifest in parts]
  return {
    'ok': True,
    'path': str(path),
    'digests': True,
    'verified': [str(where) for where, _ in parts],
    'files': sum(figures['files'] for figures in found),
    'bytes': sum(figures['bytes'] for figures in found),
  }


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
  arrays = _read_reference(pathlib.Path(os.path.expanduser(reference)))
  with tempfile.TemporaryDirectory() as scratch:
    stored = opening.open_path(source, pathlib.Path(scratch), 'source')
    params = opening.load(stored)
  description = stored.description
  if description.objective == 'classify':
    raise BadInput(f'--source {source}: a classifier; wanted a model of tokens')
  ids, wanted = arrays['input_ids'], arrays['logits']
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
