"""The verbs of the command line, one file each; only `scmdm_jax.main` imports them."""
