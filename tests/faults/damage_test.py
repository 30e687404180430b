"""Damaged steps: found by verify, and passed over by a resumed run."""

import random
import shutil

import pytest

from tests import tiny_run


def flip(path, bit):
  data = bytearray(path.read_bytes())
  data[bit // 8] ^= 1 << bit % 8
  path.write_bytes(data)


def parts_of(run):
  """Every file that verify vouches for, with the names of steps that are resumed."""
  for folder in ('checkpoints/4', 'checkpoints/6', 'model'):
    yield from (path for path in sorted((run / folder).rglob('*')) if path.is_file())


@pytest.mark.slow
def test_every_flipped_bit_is_found(program, trained, tmp_path, fault):
  _, run = trained
  shutil.copytree(run, tmp_path / 'run')
  draw, count = random.Random(0), 0
  for path in parts_of(tmp_path / 'run'):
    whole = path.read_bytes()
    for bit in {0, 8 * len(whole) - 1, draw.randrange(8 * len(whole) or 1)}:
      if not whole or path.name == 'digests.json':
        continue
      flip(path, bit)
      code, out, err = program.run('--mode=verify', f'--source={tmp_path / "run"}')
      assert (code, out, err.count('\n')) == (3, '', 1), path
      # Or the model's description says less than its digest.
      assert path.name in err, err
      path.write_bytes(whole)
      count += 1
  assert program.figures('--mode=verify', f'--source={tmp_path / "run"}')['ok']
  fault('One flipped bit in a file of a checkpoint', count, 'all found', f'{count}')


DAMAGES = {
  'cut': lambda path: path.write_bytes(path.read_bytes()[:-1]),
  'empty': lambda path: path.write_bytes(b''),
  'deleted': lambda path: path.unlink(),
}


def test_every_damaged_file_of_the_newest_step(program, trained, tmp_path, fault):
  _, run = trained
  count = 0
  for name, damage in DAMAGES.items():
    step = run / 'checkpoints' / '6'
    for file in [p.relative_to(run) for p in sorted(step.rglob('*')) if p.is_file()]:
      shutil.rmtree(tmp_path / 'run', ignore_errors=True)
      shutil.copytree(run, tmp_path / 'run')
      if name == 'empty' and not (tmp_path / 'run' / file).stat().st_size:
        continue
      damage(tmp_path / 'run' / file)
      code, out, err = program.run('--mode=verify', f'--source={tmp_path / "run"}')
      assert (code, out) == (3, ''), (name, file)
      assert f'{tmp_path}/run/checkpoints/6: ' in err and file.name in err
      count += 1
  fault(
    'A file of the newest step cut, empty or deleted', count, 'all named', f'{count}'
  )


def test_steps_without_digests_are_not_ok(program, trained, tmp_path):
  _, run = trained
  shutil.copytree(run, tmp_path / 'run')
  checkpoints = tmp_path / 'run' / 'checkpoints'
  (checkpoints / '6.digests.json').unlink()
  code, out, _ = program.run('--mode=verify', f'--source={tmp_path / "run"}')
  assert code == 1
  assert f'"unverified": ["{checkpoints / "6"}"]' in out
  assert '"ok": false' in out


def test_a_manifest_of_a_deleted_step_is_no_damage(program, trained, tmp_path):
  _, run = trained
  shutil.copytree(run, tmp_path / 'run')
  shutil.rmtree(tmp_path / 'run' / 'checkpoints' / '4')
  figures = program.figures('--mode=verify', f'--source={tmp_path / "run"}')
  assert figures['ok'] and len(figures['verified']) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
  'damage', ['metadata', 'data', 'stray', 'commit', 'without digests']
)
def test_a_resumed_run_goes_on_from_the_sound_step(
  program, trained, tmp_path, caplog, fault, damage
):
  config, run = trained
  shutil.copytree(run, tmp_path / 'run')
  newest = tmp_path / 'run' / 'checkpoints' / '6'
  if damage == 'metadata':
    flip(newest / '_CHECKPOINT_METADATA', 77)
  elif damage == 'data':
    flip(max(newest.rglob('d/*'), key=lambda path: path.stat().st_size), 999)
  elif damage == 'stray':
    newest.with_name('200').mkdir()
  elif damage == 'commit':
    (newest / 'commit_success.txt').unlink()
  else:
    newest.with_name('6.digests.json').unlink()
    for path in newest.rglob('d/*'):
      path.write_bytes(path.read_bytes()[:-7])
  code, _, err = program.run(f'--config={config}', f'--workdir={tmp_path / "run"}')
  assert code == 0, err
  lines = [line for line in caplog.messages if 'not verified' not in line]
  assert len(lines) == 1, lines
  assert err == ''
  names = {path.name.partition('-')[0] for path in newest.parent.iterdir()}
  aside = {'stray': '200.incomplete', 'commit': '6.incomplete'}
  assert aside.get(damage, '6.damaged') in names
  assert tiny_run.model_bytes(tmp_path / 'run') == tiny_run.model_bytes(run)
  fault(
    f'Newest step damaged ({damage}), and the run resumed',
    1,
    'one line, the damaged one kept aside, the same bits in the end',
    'as expected',
  )


@pytest.mark.slow
def test_a_loss_that_overflows(program, tmp_path, fault):
  config = tiny_run.write_config(tmp_path)
  options = [f'--config={config}', f'--workdir={tmp_path / "run"}']
  huge = ['--config.train.learning_rate=1e38', '--config.train.clip=1e38']
  many = ['--config.train.num_steps=40', '--config.train.save_every=1']
  message = program.refusal(*options, *huge, *many, code=3)
  assert message.startswith('training stopped at step ')
  assert '11 steps in a row were skipped, the last good one is ' in message
  # What was saved is finite, and sound.
  assert program.figures('--mode=verify', f'--source={tmp_path / "run"}')['ok']
  fault('A loss that overflows', 1, 'exit 3, one line after 11 skipped', 'as expected')


def test_fall_back_may_be_refused(program, trained, tmp_path):
  config, run = trained
  shutil.copytree(run, tmp_path / 'run')
  flip(tmp_path / 'run' / 'checkpoints' / '6' / '_CHECKPOINT_METADATA', 9)
  options = [f'--config={config}', f'--workdir={tmp_path / "run"}']
  message = program.refusal(*options, '--config.train.fall_back=False', code=3)
  assert 'altered _CHECKPOINT_METADATA' in message


def test_a_damaged_line_of_metrics(program, trained, tmp_path, fault):
  config, run = trained
  shutil.copytree(run, tmp_path / 'run')
  path = tmp_path / 'run' / 'metrics.jsonl'
  lines = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(b''.join([lines[0], b'[7]\n', lines[2][:9], b'\n', *lines[3:]]))
  program.figures(f'--config={config}', f'--workdir={tmp_path / "run"}')
  assert path.read_bytes().splitlines(keepends=True) == [lines[0], *lines[3:]]
  fault('Two of six lines of metrics.jsonl damaged', 1, 'four stay', 'four stay')
