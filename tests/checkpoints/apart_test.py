"""Disks of the processes that do not hold the same: all of them are told."""

import json

import pytest

from scmdm_jax.checkpoints import apart
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.processes import multihost


class Nothing:
  """A process's way to the bucket, not taken here."""

  def bring(self, directory, names):
    pass

  def fetch(self, directory):
    pass

  def drop(self):
    pass


@pytest.fixture
def others(monkeypatch):
  """Puts what another process says beside what this one says."""
  said = []

  def exchanged(name, text):
    return [text, *said]

  monkeypatch.setattr(multihost, 'exchanged', exchanged)
  with apart.disks(Nothing()):
    yield said


def test_steps_that_differ_are_refused(others):
  others.append('10')
  apart.check_equal('newest sound step', '10')
  with pytest.raises(multihost.CommonMistake, match='step: found 5, 10 on') as refused:
    apart.check_equal('newest sound step', '5')
  assert refused.value.exit_code == DamagedData.exit_code


def test_a_mistake_on_one_disk_is_everybodys(others):
  def wrong():
    raise DamagedData('checkpoints/10: damaged')

  done = []
  apart.on_each_disk('looking', lambda: done.append(1))
  with pytest.raises(multihost.CommonMistake, match='10: damaged') as here:
    apart.on_each_disk('looking', wrong)
  others.append(json.dumps(['checkpoints/9: damaged', 3]))
  with pytest.raises(multihost.CommonMistake, match='9: damaged') as there:
    apart.on_each_disk('looking', lambda: done.append(2))
  assert (here.value.exit_code, there.value.exit_code, done) == (3, 3, [1, 2])
  assert isinstance(here.value, BadInput)


def test_what_holds_everywhere_holds_on_every_disk(others):
  """One disk that says no is enough, and everybody learns of it."""
  others.append(json.dumps(True))
  assert [apart.everywhere('same base', value) for value in (True, False)] == [
    True,
    False,
  ]
  others.append(json.dumps(False))
  assert not apart.everywhere('same base', True)
