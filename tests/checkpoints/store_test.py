import json
import pathlib
import shutil

import jax
import pytest

from scmdm_jax.checkpoints import digests, model_writer, store
from scmdm_jax.errors import BadInput, DamagedData
from tests.checkpoints.trees import (
  DESCRIPTION,
  VANILLA,
  assert_bitwise,
  random_params,
)


def rewrite(path, data):
  """Puts another `model.json` into a checkpoint, as if it had been written so."""
  (path / 'model.json').write_text(json.dumps(data))
  digests.record(path, path / digests.MANIFEST)


@pytest.mark.parametrize('description', [DESCRIPTION, VANILLA], ids=['sc', 'vanilla'])
def test_model_round_trip(tmp_path, description):
  params = random_params(description)
  path = tmp_path / 'run' / 'model'
  store.save_model(path, description, params, {'steps': 5})
  assert [p.name for p in path.parent.iterdir()] == ['model']
  # From the checkpoint itself, and from the workdir that holds it.
  for where in (path, str(path.parent)):
    found, loaded = store.load_model(where)
    assert found == description
    assert_bitwise(loaded, params)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(loaded))
  assert json.loads((path / 'model.json').read_text()) == {
    'format': 1,
    'description': description.to_dict(),
    'extra': {'steps': 5},
  }


def test_an_array_larger_than_what_is_read_at_a_time(tmp_path, monkeypatch):
  # As the table of GPT-2 is, whole on one device.
  monkeypatch.setattr(model_writer, 'GROUP_BYTES', 1)
  params = random_params(DESCRIPTION)
  store.save_model(tmp_path / 'model', DESCRIPTION, params, {})
  assert_bitwise(store.load_model(tmp_path / 'model')[1], params)


def test_model_is_replaced_but_nothing_else_is(tmp_path):
  path = tmp_path / 'model'
  store.save_model(path, DESCRIPTION, random_params(DESCRIPTION), {})
  newer = random_params(VANILLA, seed=1)
  store.save_model(path, VANILLA, newer, {})
  assert_bitwise(store.load_model(path)[1], newer)
  assert [p.name for p in tmp_path.iterdir()] == ['model']
  thesis = tmp_path / 'thesis'
  thesis.mkdir()
  (thesis / 'only_copy.tex').write_text('...')
  with pytest.raises(BadInput, match=r'not empty \(holds only_copy.tex\)'):
    store.save_model(thesis, VANILLA, newer, {})
  assert (thesis / 'only_copy.tex').exists()


def test_failed_model_save_keeps_the_old_one(tmp_path, monkeypatch):
  path = tmp_path / 'model'
  params = random_params(VANILLA)
  store.save_model(path, VANILLA, params, {})

  def fail(path, tree):
    pathlib.Path(path).mkdir()
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(store.ocp.partial, 'save', fail)
  with pytest.raises(DamagedData, match='No space left on device'):
    store.save_model(path, VANILLA, random_params(VANILLA, 1), {})
  monkeypatch.undo()
  assert_bitwise(store.load_model(path)[1], params)
  assert [p.name for p in tmp_path.iterdir()] == ['model']


def test_other_parameters_than_described_are_not_saved(tmp_path):
  with pytest.raises(ValueError, match='missing self_conditioning/projection/kernel'):
    store.save_model(tmp_path / 'm', DESCRIPTION, random_params(VANILLA), {})
  assert list(tmp_path.iterdir()) == []


def test_model_with_other_shapes_lists_path_saved_and_wanted(tmp_path):
  path = tmp_path / 'model'
  store.save_model(path, VANILLA, random_params(VANILLA), {})
  data = json.loads((path / 'model.json').read_text())
  data['description']['architecture']['cond_dim'] = 5
  data['description']['injection'] = 'gate'
  rewrite(path, data)
  with pytest.raises(BadInput) as caught:
    store.load_model(path)
  message = str(caught.value)
  assert '\n' not in message
  assert (
    'backbone/blocks_0/adaLN_modulation/kernel: saved float32[4, 48], wanted '
    'float32[5, 48]' in message
  )
  assert 'missing self_conditioning/gate float32[8]' in message


@pytest.mark.parametrize(
  ('change', 'error', 'message'),
  [
    ({'format': 2}, BadInput, 'format is 2; this version reads 1'),
    ({'description': {'layout': 'x'}}, DamagedData, "layout is 'x'"),
    ({'description': 3}, DamagedData, 'not a model description'),
  ],
)
def test_bad_model_json(tmp_path, change, error, message):
  path = tmp_path / 'model'
  store.save_model(path, VANILLA, random_params(VANILLA), {})
  data = json.loads((path / 'model.json').read_text())
  rewrite(path, data | change)
  with pytest.raises(error, match=message):
    store.load_model(path)


def test_load_model_says_what_is_there_instead(tmp_path):
  with pytest.raises(BadInput, match='no such directory'):
    store.load_model(tmp_path / 'nowhere')
  with pytest.raises(BadInput, match=r'neither model\.json nor model/model\.json'):
    store.load_model(tmp_path)
  (tmp_path / 'model.safetensors').touch()
  with pytest.raises(BadInput, match=f'--mode=import --source={tmp_path} --workdir='):
    store.load_model(tmp_path)


def test_cut_or_lost_files_of_a_model_are_reported(tmp_path):
  # Cut array files are tested below, with one array: with many, Orbax leaves reads
  # behind on a closed event loop, which pytest reports wherever they end.
  path = tmp_path / 'model'
  store.save_model(path, VANILLA, random_params(VANILLA), {})
  file = path / 'params' / 'state' / '_METADATA'
  file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
  with pytest.raises(DamagedData) as caught:
    store.load_model(path)
  assert str(path) in str(caught.value)
  assert '\n' not in str(caught.value)
  shutil.rmtree(path / 'params')
  with pytest.raises(DamagedData, match='params'):
    store.load_model(path)
