"""Drawn molecules: SMILES to SVG with RDKit, the SMILES as the caption."""

import base64
from collections.abc import Sequence

from rdkit import Chem, rdBase
from rdkit.Chem.Draw import rdMolDraw2D

_SIZE = (170, 130)
# RDKit's N, O, F and S in tones that stand on white and on black paper; carbon is
# black here and takes the colour of text.
_ATOM_COLORS = {
  6: (0.0, 0.0, 0.0),
  7: (0.16, 0.5, 0.84),
  8: (0.835, 0.37, 0.0),
  9: (0.0, 0.62, 0.45),
  16: (0.72, 0.53, 0.0),
}
# An image is not reached by the page's style: the colours of its text, once more.
_INK = (
  'svg{color:#1b1f24}@media(prefers-color-scheme:dark){svg{color:#dfe3e8}}'
  '@media print{svg{color:#000}}'
)


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


def show(smiles: Sequence[str]) -> list[dict[str, str | None]]:
  """Each SMILES with its drawing as a data URI of SVG; None where it is invalid."""
  return [{'caption': one, 'image': _uri(molecule_svg(one))} for one in smiles]


def _uri(svg: str | None) -> str | None:
  if svg is None:
    return None
  own = svg.replace('>', f'><style>{_INK}</style>', 1)
  return f'data:image/svg+xml;base64,{base64.b64encode(own.encode()).decode()}'
