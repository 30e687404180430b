"""`.ci/run` on a pretended tree: what its exit code says of what it ran."""

import os
import pathlib
import shutil
import subprocess

import pytest

_RUN = pathlib.Path(__file__).parents[1] / '.ci' / 'run'


def _ci(tmp_path: pathlib.Path, cases: str) -> tuple[int, str, str]:
  """Runs a copy whose `launch/local.sh` notes what it is asked.

  `cases` are those of the shell over what it is asked. Gives the exit code, what
  was printed and what was asked.
  """
  asked = tmp_path / 'asked'
  for name, text in {
    'launch/local.sh': f"""#!/bin/bash
      echo "${{VENV:-.venv}} $*" >>'{asked}'
      case "$*" in
        "python -V") echo Python 3.11.7 ;;
        {cases}
      esac
      exit 0
    """,
    'bin/python3.13': '#!/bin/bash\necho Python 3.13.0\n',
  }.items():
    path = tmp_path / name
    path.parent.mkdir()
    path.write_text(text)
    path.chmod(0o755)
  (tmp_path / '.ci').mkdir()
  shutil.copy(_RUN, tmp_path / '.ci' / 'run')
  # What the run sets that these tests may be part of.
  env = {
    k: v
    for k, v in os.environ.items()
    if k not in ('VENV', 'PYTHON', 'SCMDM_PODS', 'SCMDM_LONG')
  }
  ended = subprocess.run(
    ['bash', tmp_path / '.ci' / 'run'],
    env=env | {'PATH': f'{tmp_path}/bin:{env["PATH"]}'},
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=60,
    check=False,
  )
  return ended.returncode, ended.stdout, asked.read_text()


def test_all_passing_is_zero(tmp_path):
  code, printed, asked = _ci(tmp_path, '')
  assert code == 0, printed
  assert printed.rstrip().endswith('s  in all')
  cores = 'pytest -n logical --dist loadfile'
  assert f'.venv {cores} --cache-clear\n' in asked
  assert f'.venv {cores} -m slow and not long --cache-clear\n' in asked
  assert '-m long' not in asked
  assert f'.venv-other {cores} -o cache_dir=.pytest_cache_other ' in asked


@pytest.mark.parametrize(
  'fails',
  [
    'pytest*slow*',
    'pytest*cache_other*',
    '"pytest -n logical --dist loadfile --"*',
    'ruff*',
    'pyright',
  ],
)
def test_what_fails_twice_fails(tmp_path, fails):
  code, printed, _ = _ci(tmp_path, f'{fails}) exit 1 ;;')
  assert code == 1
  assert 'FAILED after' in printed
  assert 's  in all' not in printed


def test_what_fails_once_is_tried_again(tmp_path):
  code, printed, asked = _ci(tmp_path, 'pytest*slow*clear) exit 1 ;;')
  assert code == 0, printed
  assert 'A SECOND TRY' in printed
  assert '-m slow and not long --last-failed' in asked


def test_a_run_that_broke_is_not_tried_again(tmp_path):
  code, printed, _ = _ci(tmp_path, 'pytest*slow*) exit 3 ;;')
  assert code == 1
  assert 'A SECOND TRY' not in printed
