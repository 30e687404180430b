import pytest

from scmdm_jax.report import trajectory

MASKED = [[True, True, True], [True, False, True], [False, False, False]]
TOKENS = [['<m>'] * 3, ['<m>', 'C', '<m>'], ['<bos>', 'C', ' ']]
SHOWN = {'arm': 'rate <1>', 'num_steps': 2, 'tokens': TOKENS, 'masked': MASKED}


def test_revealed_against_hand_marking():
  assert trajectory.revealed(MASKED) == [
    [False, False, False],
    [False, True, False],
    [True, False, True],
  ]


def test_a_prompt_is_not_revealed():
  assert trajectory.revealed([[True, False], [False, False]])[0] == [False, False]


def test_table_shows_masks_new_tokens_and_counts(parse):
  source = trajectory.trajectory_html(SHOWN, conditioned=True)
  parsed = parse(source)
  # Five masked cells and three new ones in the table, one of each in the text.
  assert source.count('class="mask"') == 6
  assert source.count('class="new"') == 4
  assert '<td class="new"><b>&lt;bos&gt;</b></td><td>C</td>' in source
  assert '<b>␣</b>' in source
  assert 'rate <1>' in parsed.text
  numbers = [s for s in source.split('<td class="number">')[1:]]
  assert [n[0] for n in numbers] == ['3', '2', '0']


def test_signal_of_each_step_is_named():
  conditioned = trajectory.trajectory_html(SHOWN, conditioned=True)
  assert 'null (zero)' in conditioned and 'prediction of step 1' in conditioned
  vanilla = trajectory.trajectory_html(SHOWN, conditioned=False)
  assert 'No signal is carried' in vanilla and 'prediction of step' not in vanilla


@pytest.mark.parametrize(
  'tokens', [TOKENS[:2], [*TOKENS[:2], ['C']], [row[:2] for row in TOKENS]]
)
def test_rows_must_match(tokens):
  with pytest.raises(ValueError, match='equally long rows'):
    trajectory.trajectory_html({**SHOWN, 'tokens': tokens}, conditioned=True)
