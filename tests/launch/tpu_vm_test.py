"""launch/tpu_vm.sh: what it asks gcloud for, word for word."""

import os
import shlex
import subprocess
import tarfile

import pytest

from tests.launch.fakes import ROOT

SLICE = {'TPU_NAME': 'my tpu', 'TPU_ZONE': 'us-east5-b', 'TPU_TYPE': 'v6e-16'}
TPUS = ['compute', 'tpus']
WHERE = '--zone=us-east5-b'


@pytest.fixture
def tpu_vm(fakes):
  fakes.recorder('gcloud')

  def run(*arguments, **variables):
    return fakes.run('tpu_vm.sh', *arguments, **{**SLICE, **variables})

  run.calls = lambda: [words for words, _, _ in fakes.calls()]
  run.fakes = fakes
  return run


def test_create_asks_for_the_slice(tpu_vm):
  assert tpu_vm('create').returncode == 0
  assert tpu_vm.calls() == [
    [
      *(*TPUS, 'queued-resources', 'create', 'my tpu', '--node-id=my tpu'),
      *('--accelerator-type=v6e-16', '--runtime-version=v2-alpha-tpuv6e', WHERE),
    ]
  ]


def test_project_and_spot_are_passed_on(tpu_vm):
  tpu_vm('create', TPU_SPOT='1', TPU_PROJECT='a-project', TPU_TYPE='v4-8')
  (words,) = tpu_vm.calls()
  assert words[5:] == [
    *('--node-id=my tpu', '--accelerator-type=v4-8'),
    *('--runtime-version=tpu-ubuntu2204-base', '--spot', WHERE),
    '--project=a-project',
  ]


@pytest.mark.parametrize('kind', ['v7x-16', '', 'v6e'])
def test_slice_that_this_interface_does_not_have_is_refused(tpu_vm, kind):
  done = tpu_vm('create', TPU_TYPE=kind)
  assert done.returncode == 2
  assert 'TPU_TYPE' in done.stderr
  assert tpu_vm.calls() == []


@pytest.mark.parametrize(
  ('verb', 'words'),
  [
    ('status', ['queued-resources', 'describe', 'my tpu']),
    ('delete', ['queued-resources', 'delete', 'my tpu', '--force']),
  ],
)
def test_status_and_delete(tpu_vm, verb, words):
  assert tpu_vm(verb).returncode == 0
  # No --quiet: gcloud asks before it deletes.
  assert tpu_vm.calls() == [[*TPUS, *words, WHERE]]


def test_logs_follow_one_host(tpu_vm):
  tpu_vm('logs', TPU_WORKER='3')
  assert tpu_vm.calls() == [
    [
      *(*TPUS, 'tpu-vm', 'ssh', 'my tpu', '--worker=3'),
      *('--command=tail -n 100 -F scmdm_jax.log', WHERE),
    ]
  ]


def test_setup_copies_the_project_and_installs_it(tpu_vm, tmp_path):
  # A gcloud that keeps the archive, which is gone afterwards.
  tpu_vm.fakes.program(
    'gcloud', f'if [[ $4 == scp ]]; then cat "$5" >"{tmp_path}/kept.tgz"; fi'
  )
  assert tpu_vm('setup').returncode == 0
  with tarfile.open(tmp_path / 'kept.tgz') as archive:
    names = archive.getnames()
  tops = 'LICENSE configs constraints launch pyproject.toml scmdm_jax setup.py'
  assert {name.split('/')[0] for name in names} == set(tops.split())
  assert 'scmdm_jax/main.py' in names
  assert not [name for name in names if '__pycache__' in name]

  tpu_vm.fakes.recorder('gcloud')
  tpu_vm('setup')
  copy, install = tpu_vm.calls()
  assert copy[:4] == [*TPUS, 'tpu-vm', 'scp']
  assert copy[5:] == ['my tpu:scmdm_jax.tgz', '--worker=all', WHERE]
  assert not os.path.exists(copy[4])
  assert install[:6] == [*TPUS, 'tpu-vm', 'ssh', 'my tpu', '--worker=all']
  script = install[6].removeprefix('--command=')
  assert 'SCMDM_EXTRAS=quickstart,tpu' in script
  assert 'scmdm_jax/launch/local.sh true' in script
  subprocess.run(['bash', '-n', '-c', script], check=True)


