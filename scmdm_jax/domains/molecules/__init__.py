"""Molecules as SMILES: QM9."""
