import base64
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


def test_what_is_shown_is_the_drawing_or_nothing():
  smiles = ['CCO', 'F/C=C/F', '"><script>alert(1)</script>', '']
  shown = drawing.show(smiles)
  assert [one['caption'] for one in shown] == smiles
  assert [one['image'] is None for one in shown] == [False, False, True, True]
  head, _, data = shown[0]['image'].partition(',')
  assert head == 'data:image/svg+xml;base64'
  svg = base64.b64decode(data).decode()
  ElementTree.fromstring(svg)
  # It carries the colours of the page's text itself.
  assert 'prefers-color-scheme:dark' in svg and 'bond-0' in svg
