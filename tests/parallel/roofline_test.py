"""Bytes that a program moves, against sizes that can be added up by hand."""

import jax
import jax.numpy as jnp
import pytest

from scmdm_jax.parallel import roofline
from scmdm_jax.parallel.chips import Chip
from tests.compiling import quick_jit

# Of a TPU: a product in a loop of five rounds, its second operand in fast memory; what
# is fused moves nothing of its own.
PROGRAM = """\
HloModule jit_f

%fused (p: bf16[8,16]) -> bf16[8,16] {
  %p = bf16[8,16]{1,0} parameter(0)
  ROOT %m = bf16[8,16]{1,0} multiply(%p, %p), metadata={op_name="jit(f)/layers_3/mul"}
}

%body (c: (s32[], bf16[8,16])) -> (s32[], bf16[8,16]) {
  %c = (s32[], bf16[8,16]{1,0}) parameter(0)
  %x = bf16[8,16]{1,0} get-tuple-element(%c), index=1
  %w = f32[16,16]{1,0:T(8,128)S(1)} copy(%x)
  %y = bf16[8,16] fusion(%x), calls=%fused, metadata={op_name="jit(f)/layers_3/mul"}
  %d = bf16[8,16]{1,0} dot(%y, %w), metadata={op_name="jit(f)/layers_12/dot"}
  ROOT %t = (s32[], bf16[8,16]{1,0}) tuple(%x, %d)
}

%cond (c: (s32[], bf16[8,16])) -> pred[] {
  %c = (s32[], bf16[8,16]{1,0}) parameter(0)
  %n = s32[] constant(5)
  ROOT %l = pred[] compare(%n, %n), direction=LT
}

ENTRY %main (a: bf16[8,16]) -> bf16[2,16] {
  %a = bf16[8,16]{1,0} parameter(0)
  %t = (s32[], bf16[8,16]{1,0}) tuple(%a, %a)
  %loop = (s32[], bf16[8,16]{1,0}) while(%t), condition=%cond, body=%body
  %r = bf16[8,16]{1,0} get-tuple-element(%loop), index=1
  ROOT %s = bf16[2,16]{1,0} slice(%r), slice={[0:2],[0:16]}
}
"""


def test_bytes_are_operands_and_results_of_what_runs():
  rows = 8 * 16 * 2
  found = roofline.traffic(PROGRAM)
  assert found['layers_*/mul'] == 5 * 2 * rows
  # The weights lie in fast memory.
  assert found['layers_*/dot'] == 5 * 2 * rows
  # A slice reads what it keeps.
  assert found['slice'] == 2 * 2 * 16 * 2
  assert sum(found.values()) == 5 * (2 + 2 + 1) * rows + 128


def test_of_a_compiled_loop():
  def run(x, w):
    return jax.lax.scan(lambda x, _: (x @ w, None), x, length=7)[0]

  x = jax.ShapeDtypeStruct((64, 64), jnp.float32)
  text = quick_jit(run).lower(x, x).compile().as_text()
  products = {k: v for k, v in roofline.traffic(text).items() if 'dot_general' in k}
  assert sum(products.values()) == 7 * 3 * 64 * 64 * 4


def test_a_prediction_is_the_slower_of_the_two():
  chip = Chip('made up', 1e9, flops=1e12, bytes_per_second=1e10)
  found = roofline.predicted({'dot': 6e7, 'add': 1e7}, 2e9, 1e7, 100, chip)
  assert found['is_a_prediction']
  assert found['milliseconds_of'] == pytest.approx({'flops': 2.0, 'bytes': 7.0})
  assert found['milliseconds'] == pytest.approx(7.0)
  assert found['tokens_per_second'] == pytest.approx(100 / 7e-3)
  assert found['floor_milliseconds'] == pytest.approx(2.0)
  assert found['largest'] == {'name': 'dot', 'bytes': 6e7}
