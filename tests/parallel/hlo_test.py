import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.diffusion.gathering import over_wanted
from scmdm_jax.parallel import hlo
from tests.diffusion.toys import Shards
from tests.parallel.sameness_test import on_eight_devices

# As XLA writes them: CPU and TPU, plain and asynchronous.
TEXT = """\
HloModule jit_f, is_scheduled=true

FileNames
1 "/somewhere/file.py"

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

%part (p: f32[8,4]) -> (f32[8,4], f32[32,4]) {
  %g.1 = f32[32,4]{1,0:T(8,128)} all-gather(%p), channel_id=7, dimensions={0}
}

%rest (p: f32[8,4]) -> (f32[8,4], f32[32,4]) {
  %g.2 = f32[32,4]{1,0:T(8,128)} all-gather(%p), channel_id=7, dimensions={0}
}

%inner_body (c: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %r = f32[8,4]{1,0} all-reduce(%x), channel_id=1, to_apply=%add
  %f = (f32[8,4], f32[32,4]) fusion(%x), kind=kCustom, calls=%part
  %h = (f32[8,4], f32[32,4]) fusion(%f), kind=kCustom, calls=%rest
}

%inner_condition (c: (s32[], f32[8,4])) -> pred[] {
  %five = s32[]{:T(128)} constant(5)
  ROOT %less = pred[] compare(%i, %five), direction=LT
}

%yes (c: f32[8,4]) -> f32[8,4] {
  %t = (f32[4], s32[2]) all-reduce(%p, %q), channel_id=2, to_apply=%add
  %w = (s32[], f32[8,4]) while(%c), condition=%inner_condition, body=%inner_body
}

%no (c: f32[8,4]) -> f32[8,4] {
  ROOT %same = f32[8,4] copy(%c)
}

%outer_body (c: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %k = f32[8,4] conditional(%b, %x, %x), branch_computations={%yes, %no}
}

%outer_condition (c: (s32[], f32[8,4])) -> pred[] {
  %three = s32[] constant(3)
}

%unused (c: f32[8,4]) -> f32[8,4] {
  %never = f32[99,9]{1,0} all-gather(%c), channel_id=12, dimensions={0}
}

ENTRY %main (a: f32[8,4]) -> f32[8,4] {
  %w = (s32[], f32[8,4]) while(%c), condition=%outer_condition, body=%outer_body
  %b = (bf16[2,4]{1,0}, bf16[16,4]{1,0}) all-gather-start(%y), dimensions={0}
  %d = bf16[16,4]{1,0} all-gather-done(%b)
  %m = pred[3,5]{1,0} all-gather(%k), channel_id=3, dimensions={0}
  %s = (u32[2,8], u32[2,8], u32[], u32[]) collective-permute-start(%y), channel_id=9
}
"""


def test_collectives_and_how_often_they_run():
  found = hlo.collectives(TEXT)
  assert hlo.totals(found) == {
    'all-reduce': {'count': 2, 'runs': 15 + 3, 'bytes': 15 * 128 + 3 * (16 + 8)},
    # Both parts of channel 7 are one; what nobody calls does not run.
    'all-gather': {'count': 3, 'runs': 15 + 2, 'bytes': 15 * 512 + 128 + 15},
    'collective-permute': {'count': 1, 'runs': 1, 'bytes': 64},
  }


def test_a_count_that_the_compiler_writes_down_is_that_of_the_loop():
  # On GPUs the bound stands inside a fusion of the condition.
  on_gpu = TEXT.replace('  %five = s32[]{:T(128)} constant(5)\n', '').replace(
    'body=%inner_body\n',
    'body=%inner_body, backend_config={"known_trip_count":{"n":"25"}}\n',
  )
  found = hlo.totals(hlo.collectives(on_gpu))
  assert found['all-reduce']['runs'] == 3 * 25 + 3
  without = on_gpu.replace('"known_trip_count"', '"other"')
  assert hlo.totals(hlo.collectives(without))['all-reduce']['runs'] == 3 + 3


def test_a_loop_whose_end_is_known_when_it_runs():
  loop = (
    '%w = (s32[], f32[8,4]) while(%c), condition=%inner_condition, body=%inner_body'
  )
  assert loop in TEXT
  named = f'{loop}, metadata={{op_name="jit(f)/at_most_25/while" source_line=7}}'
  runs = hlo.executions(hlo.parsed(TEXT.replace(loop, named)))
  assert runs['inner_body'] == 3 * 25
  # A loop until nothing is left counts once where nobody says how long it may be.
  bare = TEXT.replace('constant(5)', 'constant(0)')
  assert hlo.executions(hlo.parsed(bare))['inner_body'] == 3
  # What is inside of such a loop is none.
  inside = named.replace('/while"', '/while/body/while"')
  runs = hlo.executions(hlo.parsed(TEXT.replace(loop, inside)))
  assert runs['inner_body'] == 3 * 5


def test_chunks_that_are_read_again_backward_are_counted():
  def loss(w, x, wanted):
    def rows(w, rows):
      return jnp.sin(rows @ w)

    return over_wanted(rows, wanted, x, Shards(), 4, shared=(w,)).sum()

  w, x = np.ones((3, 5), np.float32), np.ones((2, 12, 3), np.float32)
  compiled: Any = jax.jit(jax.grad(loss)).lower(w, x, np.ones((2, 12), bool)).compile()
  computations = hlo.parsed(compiled.as_text())
  runs = hlo.executions(computations)
  # 24 positions, 4 at a time: forward, and again with two products backward.
  products = [
    runs[name]
    for name, lines in computations.items()
    for line in lines
    if ' dot(' in line and runs[name]
  ]
  assert products == [6] * len(products) and len(products) >= 2


def test_the_largest_gather_is_of_what_runs():
  assert hlo.largest_gather(hlo.collectives(TEXT)) == 128
  assert hlo.largest_gather([]) == 0
  assert hlo.collectives('') == []


PROGRAM = """\
import json
from typing import Any
import jax, jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from scmdm_jax.parallel import hlo, mesh
whole = mesh.make_mesh(8, 1, 1)
def local(x):
  def step(x, _):
    return x + jax.lax.psum(x, 'data'), None
  x, _ = jax.lax.scan(step, x, length=6)
  return jax.lax.all_gather(x, 'data', tiled=True)
f = jax.shard_map(local, mesh=whole, in_specs=P('data'), out_specs=P(), check_vma=False)
text = jax.jit(f).lower(jnp.zeros((64, 3))).compile().as_text()
found = hlo.collectives(text)
print(json.dumps([hlo.totals(found), hlo.largest_gather(found)]))
"""


@pytest.mark.long
def test_of_a_real_program():
  found, largest = json.loads(on_eight_devices('-c', PROGRAM))
  assert found == {
    'all-reduce': {'count': 1, 'runs': 6, 'bytes': 6 * 8 * 3 * 4},
    'all-gather': {'count': 1, 'runs': 1, 'bytes': 64 * 3 * 4},
  }
  assert largest == 64 * 3
