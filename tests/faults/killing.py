"""Kills a training at a given moment, and sees what it left on the disk."""

import os
import pathlib
import time


def finish(process):
  out, err = process.communicate(timeout=500)
  assert process.returncode == 0, err
  assert 'Traceback' not in err
  assert out.count('\n') == 1


def names_below(directory: pathlib.Path) -> set[str]:
  """The paths below a directory, of which some may vanish meanwhile."""
  return {
    os.path.join(folder, name)
    for folder, folders, files in os.walk(directory)
    for name in (*folders, *files)
  }


def lines_in(workdir):
  path = workdir / 'metrics.jsonl'
  return path.read_bytes().count(b'\n') if path.exists() else 0


def kill_when(process, reached):
  """Kills `process` as soon as `reached()`; False if it ended by itself first."""
  while process.poll() is None:
    if reached():
      process.kill()
      process.communicate()
      return True
    time.sleep(0.002)
  finish(process)
  return False


def saved_steps(workdir):
  # By listing alone: opening the store would tidy up what the kill left.
  paths = (workdir / 'checkpoints').glob('*/commit_success.txt')
  return sorted(int(path.parent.name) for path in paths if path.parent.name.isdecimal())
