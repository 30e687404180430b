import pytest

from scmdm_jax.report import text


@pytest.mark.parametrize(
  ('raw', 'shown'),
  [
    ('plain ± é 分子', 'plain ± é 分子'),
    ('\x1b[31mred', '⟨U+001B⟩[31mred'),
    ('a\u202eb\u2066c', 'a⟨U+202E⟩b⟨U+2066⟩c'),
    ('zero\u200bwidth', 'zero⟨U+200B⟩width'),
    ('two\nlines\u2028', 'two⟨U+000A⟩lines⟨U+2028⟩'),
    ('\x9b\ud800', '⟨U+009B⟩⟨U+D800⟩'),
  ],
)
def test_visible_names_what_cannot_be_seen(raw, shown):
  assert text.visible(raw) == shown


def test_escape_covers_markup_and_both_quotes():
  assert text.escape('<a href="x" id=\'y\'>&') == (
    '&lt;a href=&quot;x&quot; id=&#x27;y&#x27;&gt;&amp;'
  )


@pytest.mark.parametrize(
  ('value', 'error', 'shown'),
  [
    (0.60366, 0.00512, '0.604 ± 0.005'),
    (0.60366, 0.00152, '0.6037 ± 0.0015'),
    (0.5, 0.0996, '0.50 ± 0.10'),  # Rounding up gives a leading 1, two digits.
    (594.23, 16.4, '594 ± 16'),
    (1234.5, 456.7, '1234 ± 457'),
    (0.6036612, None, '0.6037'),
    (0.6036612, 0.0, '0.6037'),
    (None, None, '\u2013'),
  ],
)
def test_measurement_has_the_digits_of_its_error(value, error, shown):
  assert text.measurement(value, error) == shown


def test_measurement_signs_and_never_prints_minus_zero():
  assert text.measurement(0.25, 0.1, sign=True) == '+0.25 ± 0.10'
  assert text.measurement(-1e-9, 0.1, sign=True) == '+0.00 ± 0.10'


@pytest.mark.parametrize('bad', [0.0, -1.0, float('nan'), float('inf')])
def test_decimals_refuses_what_is_no_uncertainty(bad):
  with pytest.raises(ValueError, match='positive and finite'):
    text.decimals(bad)


def test_number():
  shown = [text.number(x) for x in (None, 5320, 3e-4, 1.31, 123456.7, float('inf'))]
  assert shown == ['\u2013', '5320', '0.0003', '1.31', '123457', 'inf']
