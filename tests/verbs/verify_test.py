import json

import numpy as np
import pytest

from scmdm_jax.checkpoints import training_store
from scmdm_jax.runs import converting
from scmdm_jax.verbs import verify
from tests import tiny_run
from tests.checkpoints import manifests


@pytest.fixture
def program(capsys):
  return tiny_run.Program(capsys)


@pytest.fixture
def model(tmp_path):
  """An imported model and its source."""
  tensors = manifests.random_tensors(manifests.SMALL_MDLM)
  source = manifests.write_directory(
    tmp_path / 'source', manifests.MDLM_CONFIG, tensors
  )
  converting.import_model(str(source), str(tmp_path / 'model'))
  return tmp_path / 'model'


def largest_file(directory):
  files = [path for path in directory.rglob('*') if path.is_file()]
  return max(files, key=lambda path: path.stat().st_size)


def flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def test_what_was_written_passes(model, program):
  figures = program.figures('--mode=verify', f'--source={model}')
  files = [p for p in model.rglob('*') if p.is_file() and p.name != 'digests.json']
  assert figures == {
    'mode': 'verify',
    'ok': True,
    'path': str(model),
    'digests': True,
    'verified': [str(model)],
    'unverified': [],
    'incomplete': [],
    'files': len(files),
    'bytes': sum(p.stat().st_size for p in files),
  }


def test_a_flipped_bit_stops_verify_and_every_use(model, program, tmp_path):
  file = largest_file(model / 'params')
  flip(file)
  wanted = f'altered {file.relative_to(model)}; use another copy'
  for command in (
    ['--mode=verify'],
    ['--mode=export', f'--workdir={tmp_path / "out"}'],
  ):
    message = program.refusal(f'--source={model}', *command, code=3)
    assert message == f'{model}: not what was written: {wanted}'
  assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_a_training_run_is_verified_with_its_steps(tmp_path, program):
  config = tiny_run.write_config(tmp_path)
  run = tmp_path / 'run'
  program.figures(f'--config={config}', f'--workdir={run}')
  figures = program.figures('--mode=verify', f'--source={run}')
  assert figures['verified'] == [
    str(run / 'checkpoints' / '4'),
    str(run / 'checkpoints' / '6'),
    str(run / 'model'),
  ]
  step = run / 'checkpoints' / '6'
  flip(largest_file(step))
  message = program.refusal('--mode=verify', f'--source={run}', code=3)
  assert message.startswith(f'{step}: not what was written: altered state/')
  # A resumed run reads that step, and will not.
  again = [f'--config={config}', f'--workdir={run}', '--config.train.fall_back=False']
  assert program.refusal(*again, code=3).startswith(f'{step}: not what was written')
  # The limit is an option, and so is the skip.
  (run / 'config.json').unlink()
  code, _, err = program.run(*again, '--config.verify_below=0')
  assert 'not what was written' not in err
  assert code in (0, 3)  # What the flipped bit does is Orbax's affair.


def test_a_step_without_digests_is_used_with_a_warning(tmp_path, caplog):
  state = {'x': np.ones(3, np.float32)}
  with training_store.TrainingStore(tmp_path, keep=1) as steps:
    steps.save(1, state, {}, {})
  (tmp_path / '1.digests.json').unlink()  # As if killed before they were written.
  with training_store.TrainingStore(tmp_path, keep=1) as steps:
    found, _, _ = steps.restore(1, state)
    np.testing.assert_array_equal(found['x'], state['x'])
  assert f'{tmp_path}/1: contents not verified: it has no digests' in caplog.text


def test_foreign_weights_are_checked_for_structure(model, program):
  source = model.parent / 'source'
  figures = program.figures('--mode=verify', f'--source={source}')
  assert (figures['layout'], figures['digests']) == ('mdlm', False)
  tensors = manifests.random_tensors(manifests.SMALL_MDLM)
  del tensors['backbone.output_layer.linear.bias']
  other = manifests.write_directory(
    model.parent / 'other', manifests.MDLM_CONFIG, tensors
  )
  message = program.refusal('--mode=verify', f'--source={other}')
  assert 'missing backbone.output_layer.linear.bias [11]' in message


@pytest.fixture
def golden(tmp_path):
  """Logits of the same weights by the PyTorch reference."""
  torch = pytest.importorskip('torch')
  from tests.checkpoints import mdlm_torch_reference

  tensors = manifests.random_tensors(manifests.SMALL_MDLM)
  ids = np.random.default_rng(1).integers(0, 11, (3, 12))
  logits = mdlm_torch_reference.forward(
    {name: torch.from_numpy(value) for name, value in tensors.items()},
    torch.from_numpy(ids),
    torch.zeros(3),
    num_heads=2,
    time_conditioning=False,
  )
  return ids, logits.numpy()


def save(path, **arrays):
  np.savez(path, **arrays)
  return path


