"""Text from outside, made safe to show; numbers, cut to their sensible digits."""

import html
import math
import unicodedata

ABSENT = '\u2013'  # Stands for a number that was not measured.

# Control, format (bidi overrides, zero-width), surrogate, private, unassigned,
# line and paragraph separators: everything a reader could not see.
_INVISIBLE = frozenset({'Cc', 'Cf', 'Cs', 'Co', 'Cn', 'Zl', 'Zp'})


def visible(text: str) -> str:
  """Replaces every invisible character by its code point, as in `⟨U+202E⟩`.

  Newlines and tabs count as invisible: the callers show single lines.
  """
  return ''.join(
    f'⟨U+{ord(c):04X}⟩' if unicodedata.category(c) in _INVISIBLE else c
    for c in str(text)
  )


def escape(text: str) -> str:
  """`text` as HTML text or as a quoted attribute: visible, then escaped."""
  return html.escape(visible(text), quote=True)


def decimals(uncertainty: float) -> int:
  """Decimals that show `uncertainty` to its first digit, a leading 1 to its second.

  At most 8, at least 0: what lies above the point is shown in full.

  Raises:
    ValueError: unless `uncertainty` is positive and finite.
  """
  if not math.isfinite(uncertainty) or uncertainty <= 0:
    raise ValueError(f'uncertainty must be positive and finite, got {uncertainty}')
  digit, exponent = f'{uncertainty:.1e}'.split('e')
  return min(8, max(0, (1 if digit < '2' else 0) - int(exponent)))


def number(value: float | None) -> str:
  """A lone number: integers in full, others to four significant digits."""
  if value is None:
    return ABSENT
  if isinstance(value, int) or not math.isfinite(value):
    return str(value)
  return f'{value:.0f}' if 1e4 <= abs(value) < 1e9 else f'{value:.4g}'


def measurement(value: float | None, error: float | None, *, sign=False) -> str:
  """`value ± error`, both to the decimals of the error's first digit or two.

  Without an error (one seed, or no spread at all) four significant digits.
  """
  plus = '+z' if sign else 'z'
  if value is None:
    return ABSENT
  if not error or not math.isfinite(error):
    return f'{value:{plus}.4g}'
  places = decimals(error)
  return f'{value:{plus}.{places}f} ± {error:.{places}f}'
