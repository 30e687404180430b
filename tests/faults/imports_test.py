"""Damaged files of others, through the program: one line, and nothing is left."""

from tests.checkpoints import tiny_gguf


def variants(whole):
  """Fifty damaged files: cut at 25 places, and 25 places of the header overwritten."""
  for n in range(25):
    yield f'cut at {n}/25', whole[: n * len(whole) // 25]
  # The names of the model and of fields nobody reads may say anything.
  first, last = whole.index(b'llama.context_length') - 8, whole.index(b'token_embd')
  for n in range(25):
    start = first + n * (last - first) // 25
    yield f'8 bytes at {start}', whole[:start] + b'\xff' * 8 + whole[start + 8 :]


def test_fifty_damaged_variants_of_a_gguf_that_imports_when_whole(
  program, tmp_path, fault
):
  whole = tiny_gguf.llama()
  path = tmp_path / 'model.gguf'
  path.write_bytes(whole)
  command = ['--mode=import', f'--source={path}', f'--workdir={tmp_path / "new"}']
  through, count = [], 0
  for name, content in variants(whole):
    path.write_bytes(content)
    code, out, err = program.run(*command)
    if code not in (2, 3) or out or err.count('\n') != 1:
      through.append((name, code, err))
    assert sorted(p.name for p in tmp_path.iterdir()) == ['model.gguf'], name
    count += 1
  assert not through
  path.write_bytes(whole)
  assert program.figures(*command)['mode'] == 'import'
  assert count == 50
  fault(
    'Damaged variants of a GGUF file that imports when whole',
    count,
    'exit 2 or 3, one line, no destination',
    f'{count} refused',
  )