@pytest.mark.slow
def test_golden_logits(model, golden, program, tmp_path):
  ids, logits = golden
  path = save(tmp_path / 'golden.npz', input_ids=ids, logits=logits)
  for source in (model, model.parent / 'source'):
    figures = program.figures(
      '--mode=verify', f'--source={source}', f'--reference={path}', '--tolerance=1e-4'
    )
    assert figures['ok'] and figures['tokens'] == 36
    assert figures['largest_difference'] < 1e-4
    assert abs(figures['kl_per_token']) < 1e-8
  wrong = logits.copy()
  wrong[2, 5, 7] += 0.5
  path = save(tmp_path / 'wrong.npz', input_ids=ids, logits=wrong)
  command = ['--mode=verify', f'--source={model}', f'--reference={path}']
  code, out, _ = program.run(*command)
  figures = json.loads(out.splitlines()[-1])
  assert (code, figures['ok']) == (1, False)
  assert figures['largest_difference'] == pytest.approx(0.5, abs=1e-4)
  code, _, _ = program.run(*command, '--tolerance=0.6')
  assert code == 0


@pytest.mark.slow
@pytest.mark.parametrize(
  ('arrays', 'message'),
  [
    ({'input_ids': np.zeros((2, 12), int)}, 'no array logits; wanted input_ids'),
    (
      {'input_ids': np.zeros((2, 12)), 'logits': np.zeros((2, 12, 11))},
      r'input_ids are float64\[2, 12\]; wanted integers',
    ),
    (
      {'input_ids': np.zeros((2, 12), int), 'logits': np.zeros((2, 12, 10))},
      r'logits are \[2, 12, 10\]; wanted \[2, 12, 11\]',
    ),
    (
      {'input_ids': np.full((2, 12), 11), 'logits': np.zeros((2, 12, 11))},
      r'input_ids leave the vocabulary \[0, 11\)',
    ),
    (
      {'input_ids': np.zeros((1, 13), int), 'logits': np.zeros((1, 13, 11))},
      '13 tokens; the model takes up to 12',
    ),
    (
      {'input_ids': np.zeros((1, 2), int), 'logits': np.full((1, 2, 11), np.nan)},
      'logits have NaN or infinity; wanted finite ones',
    ),
    (
      {
        'input_ids': np.zeros((2, 3), int),
        'logits': np.zeros((2, 3, 11)),
        'sigma': np.zeros((2, 1)),
      },
      r'sigma is float64\[2, 1\]; wanted a float for each of the 2 rows',
    ),
    (
      {
        'input_ids': np.zeros((1, 3), int),
        'logits': np.zeros((1, 3, 11)),
        'sigma': np.full(1, np.nan),
      },
      'sigma has NaN',
    ),
  ],
)
def test_references_that_cannot_be_compared(model, arrays, message, tmp_path):
  path = save(tmp_path / 'reference.npz', **arrays)
  with pytest.raises(verify.BadInput, match=message):
    verify.compare(str(model), str(path), 1e-3)


def test_a_model_whose_logits_overflow_does_not_pass(tmp_path):
  tensors = manifests.random_tensors(manifests.SMALL_MDLM)
  name = 'backbone.output_layer.linear.weight'
  tensors[name] = np.copysign(np.float32(3e38), tensors[name])
  source = manifests.write_directory(tmp_path / 's', manifests.MDLM_CONFIG, tensors)
  path = save(
    tmp_path / 'r.npz', input_ids=np.zeros((1, 2), int), logits=np.zeros((1, 2, 11))
  )
  with pytest.raises(verify.DamagedData, match='its own logits have NaN or infinity'):
    verify.compare(str(source), str(path), 1e-3)


def test_a_directory_may_be_called_like_a_file(model, program):
  named = model.rename(model.with_name('model.gguf'))
  assert program.figures('--mode=verify', f'--source={named}')['digests']


def test_nothing_in_a_reference_is_unpickled(model, tmp_path):
  path = tmp_path / 'bad.npz'
  np.savez(path, input_ids=np.array([[object()]], dtype=object), logits=np.zeros(1))
  with pytest.raises(verify.DamagedData, match=r'not a readable \.npz'):
    verify.compare(str(model), str(path), 1e-3)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([], '--source: not given; --mode=verify wants the path of a checkpoint'),
    (['--source=/no/such'], '/no/such: no such directory'),
    (
      ['--source=x', '--reference=/no/such.npz'],
      '--reference /no/such.npz: no such file',
    ),
    (
      ['--source=x', '--reference=y', '--tolerance=-1'],
      "--tolerance: found '-1'; wanted a number from 0",
    ),
    (['--source=x', '--tolerance=1'], '--tolerance: given without --reference'),
  ],
)
def test_mistakes(program, arguments, message):
  assert program.refusal('--mode=verify', *arguments).startswith(message)


def test_a_home_that_nobody_has(program):
  message = program.refusal('--mode=verify', '--source=~nobody-has-it/x')
  assert message.endswith(
    '~nobody-has-it/x: no such directory; give a model checkpoint'
  )
