import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scmdm_jax.data.tokenizers.template import Written, parse
from scmdm_jax.errors import BadInput

LLADA = Written('<|mdm_mask|>', '<|startoftext|>', '<|endoftext|>', '<|endoftext|>')
DREAM = Written('<|mask|>', '<|beginoftext|>', '<|endoftext|>', '<|endoftext|>')
# The bundled model: the mask is no token of its vocabulary, and shown as <mask>.
OURS = Written('<mask>', '<s>', '</s>', '</s>')


@pytest.mark.parametrize(
  ('text', 'parts'),
  [
    ('low', ['low']),
    ('', []),
    ('<mask>', [1]),
    ('<mask:12>', [12]),
    ('a <mask> b', ['a ', 1, ' b']),
    ('<mask: 3>', [3]),
    ('<mask :3 >', [3]),
    ('< mask : 003 >', [3]),
    ('<mask:0>', [0]),
    ('<MASK>', [1]),
    ('<Mask:2>', [2]),
    ('[MASK]', [1]),
    ('[MASK:4]', [4]),
    ('The capital is[MASK].', ['The capital is', 1, '.']),
    ('<|mask|>', [1]),
    ('<|mask:2|>', [2]),
    ('<mask><mask:2>', [1, 2]),
    ('<mask:9999999999>', [10**9]),
    ('<mask:' + '9' * 9999 + '>', [10**9]),
  ],
)
@pytest.mark.parametrize('written', [LLADA, DREAM, OURS])
def test_masks(text, parts, written):
  assert parse(text, written) == (False, parts, False)


def test_a_model_s_own_tokens():
  assert parse('a<|mdm_mask|>b', LLADA).parts == ['a', 1, 'b']
  assert parse('<|startoftext|>a<|endoftext|>', LLADA) == (True, ['a'], True)
  assert parse('<s>a</s> \n', OURS) == (True, ['a'], True)
  one = Written('<mask>', '<|endoftext|>', '<|endoftext|>', '<|endoftext|>')
  assert parse('<|endoftext|>', one) == (True, [], False)
  assert parse('<|endoftext|>a<|endoftext|>', one) == (True, ['a'], True)
  # What is not written as markup may be text: it names no token.
  plain = Written('*', 'A', '.', '_')
  assert parse('A * _ b.', plain) == (False, ['A * _ b.'], False)


@pytest.mark.parametrize(
  'end', ['<end>', '<end> ', '<end>\n', '<end>\t \n', '<END>', '< end >']
)
def test_ends(end):
  assert parse(f'a b {end}', OURS) == (False, ['a b '], True)
  assert parse(end, OURS) == (False, [], True)
  assert parse(f'<mask:2>{end}', OURS) == (False, [2], True)


@pytest.mark.parametrize(
  'near',
  [
    *('<mask:-1>', '<mask:x>', '<mask:>', '<mask:1.5>', '<mask:3,4>', '<mask:+3>'),
    *(
      '<mask:\uff13>',
      '<mask;3>',
      '<mask=3>',
      '<mask 3>',
      '<mask3>',
      '<mask_3>',
      '<mask',
    ),
    *('<mask:3', '<mask/>', '</mask>', '<masks>', '<masks:3>', '<_mask_>', '<|mask>'),
    *(
      '<mask|>',
      '<mask]',
      '\uff1cmask\uff1e',
      '\xabmask\xbb',
      '<\uff5cmask\uff5c>',
      '[mask]',
      '[Mask:3]',
    ),
    *('[MASK', '[MASK 3]', '[MASK-3]', '{mask}', '{{mask:3}}', '[|mask|]', '[MASK>'),
    *('<end>b', '<end', '</end>', '<|end|>', '<end/>', '<end:>', '[END]', '{end}'),
    *('<end><end>', '<end>.', '[end', 'x <end> y'),
  ],
)
def test_near_misses_are_refused(near):
  # As we shall find it: alone, behind text, and (but for ends) before it.
  for prompt in (near, f'a {near}'):
    with pytest.raises(BadInput, match=r'^prompt .* neither text nor markup; wanted '):
      parse(prompt, OURS)


@pytest.mark.parametrize('written', [LLADA, DREAM, OURS])
def test_own_tokens_elsewhere_are_refused(written):
  for near in (
    f'a{written.start}b',
    f'a{written.end}b',
    f' {written.start}',
    f'{written.start}{written.start}',
    written.mask[:-1],
    f'a{written.end.upper()}b',
  ):
    with pytest.raises(BadInput, match='neither text nor markup'):
      parse(near, written)


@pytest.mark.parametrize(
  'text',
  [
    *(
      'a mask',
      'mask',
      'x[mask] = 0',
      'if mask>0:',
      '(mask)',
      '[mask on face]',
      'end>',
    ),
    *(
      '<masked ball>',
      '<masquerade>',
      'a < b > c',
      '<ending>',
      'the end',
      '[end of it]',
    ),
    *('<endless>', '<b>bold</b>', '[1]', '{x}', '_', '$', 'unmask', '日本 <語>', 'END'),
  ],
)
def test_other_text_is_text(text):
  assert parse(text, OURS) == (False, [text], False)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
  st.lists(
    st.one_of(
      st.sampled_from(['<mask>', '<mask:3>', '<', 'mask', ':', '3', '>', '<end>', ' ']),
      st.text(max_size=3),
    )
  ).map(''.join)
)
def test_a_prompt_is_read_or_refused(text):
  try:
    started, parts, closed = parse(text, DREAM)
  except BadInput as error:
    assert '\n' not in str(error)
    return
  assert not started
  # What is text stands in the prompt as it is, in order.
  rest = text
  for part in parts:
    if isinstance(part, str):
      _, found, rest = rest.partition(part)
      assert found
      assert not {'<mask', '<end>'} & {part}
  assert closed == text.rstrip().lower().replace(' ', '').endswith('<end>')


@pytest.mark.parametrize('piece', ['<', '<mask', '<mask:', ' ', '<end', '[mask ', '<|'])
def test_time_is_linear_in_a_prompt(piece):
  def seconds(count):
    best = 9.0
    for _ in range(3):
      start = time.process_time()
      with contextlib.suppress(BadInput):
        parse(piece * count + 'x', DREAM)
      best = min(best, time.process_time() - start)
    return best

  # Quadratic would be 64 times as long, linear 8 times; clocks are coarse below 5 ms.
  assert seconds(16_000) < 24 * max(seconds(2_000), 0.005)
