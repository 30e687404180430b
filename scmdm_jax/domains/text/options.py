"""Options that only texts have."""

import dataclasses

from scmdm_jax.domains.options import DataSettings
from scmdm_jax.settings.rules import above, at_least, one_of, plain


@dataclasses.dataclass(frozen=True)
class TextSettings(DataSettings):
  """How documents become rows."""

  frame: bool = plain(
    True, "Packed text: rows begin with bos and end with eos, as MDLM's."
  )
  chat_template: str = plain(
    '', "Conversations: a file with a chat template in Jinja; '': the tokenizer's own."
  )
  too_long: str = one_of(
    'cut',
    ('cut', 'leave_out'),
    'What becomes of conversations of more than data.length tokens; those whose '
    'answers lie behind it are left out anyway. Counted and reported.',
  )
  buckets: int = at_least(
    1,
    1,
    'Conversations: how many lengths there are, evenly spaced up to data.length; each '
    'example is padded to the next one, and batches are of one length.',
  )
  pad_target: bool = plain(
    False,
    'Conversations: padding is end tokens that are learnt with the answer, as LLaDA '
    'trains; otherwise nobody attends to it, and it is not learnt.',
  )


@dataclasses.dataclass(frozen=True)
class TextEvaluation:
  """What is measured on texts alone."""

  mauve_seeds: int = at_least(
    0,
    0,
    (
      "Above 0: MAUVE of samples of text with the judge's features, over so "
      'many starts of k-means, against as many held-out rows.'
    ),
  )
  ngram_order: int = at_least(
    0,
    0,
    'Bits of samples under an n-gram model of this order, and the share of known '
    'words, both by the training text; 0: neither.',
  )
  ngram_tokens: int = above(
    6_000_000, 0, 'Tokens of the training text that the n-gram model counts.'
  )
