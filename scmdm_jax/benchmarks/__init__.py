"""What is measured against: straightforward samplers, in JAX and in PyTorch."""
