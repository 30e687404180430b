"""What errors print: one line, bounded, with nothing that a terminal would obey."""

import pytest

from scmdm_jax.errors import printable
from tests import tiny_run


@pytest.mark.parametrize(
  'text',
  [
    '\x1b[31mred',
    'a\rb',
    'a\x00b',
    '\x9b1m',
    'right\u202eleft',
    '\u2066x',
    'a\nb\x0bc',
  ],
)
def test_control_characters_are_escaped(text):
  line = printable(f'error: {text}; do this')
  assert line.isprintable()
  assert line.startswith('error: ') and line.endswith('; do this')


def test_text_of_people_stays_as_it_is():
  text = 'error: Größe 日本語 mask\\n "x"'
  assert printable(text) == text


def test_long_lines_are_cut_in_the_middle():
  line = printable('error: ' + 'x' * 3_300_000 + '; get it again')
  assert len(line) < 2100
  assert line.endswith('; get it again')
  assert '(3298021 characters left out)' in line


@pytest.mark.parametrize('value', ['\x1b[31m', '\u202e', 'a\nb', 'x' * 100_000])
def test_user_text_on_the_command_line(program, tmp_path, fault, value):
  config = tiny_run.write_config(tmp_path)
  for arguments in (
    [f'--config={config}', f'--config.seed={value}'],
    [f'--config={value}'],
    [f'--mode={value}', f'--config={config}'],
    ['--mode=verify', f'--source=/no/{value[:200]}'],
  ):
    message = program.refusal(*arguments)
    assert message.isprintable() and len(message) < 2100
  what = value if len(value) < 10 else 'so many x'
  fault(f'{what!r} in four flags', 4, 'one printable line each', 'as expected')
