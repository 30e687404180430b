"""What the fault tests share: a run in this process, and a line of the table."""

import json

import jax
import pytest

from scmdm_jax.main import main
from tests import tiny_run
from tests.compiling import quick_jit
from tests.faults import starting


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  """These tests compile more than they run."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'jit', quick_jit)
    yield


@pytest.fixture
def program(capsys):
  return tiny_run.Program(capsys)


@pytest.fixture
def fault(record_property):
  """Notes one line of the table in docs/reliability.md: see `table.py`."""

  def note(what: str, times: int, expected: str, observed: str) -> None:
    record_property('fault', json.dumps([what, times, expected, observed]))

  return note


@pytest.fixture
def count(record_property):
  """Adds to a figure of the line below the table: of so many, how many were well."""

  def note(what: str, times: int, well: int) -> None:
    record_property('count', json.dumps([what, times, well]))

  return note


@pytest.fixture(scope='session')
def trained(tmp_path_factory):
  """A finished run of six steps: its config file and its workdir; not to be changed."""
  directory = tmp_path_factory.mktemp('trained')
  config = tiny_run.write_config(directory)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'jit', quick_jit)
    options = [f'--config={config}', f'--workdir={directory / "run"}']
    assert main(['main.py', *options]) == 0
  return config, directory / 'run'


@pytest.fixture
def start(tmp_path_factory):
  """Starts the program; whatever still runs at the end of the test is killed."""
  cache = tmp_path_factory.getbasetemp() / 'cache'
  cache.mkdir(exist_ok=True)
  processes = []

  def run(*arguments, **variables):
    processes.append(starting.start(cache, *arguments, **variables))
    return processes[-1]

  yield run
  for process in processes:
    process.kill()
    process.communicate()
