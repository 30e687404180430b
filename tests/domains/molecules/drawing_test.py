import re
import xml.etree.ElementTree as ElementTree

import pytest

from scmdm_jax.domains.molecules import drawing


def test_drawing_has_the_molecule_s_bonds():
  svg = drawing.molecule_svg('CC(=O)C')
  ElementTree.fromstring(svg)
  assert set(re.findall(r'bond-\d+', svg)) == {'bond-0', 'bond-1', 'bond-2'}
  assert 'currentColor' in svg and '#000000' not in svg


@pytest.mark.parametrize('smiles', ['', 'C1CC', 'C(C)(C)(C)(C)C', '<script>', 'xyz'])
def test_invalid_is_no_drawing_and_no_noise(smiles, capfd):
  assert drawing.molecule_svg(smiles) is None
  assert capfd.readouterr().err == ''


def test_gallery_marks_invalid_and_escapes_captions(parse):
  smiles = ['CCO', 'F/C=C/F', '"><script>alert(1)</script>', "C'\u202e", '']
  source = drawing.gallery_html(smiles)
  parsed = parse(source)
  shown = ''.join(parsed.text)
  assert parsed.tags.count('figure') == 5
  assert parsed.tags.count('svg') == 2
  assert shown.count('invalid') == 3
  assert '"><script>alert(1)</script>' in shown
  assert "C'⟨U+202E⟩" in shown and '\u202e' not in source
  assert '(empty)' in shown
