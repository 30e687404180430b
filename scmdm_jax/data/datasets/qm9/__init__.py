"""QM9: 130,831 small organic molecules as canonical SMILES."""
