"""Options of a run: tables with rules, their check, and the values they stand for."""

from ml_collections import ConfigDict


def default_config() -> ConfigDict:
  """Returns all options at their defaults; locked, so a misspelt name is an error."""
  # The options know the domains, and these the rules beside this file.
  from scmdm_jax.settings import options

  return options.default_config()
