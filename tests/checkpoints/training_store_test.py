import os
import resource
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scmdm_jax.checkpoints import training_store
from scmdm_jax.errors import BadInput, DamagedData
from tests.checkpoints.trees import DESCRIPTION, assert_bitwise, random_params

DATA_STATE = {'next_index': 3, 'workers': {'0': [1, 2]}, 'name': 'x'}


def training_state(seed=0):
  params = jax.tree.map(jnp.asarray, random_params(DESCRIPTION, seed))
  tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
  return {
    'params': params,
    'ema': jax.tree.map(jnp.copy, params),
    'opt': tx.init(params),
    'step': jnp.int32(seed),
    'key': jax.random.key(seed),
  }


def test_training_round_trip(tmp_path):
  state = training_state(3)
  abstract = jax.eval_shape(lambda: state)
  with training_store.TrainingStore(tmp_path / 'steps', keep=3) as steps:
    assert steps.latest_step() is None
    assert steps.save(4, state, DATA_STATE, {'jax': '1'})
    assert steps.save(6, state, b'\x00\xff', {})
  with training_store.TrainingStore(tmp_path / 'steps', keep=3) as steps:
    assert steps.steps() == [4, 6]
    found, data_state, metadata = steps.restore(4, abstract)
    assert_bitwise(found, state)
    assert (data_state, metadata) == (DATA_STATE, {'jax': '1'})
    # Arrays serve as a template too.
    found, data_state, _ = steps.restore(6, training_state(0))
    assert_bitwise(found, state)
    assert data_state == b'\x00\xff'
    # Same step again, as after a restart: nothing to do.
    assert not steps.save(6, training_state(1), {}, {})


def test_keeps_the_newest(tmp_path):
  with training_store.TrainingStore(tmp_path, keep=2) as steps:
    for step in range(1, 6):
      steps.save(step, {'x': jnp.full(3, step)}, {}, {})
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    *('4', '4.digests.json', '5', '5.digests.json')
  ]


def test_saving_leaks_neither_files_nor_threads(tmp_path):
  def held():
    return len(os.listdir('/proc/self/fd')), threading.active_count()

  with training_store.TrainingStore(tmp_path, keep=1) as steps:
    counts = []
    for step in range(1, 13):
      steps.save(step, {'x': jnp.full(3, step)}, {}, {})
      steps.wait()
      counts.append(held())
  # The first saves start pools that stay; a leak would add 3 files a save.
  assert counts[-1][0] <= counts[3][0] + 3
  assert counts[-1][1] <= counts[3][1] + 1


def test_donated_buffers_are_saved_as_they_were(tmp_path):
  add = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
  state = add({'big': jnp.zeros((64, 20_000)), 'small': jnp.zeros(3)})
  with training_store.TrainingStore(tmp_path, keep=1) as steps:
    steps.save(1, state, {}, {})
    for _ in range(5):  # Reuses the memory of what is being written.
      state = add(state)
    assert float(state['big'][0, 0]) == 6
    steps.wait()
    found = steps.restore(1, jax.eval_shape(lambda: state))[0]
  for leaf in jax.tree.leaves(found):
    np.testing.assert_array_equal(leaf, np.ones(leaf.shape))


def test_strays_do_not_count(tmp_path):
  with training_store.TrainingStore(tmp_path, keep=5) as steps:
    steps.save(7, {'x': jnp.ones(3)}, {}, {})
  # What kills and people leave behind.
  (tmp_path / '12').write_text('a file')
  (tmp_path / 'abc').mkdir()
  (tmp_path / '007').mkdir()
  (tmp_path / '5').mkdir()
  (tmp_path / '9').mkdir()
  (tmp_path / '9' / 'state').write_text('')
  (tmp_path / '.27.digests.json.tmp').write_text('{')
  shutil.copytree(tmp_path / '7', tmp_path / '8.orbax-checkpoint-tmp')
  with training_store.TrainingStore(tmp_path, keep=5) as steps:
    assert steps.latest_step() == 7
    assert steps.steps() == [7]
    # The number of an incomplete step is free again.
    assert steps.save(8, {'x': jnp.zeros(3)}, {}, {})
    assert steps.save(9, {'x': jnp.full(3, 9.0)}, {}, {})
    steps.wait()
    assert steps.steps() == [7, 8, 9]
    found = steps.restore(9, {'x': jnp.zeros(3)})[0]
    np.testing.assert_array_equal(found['x'], [9, 9, 9])
  names = {p.name for p in tmp_path.iterdir()}
  assert {'12', 'abc', '007', '7', '8', '9'} <= names
  assert not any('tmp' in name for name in names)
  aside = [name for name in names if name.startswith('9.incomplete-')]
  assert len(aside) == 1


