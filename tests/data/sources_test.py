import concurrent.futures
import fcntl
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import scmdm_jax
from scmdm_jax.domains.molecules import prepared as molecules
from scmdm_jax.domains.molecules.builder import Qm9
from scmdm_jax.domains.options import DataSettings
from scmdm_jax.errors import BadInput, DamagedData

# 40 different strings: ceil(0.05 * 40) = 2 of them are the test split.
MOLECULES = [f'{"C" * n}{tail}' for n in range(1, 11) for tail in 'NOFC']
ORDER = [MOLECULES[i] for i in np.random.default_rng(42).permutation(40)]


def data(directory, source) -> DataSettings:
  return DataSettings('qm9', str(directory), str(source))


def prepare(directory, source) -> pathlib.Path:
  return pathlib.Path(molecules.prepared(data(directory, source)).data_dir)


def read(directory, split, source):
  return molecules.texts(data(directory, source), split)


def read_all(directory, source):
  return molecules.all_texts(data(directory, source))


def write_csv(path: pathlib.Path, molecules=MOLECULES) -> pathlib.Path:
  path.write_text('id,canonical_smiles\n' + ''.join(f'1,{m}\n' for m in molecules))
  return path


@pytest.fixture(scope='module')
def pristine(tmp_path_factory):
  """A prepared data directory and its source; tests copy it before changing it."""
  root = tmp_path_factory.mktemp('pristine')
  source = write_csv(root / 'qm9.csv')
  prepare(root / 'data', source)
  return root


@pytest.fixture
def prepared(pristine, tmp_path):
  shutil.copytree(pristine, tmp_path, dirs_exist_ok=True)
  return tmp_path


def test_splits_come_back_in_the_published_order(pristine):
  directory = pristine / 'data'
  source = pristine / 'qm9.csv'
  assert list(read(directory, 'test', source)) == ORDER[:2]
  assert list(read(directory, 'train', source)) == ORDER[2:]
  assert list(read_all(directory, source)) == [*ORDER[2:], *ORDER[:2]]


def test_prepare_prints_nothing_on_standard_output(tmp_path, capsys):
  prepare(tmp_path / 'data', write_csv(tmp_path / 'qm9.csv'))
  assert capsys.readouterr().out == ''


def test_prepared_data_is_reused(prepared, monkeypatch):
  def refuse(*_):
    raise AssertionError('prepared again')

  monkeypatch.setattr(Qm9, 'download_and_prepare', refuse)
  path = prepare(prepared / 'data', prepared / 'qm9.csv')
  assert path.parent.parent == prepared / 'data/qm9'


def test_another_source_is_never_taken_for_the_first(prepared):
  source = write_csv(prepared / 'qm9.csv', MOLECULES[:20])
  assert len(read_all(prepared / 'data', source)) == 20


def test_interrupted_preparation_is_redone(tmp_path, monkeypatch):
  source = write_csv(tmp_path / 'qm9.csv')
  real = Qm9._generate_examples

  def interrupted(self, smiles, rows):
    for example in real(self, smiles, rows):
      yield example
      raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(Qm9, '_generate_examples', interrupted)
    with pytest.raises(KeyboardInterrupt):
      prepare(tmp_path / 'data', source)
  # What a killed process leaves: TFDS could not clean up behind it.
  (folder,) = (tmp_path / 'data/qm9').glob('file_*')
  remains = folder / 'incomplete.ABCDEF_1.0.0'
  remains.mkdir()
  (remains / 'qm9-train.array_record-00000-of-00001').write_bytes(b'half')

  texts = read_all(tmp_path / 'data', source)
  assert sorted(texts) == sorted(MOLECULES)
  assert not list(folder.glob('incomplete.*'))


@pytest.mark.parametrize('file', ['dataset_info.json', 'train.array_record'])
@pytest.mark.parametrize('damage', ['cut', 'changed', 'empty', 'gone'])
def test_damaged_files_are_named_with_the_directory_to_delete(prepared, file, damage):
  directory = prepare(prepared / 'data', prepared / 'qm9.csv')
  (path,) = directory.glob(f'*{file}*')
  content = path.read_bytes()
  match damage:
    case 'cut':
      path.write_bytes(content[: len(content) // 2])
    case 'changed':
      path.write_bytes(bytes(byte ^ 0x55 for byte in content))
    case 'empty':
      path.write_bytes(b'')
    case 'gone':
      path.unlink()
  with pytest.raises(DamagedData, match=re.escape(f'{directory}: ')) as caught:
    read(prepared / 'data', 'train', prepared / 'qm9.csv')
  assert '\n' not in str(caught.value)


def test_bad_requests_are_named(pristine, tmp_path):
  directory, source = pristine / 'data', pristine / 'qm9.csv'
  with pytest.raises(BadInput, match=r"'valid' .*choose from \['test', 'train'\]"):
    read(directory, 'valid', source)
  with pytest.raises(BadInput, match=r'gone\.csv: cannot read'):
    prepare(directory, tmp_path / 'gone.csv')
  with pytest.raises(BadInput, match='1 molecules; at least 2'):
    prepare(directory, write_csv(tmp_path / 'one.csv', ['C']))
  with pytest.raises(BadInput, match='cannot be written'):
    prepare(source, source)


def test_a_second_process_waits_and_uses_what_the_first_built(
  pristine, tmp_path, monkeypatch
):
  source = pristine / 'qm9.csv'
  built = prepare(pristine / 'data', source)
  target = tmp_path / built.relative_to(pristine / 'data')
  target.parent.mkdir(parents=True)

  def refuse(*_):
    raise AssertionError('prepared twice')

  monkeypatch.setattr(Qm9, '_generate_examples', refuse)
  with (
    (target.parent / 'prepare.lock').open('w') as lock,
    concurrent.futures.ThreadPoolExecutor(1) as pool,
  ):
    # Locks belong to open files: to the system this is another process's.
    fcntl.flock(lock, fcntl.LOCK_EX)
    waiting = pool.submit(read_all, tmp_path, source)
    with pytest.raises(TimeoutError):
      waiting.result(timeout=0.3)
    shutil.copytree(built, target)
    fcntl.flock(lock, fcntl.LOCK_UN)
    assert len(waiting.result(timeout=30)) == 40


PREPARE = """
import sys
from scmdm_jax.data import pipeline
from scmdm_jax.domains import registry
data = registry.data_settings()('qm9', sys.argv[1], sys.argv[2], length=16)
tokenizer = registry.get_tokenizer('smiles_qm9')
rows = registry.of(data).read_rows(data, tokenizer, 'train')
next(pipeline.training_batches(rows, batch_size=4, seed=0))
assert 'tensorflow' not in sys.modules
print(len(rows))
"""


@pytest.mark.long
def test_two_processes_prepare_at_once_without_tensorflow(tmp_path):
  source = write_csv(tmp_path / 'qm9.csv')
  command = [sys.executable, '-c', PREPARE, str(tmp_path / 'data'), str(source)]
  processes = [
    subprocess.Popen(
      command,
      cwd=pathlib.Path(scmdm_jax.__file__).parents[1],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for _ in range(2)
  ]
  results = [process.communicate(timeout=60) for process in processes]
  for process, (out, err) in zip(processes, results, strict=True):
    assert process.returncode == 0, err
    assert out == '38\n'
