"""Stand-ins for programs that reach clouds and clusters: they write down their words.

The PATH they are on has nothing else but standard programs, so that a real gcloud or
kubectl of this machine is out of reach.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]

_RECORD = """\
import json, os, sys
with open({path!r}, 'a') as file:
  stdin = sys.stdin.read() if {reads} else ''
  environment = {{k: v for k, v in os.environ.items() if k.startswith('S')}}
  json.dump([sys.argv[1:], stdin, environment], file)
  file.write('\\n')
sys.exit({code})
"""


class Fakes:
  """A folder of stand-ins and of what they were called with, in order."""

  def __init__(self, directory: pathlib.Path):
    self.bin = directory / 'bin'
    self.bin.mkdir()
    self._calls = directory / 'calls.jsonl'
    names = 'bash basename cat chmod date dirname env gzip mktemp readlink rm sleep tar'
    for name in names.split():
      (self.bin / name).symlink_to(shutil.which(name))
    # A link would hide from Python where its libraries are.
    self.program('python3', f'exec {sys.executable} "$@"')

  def program(self, name: str, script: str) -> None:
    """A shell script on the PATH."""
    path = self.bin / name
    path.write_text(f'#!/bin/bash\n{script}\n')
    path.chmod(0o755)

  def recorder(self, name: str, code: int = 0, reads: bool = False) -> None:
    """A program that records its words (and input) and ends with `code`."""
    source = self.bin / f'.{name}.py'
    text = _RECORD.format(path=str(self._calls), reads=reads, code=code)
    source.write_text(text)
    self.program(name, f'exec {sys.executable} {source} "$@"')

  def run(self, script: str, *arguments: str, cwd=ROOT, **variables: str):
    """Runs launch/`script` with these programs and variables only."""
    return subprocess.run(
      [ROOT / 'launch' / script, *arguments],
      cwd=cwd,
      env={'PATH': str(self.bin), 'HOME': os.environ.get('HOME', '/'), **variables},
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      check=False,
      timeout=60,
    )

  def calls(self) -> list[tuple[list[str], str, dict[str, str]]]:
    """Words, input and some variables of every call so far."""
    if not self._calls.exists():
      return []
    return [tuple(json.loads(line)) for line in self._calls.read_text().splitlines()]
