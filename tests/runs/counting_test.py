"""What samples cost: FLOPs as the sampler evaluates."""

from scmdm_jax.diffusion.guidance import Guidance
from scmdm_jax.diffusion.sampling import Sampler
from scmdm_jax.models import flops
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from scmdm_jax.runs.counting import flops_per_token


def test_flops_are_of_what_is_evaluated():
  described = ModelDescription(DiTConfig(36, 32, 8, 1, 2, 4), 35, '', 'embedding')
  block, read = flops.blocks(described, 32), flops.vocabulary(described)
  # Half of all positions is read at each of 8 steps, for a token and for a signal.
  whole = 8 * (block + read)
  assert flops_per_token(described, Sampler(8), 32) == whole
  plain = Sampler(8, self_conditioning=False)
  assert flops_per_token(described, plain, 32) == 8 * (block + read / 2)
  guided = Sampler(8, guidance=Guidance(1.0))
  assert flops_per_token(described, guided, 32) == 2 * whole
  # In each of 4 blocks all positions once, and once the 8 of the block.
  dual = Sampler(8, block_length=8, cache='dual')
  assert flops_per_token(described, dual, 32) == 4 * (1 + 8 / 32) * block + 2 * read