def host(tmp_path, tpu_vm):
  """Runs what gcloud was told to run on the hosts, with a launcher that shows it."""
  home = tmp_path / 'home'
  launcher = home / 'scmdm_jax' / 'launch' / 'local.sh'
  launcher.parent.mkdir(parents=True)
  show = 'import os, sys; print(os.environ["SCMDM_COORDINATOR"], sys.argv[1:])'
  launcher.write_text(f'#!/bin/sh\nexec python3 -c \'{show}\' "$@"\n')
  launcher.chmod(0o755)

  def run():
    script = tpu_vm.calls()[-1][6].removeprefix('--command=')
    return subprocess.run(
      ['bash', '-c', f'{script}\nwait'],
      cwd=home,
      env={'PATH': os.environ['PATH'], 'HOME': str(home)},
      capture_output=True,
      text=True,
      check=False,
      timeout=30,
    )

  return home, run


def test_run_starts_the_command_on_all_hosts_word_for_word(tpu_vm, tmp_path):
  words = ['python', 'a b', '', '*', "it's", '"', '$(touch x)', '\\', '-n', 'é\n;']
  assert tpu_vm('run', *words).returncode == 0
  (call,) = tpu_vm.calls()
  assert call[:6] == [*TPUS, 'tpu-vm', 'ssh', 'my tpu', '--worker=all']
  assert call[7:] == [WHERE]
  home, run = host(tmp_path, tpu_vm)
  done = run()
  assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
  assert (home / 'scmdm_jax.log').read_text() == f'auto {words}\n'
  assert int((home / 'scmdm_jax.pid').read_text()) > 0
  # The same again, once the first has ended: it resumes, and the log goes on.
  assert run().returncode == 0
  assert (home / 'scmdm_jax.log').read_text() == f'auto {words}\n' * 2


def test_second_run_beside_the_first_is_refused(tpu_vm, tmp_path):
  tpu_vm('run', 'true')
  home, run = host(tmp_path, tpu_vm)
  (home / 'scmdm_jax.pid').write_text(f'{os.getpid()}\n')
  done = run()
  assert done.returncode == 2
  assert done.stderr == 'a run is under way: launch/tpu_vm.sh stop\n'
  assert not (home / 'scmdm_jax.log').exists()


def test_stop_signals_the_run(tpu_vm, tmp_path):
  tpu_vm('stop')
  home, run = host(tmp_path, tpu_vm)
  sleeper = subprocess.Popen(['sleep', '60'])
  (home / 'scmdm_jax.pid').write_text(f'{sleeper.pid}\n')
  assert run().returncode == 0
  assert sleeper.wait(timeout=10) == -15


def test_failure_of_gcloud_is_the_exit_code(tpu_vm):
  tpu_vm.fakes.recorder('gcloud', code=4)
  assert tpu_vm('status').returncode == 4
  assert tpu_vm('setup').returncode == 4
  assert len(tpu_vm.calls()) == 2


def test_dry_run_prints_what_a_shell_can_read_back_and_runs_nothing(tpu_vm):
  done = tpu_vm('create', DRY_RUN='1')
  assert tpu_vm.calls() == []
  (line,) = done.stdout.splitlines()
  printed = shlex.split(line.removeprefix('+ '))
  assert printed[0] == 'gcloud'
  tpu_vm('create')
  assert tpu_vm.calls() == [printed[1:]]
  assert tpu_vm('setup', DRY_RUN='1').stdout.count('\n+ gcloud') == 2
  assert len(tpu_vm.calls()) == 1


@pytest.mark.parametrize('missing', ['TPU_NAME', 'TPU_ZONE'])
def test_missing_setting_is_named(tpu_vm, missing):
  done = tpu_vm('status', **{missing: ''})
  assert done.returncode == 2
  assert f'{missing}: not set' in done.stderr
  assert tpu_vm.calls() == []


def test_unknown_verb_and_stray_words_are_refused(tpu_vm):
  for words in (['destroy'], ['delete', 'now'], ['run']):
    done = tpu_vm(*words)
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1
  assert tpu_vm.calls() == []


def test_what_is_copied_exists():
  text = (ROOT / 'launch' / 'tpu_vm.sh').read_text()
  (line,) = [line for line in text.splitlines() if line.startswith('    LICENSE ')]
  assert all((ROOT / name).exists() for name in line.split())
