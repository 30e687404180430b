"""TFDS dataset builders, one package each."""
