"""The bitmaps of a colour emoji font as small labelled images.

Noto Color Emoji (OFL 1.1) holds 3,926 pictures of 136 x 128 pixels (table CBDT). Each
is centred on white and averaged down to 32 x 32; its class is the Unicode block of its
first code point. A picture and its variants (skin, hair, sex) share that code point,
and it alone decides the split, so that no variant of a training picture is held out.
"""

import hashlib
import io
import pathlib

import numpy as np

from scmdm_jax.domains.images.files import Images
from scmdm_jax.errors import BadInput, DamagedData

SIDE = 32
# First and last code point of every class; the last class is what no block has.
BLOCKS = (
  (0x1F1E6, 0x1F1FF),  # Flags: regional indicators.
  (0x1F300, 0x1F3FF),  # Weather, plants, food, activities.
  (0x1F400, 0x1F5FF),  # Animals, people, objects.
  (0x1F600, 0x1F64F),  # Emoticons.
  (0x1F680, 0x1F6FF),  # Transport, maps.
  (0x1F900, 0x1F9FF),  # Supplemental symbols and pictographs.
  (0x1FA70, 0x1FAFF),  # Symbols and pictographs extended-A.
  (0x2600, 0x27BF),  # Miscellaneous symbols, dingbats.
)
_HELD_OUT = 26  # Of 256 code points, the others train.
_INSTALL = "pip install 'scmdm_jax[report]'"


def read_font(path: pathlib.Path) -> dict[str, Images]:
  """The pictures of a font, 'train' and 'test', in the font's order.

  Raises:
    BadInput: a library is not installed, or the font has no bitmaps.
    DamagedData: the font cannot be read.
  """
  try:
    from fontTools import ttLib
    from PIL import Image
  except ImportError as error:
    raise BadInput(
      f'dataset emoji: {error.name} is not installed; run {_INSTALL}'
    ) from error
  try:
    font = ttLib.TTFont(path)
    if 'CBDT' not in font:
      raise BadInput(f'{path}: has no colour bitmaps (CBDT); give NotoColorEmoji.ttf')
    bitmaps = font['CBDT'].strikeData[0]
    points = _first_points(font)
    kept = [name for name in bitmaps if name in points]
    pixels = [
      _small(Image.open(io.BytesIO(bitmaps[name].imageData)).convert('RGBA'))
      for name in kept
    ]
  except (OSError, ttLib.TTLibError, AssertionError) as error:
    raise DamagedData(f'{path}: not a font ({error}); replace the file') from error
  codes = [points[name] for name in kept]
  held_out = np.array([_held_out(code) for code in codes])
  labels = np.array([class_of(code) for code in codes], np.uint8)
  found = {
    'train': Images(np.array(pixels)[~held_out], labels[~held_out]),
    'test': Images(np.array(pixels)[held_out], labels[held_out]),
  }
  if not all(len(split.labels) for split in found.values()):
    raise BadInput(
      f'{path}: {len(codes)} emoji are too few for a split; give NotoColorEmoji.ttf'
    )
  return found


def class_of(code_point: int) -> int:
  """The number of the block that has a code point."""
  for number, (first, last) in enumerate(BLOCKS):
    if first <= code_point <= last:
      return number
  return len(BLOCKS)


def _held_out(code_point: int) -> bool:
  return hashlib.sha256(code_point.to_bytes(4, 'big')).digest()[0] < _HELD_OUT


def _small(picture) -> np.ndarray:
  """An RGBA picture on a white square of its own size, uint8 `[32, 32, 3]`."""
  from PIL import Image

  side = max(picture.size)
  square = Image.new('RGBA', (side, side), 'white')
  left, top = (side - picture.width) // 2, (side - picture.height) // 2
  square.alpha_composite(picture, (left, top))
  small = square.convert('RGB').resize((SIDE, SIDE), Image.Resampling.BOX)
  return np.asarray(small, np.uint8)


def _first_points(font) -> dict[str, int]:
  """The first code point of every glyph that a text can show.

  Sequences are ligatures, which begin with the glyph of their first code point, or with
  a ligature that does.
  """
  points: dict[str, int] = {}
  for code, glyph in sorted(font.getBestCmap().items()):
    points.setdefault(glyph, code)
  begins = {}
  tables = font['GSUB'].table.LookupList.Lookup if 'GSUB' in font else ()
  for table in (table for lookup in tables for table in lookup.SubTable):
    table = getattr(table, 'ExtSubTable', table)
    for glyph, ligatures in getattr(table, 'ligatures', {}).items():
      begins.update({ligature.LigGlyph: glyph for ligature in ligatures})
  for glyph in begins:
    first, seen = glyph, set()
    while first not in points and first in begins and first not in seen:
      seen.add(first)
      first = begins[first]
    if first in points:
      points[glyph] = points[first]
  return points