def test_restore_lists_what_does_not_fit(tmp_path):
  with training_store.TrainingStore(tmp_path, keep=1) as steps:
    saved = {'a': jnp.ones((2, 3)), 'b': jnp.int32(1), 'key': jax.random.key(0)}
    steps.save(1, saved, {}, {})
    steps.wait()
    wanted = {'a': jnp.ones((3, 3)), 'b': jnp.float32(1), 'c': {'d': jnp.ones(4)}}
    with pytest.raises(BadInput) as caught:
      steps.restore(1, wanted)
    assert str(caught.value) == (
      f'{tmp_path}/1: holds other arrays than this configuration: '
      'unknown key uint32[2]; missing c/d float32[4]; '
      'a: saved float32[2, 3], wanted float32[3, 3]; '
      'b: saved int32[], wanted float32[]'
    )
    with pytest.raises(
      BadInput, match=r'3: no complete checkpoint; complete are \[1\]'
    ):
      steps.restore(3, wanted)


@pytest.mark.parametrize('bad', [{1: 'int key'}, {'t': (1, 2)}, {'x': float('nan')}])
def test_data_state_that_json_would_change_is_refused(tmp_path, bad):
  with training_store.TrainingStore(tmp_path, keep=1) as steps:
    with pytest.raises(ValueError, match=r'JSON'):
      steps.save(1, {'x': jnp.ones(1)}, bad, {})
    assert steps.steps() == []


def test_failure_in_the_background_surfaces(tmp_path):
  rng = np.random.default_rng(0)  # Noise does not compress.
  state = {'x': jnp.asarray(rng.standard_normal((1000, 1000)).astype(np.float32))}
  steps = training_store.TrainingStore(tmp_path, keep=1)
  steps.save(1, state, {}, {})
  steps.wait()
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  # As good as a full disk: no file beyond 1 MB; the state has 4 MB.
  resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
  try:
    with pytest.raises(DamagedData) as caught:
      steps.save(2, state, {}, {})
      steps.close()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert f'{tmp_path}: saving failed' in str(caught.value)
  assert 'complete steps [1] are intact' in str(caught.value)
  assert '\n' not in str(caught.value)
  with training_store.TrainingStore(tmp_path, keep=1) as steps:
    assert steps.latest_step() == 1
    found = steps.restore(1, state)[0]
    assert_bitwise(found, state)
    steps.save(2, state, {}, {})
  assert sorted(p.name for p in tmp_path.iterdir()) == ['2', '2.digests.json']


def test_damaged_step_is_named(tmp_path):
  state = {'x': jnp.ones((50, 50))}
  with training_store.TrainingStore(tmp_path, keep=1) as steps:
    steps.save(1, state, {}, {})
    steps.wait()
    for file in (tmp_path / '1' / 'state').rglob('d/*'):
      file.write_bytes(b'')
    with pytest.raises(DamagedData, match=f'{tmp_path}/1: .*: 0 bytes, wanted'):
      steps.restore(1, state)
    # Orbax finds this much, too.
    (tmp_path / '1.digests.json').unlink()
    with pytest.raises(DamagedData, match=f'{tmp_path}/1: .*cannot be read'):
      steps.restore(1, state)


def test_directory_that_cannot_be(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(BadInput, match='file/steps: cannot be written'):
    training_store.TrainingStore(tmp_path / 'file' / 'steps', keep=1)
