"""An adapter beside a frozen base: damaged, alone, or beside another base."""

import shutil

import pytest

from tests.faults.damage_test import flip

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


@pytest.fixture(scope='module')
def made(trained, tmp_path_factory):
  """A config, a base and the workdir of an adapter trained beside it, in one folder."""
  from scmdm_jax.main import main

  config, run = trained
  folder = tmp_path_factory.mktemp('adapter')
  shutil.copytree(run / 'model', folder / 'base' / 'model')
  assert not main(
    [
      'main.py',
      *(f'--config={config}', f'--workdir={folder / "run"}'),
      *(f'--config.checkpoint={folder / "base"}', '--config.train.lora_rank=2'),
      '--config.train.num_steps=4',
    ]
  )
  return config, folder


def test_a_damaged_adapter_and_a_base_that_changed(program, made, fault):
  config, folder = made
  base, adapter = folder / 'base' / 'model', folder / 'run' / 'model'
  command = [
    *('--mode=sample', f'--config={config}'),
    *(f'--config.checkpoint={folder / "run"}', '--config.sample.num_samples=2'),
    '--config.sample.num_steps=2',
  ]
  counts = dict.fromkeys(('adapter', 'base'), 0)
  for name, where in (('adapter', adapter), ('base', base)):
    for path in sorted(p for p in where.rglob('*') if p.is_file()):
      content = path.read_bytes()
      if not content:
        continue
      for damage in ('flipped', 'cut', 'gone'):
        if damage == 'flipped':
          flip(path, 8 * len(content) // 2)
        elif damage == 'cut':
          path.write_bytes(content[: len(content) // 2])
        else:
          path.unlink()
        new = f'--workdir={folder}/{name}-{path.name}-{damage}'
        code, out, err = program.run(*command, new)
        # Without its manifest a checkpoint is used with a warning.
        if path.name == 'digests.json' and damage == 'gone':
          assert code in (0, 2, 3), err
        else:
          assert (code in (2, 3), out, err.count('\n')) == (True, '', 1), (path, damage)
          counts[name] += 1
        path.write_bytes(content)
  whole = program.figures(*command, f'--workdir={folder}/whole')
  assert whole['mode'] == 'sample'
  fault(
    'A file of an adapter flipped, cut or gone',
    counts['adapter'],
    'one line, nothing sampled',
    f'{counts["adapter"]} refused',
  )
  fault(
    'A file of the base of an adapter flipped, cut or gone',
    counts['base'],
    'one line, nothing sampled',
    f'{counts["base"]} refused',
  )


def test_another_base_in_its_place(program, made, tmp_path, fault):
  config, folder = made
  other = tmp_path / 'other'
  program.figures(
    f'--config={config}',
    f'--workdir={other}',
    '--config.seed=7',
    '--config.train.num_steps=4',
  )
  command = [
    *('--mode=sample', f'--config={config}', f'--workdir={tmp_path / "samples"}'),
    f'--config.checkpoint={folder / "run"}',
  ]
  kept = folder / 'kept'
  (folder / 'base').rename(kept)
  try:
    message = program.refusal(*command)
    assert 'whose base is not at' in message
    shutil.copytree(other, folder / 'base')
    message = program.refusal(*command)
    assert 'base with weights' in message
  finally:
    shutil.rmtree(folder / 'base', ignore_errors=True)
    kept.rename(folder / 'base')
  fault(
    'An adapter without its base, and beside another one', 2, 'exit 2, named', 'named'
  )
