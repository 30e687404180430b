import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from scmdm_jax.errors import BadInput
from scmdm_jax.models import denoiser
from scmdm_jax.models.injection import INJECTIONS
from scmdm_jax.parallel import rules
from scmdm_jax.training.step import OptimizerConfig, initial_state
from tests.models import tiny


def mesh(data=1, fsdp=2, tensor=1):
  """Without devices: names and sizes are enough."""
  axes = ('data', 'fsdp', 'tensor')
  return AbstractMesh((data, fsdp, tensor), axes, (AxisType.Auto,) * 3)


@pytest.mark.parametrize('injection', INJECTIONS)
@pytest.mark.parametrize('arch', tiny.ARCHITECTURES)
def test_every_parameter_has_a_rule_of_its_rank(arch, injection):
  params = denoiser.abstract_params(tiny.describe(arch, injection))
  found = rules.shardings(mesh(), params)
  for leaf, sharding in zip(
    jax.tree.leaves(params), jax.tree.leaves(found), strict=True
  ):
    assert len(sharding.spec) <= leaf.ndim
    # Nothing large is left whole: `fsdp` splits every matrix but the small ones of the
    # noise level and the classes.
    if leaf.ndim == 2 and leaf.size > 64 and leaf.shape[0] != 256:
      assert 'fsdp' in sharding.spec, (leaf.shape, sharding)


@pytest.mark.parametrize('arch', ['dit', 'dream', 'gpt2'])
def test_moments_and_averages_follow_their_parameter(arch):
  params = denoiser.abstract_params(tiny.describe(arch, 'none'))
  state = jax.eval_shape(lambda p: initial_state(p, OptimizerConfig()), params)
  found = rules.shardings(mesh(), state)
  wanted = rules.shardings(mesh(), params)
  adam = found.opt_state[1][0]
  for tree in (found.params, found.ema, adam.mu, adam.nu):
    assert jax.tree.leaves(tree) == jax.tree.leaves(wanted)
  assert found.step.spec == adam.count.spec == P()


def test_a_parameter_without_a_rule_is_refused():
  tree = {'backbone': {'blocks_0': {'novelty': {'kernel': jnp.zeros((4, 4))}}}}
  with pytest.raises(ValueError, match='backbone/blocks_0/novelty/kernel: 0 sharding'):
    rules.shardings(mesh(), tree)


@pytest.mark.parametrize(
  ('sizes', 'message'),
  [
    (
      {'tensor': 2},
      'mesh.tensor: found 2; wanted a divisor of 9, a size of '
      'backbone/embed_tokens/embedding [9, 8]',
    ),
    (
      {'fsdp': 3},
      'mesh.fsdp: found 3; wanted a divisor of 8, a size of '
      'backbone/embed_tokens/embedding [9, 8]',
    ),
  ],
)
def test_sizes_that_do_not_divide_are_refused(sizes, message):
  params = denoiser.abstract_params(tiny.describe('llada', 'none'))
  with pytest.raises(BadInput) as caught:
    rules.shardings(mesh(**sizes), params)
  assert str(caught.value) == message
