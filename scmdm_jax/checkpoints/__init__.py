"""Weights on disk: safetensors at the border, Orbax inside, tables between them."""
