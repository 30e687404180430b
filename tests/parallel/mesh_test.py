import jax
import pytest

from scmdm_jax.errors import BadInput
from scmdm_jax.parallel import mesh as meshes

DEVICE = jax.devices()[0]


def test_the_rest_is_filled_in():
  assert meshes.make_mesh(-1, 1, 1, [DEVICE]).shape == {
    'data': 1,
    'fsdp': 1,
    'tensor': 1,
  }


@pytest.mark.parametrize('sizes', [(2, 1, 1), (-1, 2, 1), (-1, -1, 1), (1, 1, 3)])
def test_sizes_must_multiply_to_the_devices(sizes):
  with pytest.raises(BadInput) as caught:
    meshes.make_mesh(*sizes, devices=[DEVICE])
  data, fsdp, tensor = sizes
  assert str(caught.value) == (
    f'mesh: found data = {data}, fsdp = {fsdp}, tensor = {tensor}; wanted sizes whose '
    'product is 1, the number of devices; -1 for one is the rest'
  )


def test_one_device_leaves_everything_as_it_is():
  execution = meshes.execution(meshes.one_device())
  x = object()
  assert execution.pin(x) is x
  assert execution.shards == 1
  assert meshes.own_part(meshes.one_device()) == (0, 1)
