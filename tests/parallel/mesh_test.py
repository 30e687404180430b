import json

import jax
import pytest
from jax.sharding import AbstractMesh, AxisType

from scmdm_jax.errors import BadInput
from scmdm_jax.parallel import mesh as meshes
from scmdm_jax.parallel.placement import Placement
from tests.parallel.sameness_test import on_eight_devices

DEVICE = jax.devices()[0]


def test_the_rest_is_filled_in():
  assert meshes.make_mesh(-1, 1, 1, devices=[DEVICE]).shape == {
    'data': 1,
    'fsdp': 1,
    'sequence': 1,
    'tensor': 1,
  }


@pytest.mark.parametrize('sizes', [(2, 1, 1), (-1, 2, 1), (-1, -1, 1), (1, 1, 3)])
def test_sizes_must_multiply_to_the_devices(sizes):
  with pytest.raises(BadInput) as caught:
    meshes.make_mesh(*sizes, devices=[DEVICE])
  data, fsdp, tensor = sizes
  assert str(caught.value) == (
    f'mesh: found data = {data}, fsdp = {fsdp}, sequence = 1, tensor = {tensor}; '
    'wanted sizes whose product is 1, the number of devices; -1 for one is the rest'
  )


def test_a_length_that_does_not_divide_is_refused():
  axes = (AxisType.Auto,) * len(meshes.AXES)
  mesh = AbstractMesh((1, 1, 4, 1), meshes.AXES, axes)
  meshes.check_length(16, mesh)
  message = r'data.length: found 18; wanted a multiple of mesh.sequence = 4, which'
  with pytest.raises(BadInput, match=message):
    meshes.check_length(18, mesh)


# Compiled for 1 device and 8: what the sampler gathers, and the shape of the scores.
PROGRAM = """\
import json, sys
import jax
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.llama import DecoderConfig
from scmdm_jax.models.families.dit import DiTConfig
from scmdm_jax.verbs import plan
from scmdm_jax.parallel import hlo, mesh
from scmdm_jax.settings.resolve import resolve
arch = {
  'llada': DecoderConfig(64, 1024, 32, 1, 4, 4, mlp_dim=64, causal=False),
  'mdlm': DiTConfig(64, 1024, 32, 1, 4, cond_dim=8),
}[sys.argv[1]]
settings = resolve({
  'plan': {'job': 'sample'},
  'data': {'length': 1024},
  'sample': {'num_steps': 2, 'batch_size': 2},
})
described = ModelDescription(arch, 63, '', 'embedding')
for devices, parts in ((jax.devices()[:1], 1), (jax.devices(), 8)):
  meshed = mesh.make_mesh(1, 1, 1, parts, devices)
  text = plan._lowered(settings, described, meshed).compile().as_text()
  found = hlo.collectives(text)
  gathers = [size for one in found if one.kind == 'all-gather' for size in one.sizes]
  whole, part = 'f32[2,4,1024,1024]' in text, 'f32[2,4,128,1024]' in text
  print(json.dumps([sorted(gathers), len(found), whole, part]), flush=True)
"""


@pytest.mark.long
@pytest.mark.parametrize('name', ['llada', 'mdlm'])
def test_a_long_input_takes_each_device_its_part(name):
  lines = on_eight_devices('-c', PROGRAM, name).splitlines()
  alone, (gathers, count, whole, part) = map(json.loads, lines)
  assert alone == [[], 0, True, False]
  # Of a layer keys and values, once a sample its tokens; and whether any are wanted.
  assert gathers == [2 * 1024, 2 * 1024 * 32, 2 * 1024 * 32]
  assert count == 4
  assert (whole, part) == (False, True)


def test_one_device_leaves_everything_as_it_is():
  placement = Placement(meshes.one_device())
  x = object()
  assert placement.constrain(x) is x
  assert placement.batch_shards == 1
  assert meshes.own_part(meshes.one_device()) == (0, 1)
