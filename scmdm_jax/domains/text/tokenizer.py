"""The letters of text8, one token each."""

from scmdm_jax.data.tokenizers.characters import CharacterTokenizer

# Ids as in MDLM's published model.
TEXT8 = CharacterTokenizer(
  'text8',
  ('[CLS]', '[SEP]', '[BOS]', '[EOS]', '[MASK]', '[PAD]', '[RESERVED]', '[UNK]'),
  'abcdefghijklmnopqrstuvwxyz ',
)
