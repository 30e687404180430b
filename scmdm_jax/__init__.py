"""Self-conditioned masked diffusion models in JAX."""
