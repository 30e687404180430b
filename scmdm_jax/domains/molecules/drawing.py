"""Drawn molecules: SMILES to inline SVG with RDKit, the SMILES as the caption."""

from collections.abc import Sequence

from rdkit import Chem, rdBase
from rdkit.Chem.Draw import rdMolDraw2D

from scmdm_jax.report import text

_SIZE = (170, 130)
# RDKit's N, O, F and S in tones that stand on white and on black paper; carbon is
# black here and takes the page's text colour.
_ATOM_COLORS = {
  6: (0.0, 0.0, 0.0),
  7: (0.16, 0.5, 0.84),
  8: (0.835, 0.37, 0.0),
  9: (0.0, 0.62, 0.45),
  16: (0.72, 0.53, 0.0),
}


def molecule_svg(smiles: str) -> str | None:
  """An `<svg>` element of the molecule, or None if RDKit finds it invalid.

  Valid means what the judge means: it parses and has at least one atom.
  """
  with rdBase.BlockLogs():
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None or molecule.GetNumAtoms() == 0:
      return None
    drawing = rdMolDraw2D.MolDraw2DSVG(*_SIZE)
    options = drawing.drawOptions()
    options.clearBackground = False
    options.setAtomPalette(_ATOM_COLORS)
    options.fixedBondLength = 22
    rdMolDraw2D.PrepareAndDrawMolecule(drawing, molecule)
    drawing.FinishDrawing()
  svg = drawing.GetDrawingText()
  svg = svg[svg.index('<svg') :].replace('<!-- END OF HEADER -->', '').strip()
  return svg.replace('#000000', 'currentColor').replace(
    '<svg', '<svg role="img" aria-label="drawn molecule"', 1
  )


def gallery_html(smiles: Sequence[str]) -> str:
  """A grid of drawings; what cannot be drawn is shown as text, marked invalid."""
  tiles = []
  for one in smiles:
    svg = molecule_svg(one)
    caption = text.escape(one) if one else '(empty)'
    picture = svg or '<div class="invalid">invalid</div>'
    tiles.append(
      f'<figure class="molecule">{picture}'
      f'<figcaption><code>{caption}</code></figcaption></figure>'
    )
  return f'<div class="gallery">{"".join(tiles)}</div>'
