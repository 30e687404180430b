r"""Small texts out of Debian's packages: glosses, letters, and questions.

  launch/local.sh python docs/prose.py --source=runs/prose

reads usr/share below `source`, where wordnet-base and anarchism are unpacked
(docs/text_data.md), and writes beside it

  glosses.jsonl         WordNet's definitions and examples, 32 neighbours a document
  letters.jsonl         those and An Anarchist FAQ in 27 letters, as text8 has them
  questions/            which of five kinds of thing a definition defines, to train on
                        and held out: train.jsonl and test.jsonl
  asked.jsonl           every fifth of the held-out questions, with its answer

in half a minute of a core. Prints what each has.
"""

import argparse
import collections
import json
import pathlib
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scmdm_jax import files
from scmdm_jax.data import documents
from scmdm_jax.errors import BadInput

FAQ, WORDNET = 'usr/share/doc/anarchism/html', 'usr/share/wordnet'
KINDS = {'04': 'act', '05': 'animal', '06': 'artifact', '18': 'person', '20': 'plant'}
TOGETHER = 32  # Glosses of a document: one alone is shorter than a row.
LONGEST = 60  # Of a definition that is asked for, in characters, blanks behind it too.
DOCUMENT = 4000  # Letters of a document, at most.


def entries(path: pathlib.Path) -> list[tuple[str, str]]:
  """The entries of a file of WordNet's: what stands before the gloss, and the gloss."""
  lines = [x for x in path.read_text('utf-8').splitlines() if ' | ' in x]
  # The licence stands first, in lines that begin with blanks.
  found = [line.partition(' | ') for line in lines if not line.startswith(' ')]
  return [(fields, gloss) for fields, _, gloss in found]


def letters(text: str) -> str:
  """Lower case, and one blank for all that is not a to z."""
  return ' '.join(re.sub('[^a-z]', ' ', text.lower()).split())


def questions(
  nouns: Iterable[tuple[str, str]],
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
  """Questions and their answers: to train on, sorted, and held out, as they come.

  Every 20th question that is asked once is held out.

  Args:
    nouns: as `entries` gives them.
  """
  pairs = []
  for fields, gloss in nouns:
    kind, asked = KINDS.get(fields.split()[1]), gloss.split(';')[0]
    if kind and len(asked) <= LONGEST:
      pairs.append((f'{asked.strip()}: what kind?', kind))
  times = collections.Counter(question for question, _ in pairs)
  held_out = [pair for pair in pairs if times[pair[0]] == 1][::20]
  return sorted(set(pairs) - {*held_out}), held_out


def _write(path: pathlib.Path, records: Sequence[Mapping[str, Any]]) -> None:
  path.parent.mkdir(exist_ok=True)
  files.write_text(path, ''.join(json.dumps(record) + '\n' for record in records))
  print(f'{path}: {len(records)} records')


def main() -> None:
  """Writes the files and prints how much is in each."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--source', type=pathlib.Path, required=True)
  source = parser.parse_args().source
  found, _ = documents.files_of(source / FAQ, '--source')
  paths = sorted((source / WORDNET).glob('data.*'))
  by_file = {path.name: entries(path) for path in paths}
  if 'data.noun' not in by_file:
    raise BadInput(f'--source {source / WORDNET}: no data.noun; unpack wordnet-base')
  glosses = [gloss.strip() for pairs in by_file.values() for _, gloss in pairs]
  together = [glosses[i : i + TOGETHER] for i in range(0, len(glosses), TOGETHER)]
  _write(source / 'glosses.jsonl', [{'text': '\n'.join(x) + '\n'} for x in together])
  texts = [text for _, text in documents.read(found)]
  texts += [' '.join(gloss for _, gloss in pairs) for pairs in by_file.values()]
  pieces = [piece for text in texts for piece in textwrap.wrap(letters(text), DOCUMENT)]
  _write(source / 'letters.jsonl', [{'text': f'{piece} '} for piece in pieces])
  print(f'{sum(len(piece) + 1 for piece in pieces)} letters')
  train, held_out = questions(by_file['data.noun'])
  for name, part in (('train', train), ('test', sorted(held_out))):
    records = [{'prompt': asked, 'response': said} for asked, said in part]
    _write(source / 'questions' / f'{name}.jsonl', records)
  asked = [
    {'messages': [{'role': 'user', 'content': question}], 'answer': said}
    for question, said in held_out[::5]
  ]
  _write(source / 'asked.jsonl', asked)


if __name__ == '__main__':
  try:
    main()
  except (BadInput, OSError) as error:
    sys.exit(f'error: {error}')
