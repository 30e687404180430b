import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scmdm_jax.domains.text.detokenize import _tightened, detokenize

# Each left side is written as the published set writes it; each right side by hand.
CASES = [
  ('wikitext', ' = Robert Boulter = \n', ' = Robert Boulter =\n'),
  ('wikitext', ' = = Career = = \n', ' == Career ==\n'),
  ('wikitext', ' = = = 2000 = = = \n', ' === 2000 ===\n'),
  ('wikitext', 'a @-@ b of 1 @,@ 000 @.@ 5', 'a-b of 1,000.5'),
  ('wikitext', 'He said : " no " ; so , ( he ) went .\n', None),
  ('wikitext', "the band 's and the bands ' song", "the band's and the bands' song"),
  ('wikitext', '[ x ] { y } at 5 ° C N times', '[x] {y} at 5°C 1 times'),
  ('ptb', "it 's N N N years", "it's 1 1 1 years"),
  ('ptb', '$ N million # N a\\/b <unk>', '$1 million #1 a/b ?'),
  ('ptb', "traders ' word does n't", "traders' word doesn't"),
  ('lm1b', 'He asked , " Why ? "', 'He asked, "Why?"'),
  ('lm1b', 'It is true .', 'It is true.'),
  ('lm1b', 'Say one . Two ! Three ?', 'Say one. Two! Three?'),
  ('lm1b', 'see http : / / a.b / c , $ 5 and £ 6', 'see http://a.b/c, $5 and £6'),
  ('lm1b', "She 's ( very ) [ very ] late", "She's (very) [very] late"),
  ('lambada', ' “yes,” he said ', '\n"yes," he said'),
  ('ag_news', ' left , as it is . ', ' left , as it is . '),
  ('openwebtext', ' left , as it is . ', ' left , as it is . '),
]


@pytest.mark.parametrize(('name', 'written', 'read'), CASES)
def test_by_hand(name, written, read):
  if read is None:
    # The full stop before a line's end keeps its space: the rule wants one behind it.
    read = 'He said: "no"; so, (he) went .\n'
  assert detokenize(name, written) == read


def test_scientific_papers_are_read_by_both_rules():
  text = 'we measured ( see [ 1 ] ) , of @xmath0 / 2 ; " this " .'
  assert detokenize('arxiv', text) == 'we measured (see [1]), of @xmath0/2; "this" .'
  assert detokenize('pubmed', text) == detokenize('arxiv', text)


def test_no_rule_is_undone_by_a_backslash_in_the_text():
  # A replacement is inserted as it is, not read as a pattern.
  assert detokenize('wikitext', r'( \1 \g<0> )') == r'(\1 \g<0>)'


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from('()"x \n\u2003\x1c'), max_size=20))
def test_brackets_are_tightened_as_the_published_pattern_does(text):
  for a, b in (('(', ')'), ('"', '"')):
    pattern = rf'{re.escape(a)}\s*([^{re.escape(b)}]*?)\s*{re.escape(b)}'
    assert _tightened(a, b, text) == re.sub(pattern, rf'{a}\1{b}', text)


@pytest.mark.parametrize('name', ['wikitext', 'ptb', 'lm1b', 'lambada', 'arxiv'])
@pytest.mark.parametrize(
  'unit', [' ', '( ', '(', '" ', "' x", '[ ', ' . ', ' N', '= ', 'a']
)
def test_time_grows_with_the_length_only(name, unit):
  seconds = []
  for count in (10_000, 80_000):
    start = time.process_time()
    detokenize(name, f'see ( {unit * count}x')
    seconds.append(time.process_time() - start)
  # Eight times as long: 8 if linear, 64 if quadratic.
  assert seconds[1] < 24 * seconds[0] + 0.1
