"""Networks. Flax Linen lives on this floor and nowhere else."""
