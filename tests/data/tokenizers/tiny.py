"""Tokenizers of a few dozen tokens, as files."""

import json

TEXT = 'low lower lowest new newer newest wide wider widest'
SPECIAL = ('<|endoftext|>', '<s>', '[PAD]', '[MASK]', '<|im_start|>')
ORDINARY = '<tool>'  # An added token that text may yield.

# Pairs of pieces, best first; what GPT-2's own tool would find first in TEXT.
MERGES = (
  *(('w', 'e'), ('e', 'r'), ('l', 'o'), ('s', 't'), ('Ġ', 'n'), ('we', 'r')),
  *(('d', 'e'), ('lo', 'w'), ('Ġ', 'lo'), ('e', 'st'), ('Ġlo', 'w'), ('Ġlo', 'we')),
)


def byte_characters():
  """GPT-2's printable stand-ins for the 256 bytes, from its published rule."""
  plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
  others = [b for b in range(256) if b not in plain]
  characters = {b: chr(b) for b in plain}
  return characters | {b: chr(256 + n) for n, b in enumerate(others)}


def bpe_vocabulary():
  pieces = [*sorted(byte_characters().values()), *(a + b for a, b in MERGES)]
  return {piece: i for i, piece in enumerate(pieces)}


def added(first, tokens=SPECIAL):
  flags = {'single_word': False, 'lstrip': False, 'rstrip': False, 'normalized': False}
  entries = [
    {'id': first + n, 'content': t, 'special': True} for n, t in enumerate(tokens)
  ]
  entries.append({'id': first + len(tokens), 'content': ORDINARY, 'special': False})
  return [entry | flags for entry in entries]


def definition(model, pre_tokenizer, decoder, **changes):
  """A `tokenizer.json` with all specials behind the model's own vocabulary."""
  return {
    'version': '1.0',
    'truncation': {
      'direction': 'Right',
      'max_length': 3,
      'strategy': 'LongestFirst',
      'stride': 0,
    },
    'padding': None,
    'added_tokens': added(len(model['vocab'])),
    'normalizer': None,
    'pre_tokenizer': pre_tokenizer,
    'post_processor': None,
    'decoder': decoder,
    'model': model,
  } | changes


def bpe(**changes):
  words = {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True}
  words |= {'use_regex': True}
  model = {
    'type': 'BPE',
    'vocab': bpe_vocabulary(),
    'merges': [list(m) for m in MERGES],
  }
  return definition(model | changes, words, words)


def word_level(specials_inside=True):
  """Words between spaces, looked up whole: the specials could be, too."""
  vocab = {'<unk>': 0} | {word: i + 1 for i, word in enumerate(TEXT.split())}
  added_tokens = added(len(vocab))
  if specials_inside:
    vocab |= {t['content']: t['id'] for t in added_tokens}
  model = {'type': 'WordLevel', 'vocab': vocab, 'unk_token': '<unk>'}
  split = {'type': 'WhitespaceSplit'}
  return definition(model, split, None, added_tokens=added_tokens)


def unigram():
  """Pieces with scores; the specials are pieces like any others."""
  pieces = ['<unk>', *sorted(set(TEXT) - {' '}), '▁', '▁low', 'est', *SPECIAL]
  scores = [0.0] + [-float(n) / len(pieces) - 1 for n in range(len(pieces) - 1)]
  model = {
    'type': 'Unigram',
    'unk_id': 0,
    'vocab': [list(x) for x in zip(pieces, scores, strict=True)],
  }
  space = {'type': 'Metaspace', 'replacement': '▁', 'prepend_scheme': 'always'}
  space |= {'split': False}
  first = len(pieces) - len(SPECIAL)
  return definition(model, space, space, added_tokens=added(first))


CONFIG = {
  'bos_token': '<s>',
  'eos_token': {'content': '<|endoftext|>', 'lstrip': False},
  'pad_token': '[PAD]',
  'mask_token': '[MASK]',
}


def files(definition, config=None):
  """The bytes of a definition and of what stands beside it."""
  return {
    'tokenizer.json': json.dumps(definition).encode(),
    'tokenizer_config.json': json.dumps(CONFIG if config is None else config).encode(),
  }
