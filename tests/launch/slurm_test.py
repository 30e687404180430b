"""launch/slurm.sbatch with stand-ins for srun and scontrol."""

import re

import pytest

from tests.launch.fakes import ROOT

WORDS = ['python', 'a b', '', '*', "it's", '"', '$(touch x)', '\\', '-n', 'é\n;']


@pytest.fixture
def submitted(fakes, tmp_path):
  """Runs the script as SLURM does, from a project whose launcher only records."""
  project = tmp_path / 'a project'
  (project / 'launch').mkdir(parents=True)
  launcher = project / 'launch' / 'local.sh'
  fakes.recorder('local')
  launcher.symlink_to(fakes.bin / 'local')
  fakes.recorder('scontrol')

  def run(*arguments, code=0, **variables):
    fakes.recorder('srun', code=code)
    job = {'SLURM_JOB_ID': '42', 'SLURM_SUBMIT_DIR': str(project)}
    return fakes.run('slurm.sbatch', *arguments, cwd='/', **{**job, **variables})

  run.calls = lambda: [words for words, _, _ in fakes.calls()]
  run.variables = lambda: [variables for _, _, variables in fakes.calls()]
  run.launcher = launcher
  return run


def test_command_arrives_word_for_word_after_one_installation(submitted):
  done = submitted(*WORDS, SLURM_CPUS_PER_TASK='32')
  assert done.returncode == 0
  install, step = submitted.calls()
  assert install == ['true']
  assert step == ['--kill-on-bad-exit=0', '--wait=120', 'launch/local.sh', *WORDS]
  for variables in submitted.variables():
    assert variables['SCMDM_EXTRAS'] == 'quickstart,cuda13'
  assert submitted.variables()[1]['SRUN_CPUS_PER_TASK'] == '32'


def test_saved_run_goes_back_into_the_queue(submitted):
  done = submitted('true', code=75)
  assert done.returncode == 75
  assert submitted.calls()[2:] == [['requeue', '42']]
  assert 'job 42 goes back into the queue' in done.stderr


@pytest.mark.parametrize('code', [1, 2, 3, 143])
def test_failed_run_does_not(submitted, code):
  assert submitted('true', code=code).returncode == code
  assert len(submitted.calls()) == 2


def test_wrong_place_is_one_line(submitted):
  submitted.launcher.unlink()
  done = submitted('true')
  assert (done.returncode, done.stderr.count('\n')) == (2, 1)
  assert 'submit from the project root' in done.stderr
  done = submitted('true', SLURM_JOB_ID='')
  assert (done.returncode, done.stderr.count('\n')) == (2, 1)
  assert 'not a SLURM job' in done.stderr
  assert submitted.calls() == []


def test_sbatch_reads_its_options():
  options = []
  for line in (ROOT / 'launch' / 'slurm.sbatch').read_text().splitlines()[1:]:
    # sbatch stops at the first line that is no comment.
    if line and not line.startswith('#'):
      break
    if match := re.fullmatch(r'#SBATCH (--\S+)', line):
      options.append(match[1])
  for option in ('--requeue', '--signal=TERM@300', '--open-mode=append'):
    assert option in options
  # Without B: the signal goes to the processes, not to the script, which requeues.
  assert '--ntasks-per-node=1' in options
