import pytest

from scmdm_jax.report import compare, trajectory

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


def test_table_shows_masks_new_tokens_and_counts(results, parse):
  results |= {'trajectory': SHOWN}
  source = compare.render(compare.complete(results))
  parsed = parse(source)
  # Five masked cells and three new ones in the table, one of each in the text.
  assert source.count('class="mask"') == 6
  assert source.count('class="new"') == 4
  assert '<td class="new"><b>&lt;bos&gt;</b></td>' in source and '<td>C</td>' in source
  assert '<b>␣</b>' in source
  assert 'rate <1>' in parsed.text
  steps = trajectory.steps_of(SHOWN, conditioned=True)
  assert [step.masked for step in steps] == [3, 2, 0]
  assert [cell.kind for cell in steps[2].cells] == ['new', 'old', 'new']


@pytest.mark.slow
def test_signal_of_each_step_is_named(results):
  def signals(conditioned):
    return [s.signal for s in trajectory.steps_of(SHOWN, conditioned=conditioned)]

  assert signals(True) == ['\u2013', 'null (zero)', 'prediction of step 1']
  assert signals(False) == ['\u2013', 'none', 'none']
  for arm, wanted in (('rate 1', 'previous prediction'), ('other', 'No signal is car')):
    shown = compare.render(
      compare.complete(results | {'trajectory': SHOWN | {'arm': arm}})
    )
    assert wanted in shown


@pytest.mark.parametrize(('steps', 'frames'), [(4, 5), (100, 16)])
def test_a_film_runs_from_the_start_to_the_end(results, parse, steps, frames):
  images = [f'data:image/png;base64,{step:04}' for step in range(steps + 1)]
  shown = {
    'arm': 'rate <1>',
    'num_steps': steps,
    'tokens': [['x'] * 4] * (steps + 1),
    'masked': [
      [i > step * 4 / steps for i in range(1, 5)] for step in range(steps + 1)
    ],
    'film': 'hidden ones are blue.',
    'frames': [{'caption': 'class 7', 'image': image} for image in images],
  }
  source = compare.render(compare.complete(results | {'trajectory': shown}))
  parsed = parse(source)
  found = [value for name, value in parsed.attributes if name == 'src'][1:]
  assert len(found) == frames and (found[0], found[-1]) == (images[0], images[-1])
  text = ' '.join(' '.join(parsed.text).split())
  assert 'step 0 4 masked' in text and f'step {steps} 0 masked' in text
  assert 'One sample, class 7' in text and 'hidden ones are blue.' in text
  assert 'rate <1>' in text


@pytest.mark.parametrize(
  'tokens', [TOKENS[:2], [*TOKENS[:2], ['C']], [row[:2] for row in TOKENS]]
)
def test_rows_must_match(tokens):
  with pytest.raises(ValueError, match='equally long rows'):
    trajectory.steps_of({**SHOWN, 'tokens': tokens}, conditioned=True)
