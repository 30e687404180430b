"""The families of backbones: a file each with its sizes, its module and its record."""

from scmdm_jax.models.families import conv, dit, gpt2, llama
from scmdm_jax.models.family import Family

FAMILIES: dict[str, Family] = {
  family.name: family
  for family in (
    dit.FAMILY,
    llama.LLAMA,
    llama.QWEN2,
    llama.QWEN3,
    llama.DREAM,
    llama.SDAR,
    llama.LLADA,
    gpt2.FAMILY,
    conv.FAMILY,
  )
}


def trainable(objective: str = '') -> tuple[str, ...]:
  """Names of the families of which a new model may be trained, for `objective`.

  '': for any.
  """
  return tuple(
    name
    for name, family in FAMILIES.items()
    if objective in family.objectives or (family.objectives and not objective)
  )
