"""Options of a run: tables with rules, their check, and the values they stand for."""

from scmdm_jax.settings.options import default_config

__all__ = ['default_config']
