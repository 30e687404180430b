"""Low-rank adapters against merged weights, in every architecture."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from scmdm_jax.models import denoiser, lora
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.execution import Execution
from scmdm_jax.models.lora import Adapter
from scmdm_jax.parallel import rules
from tests.compiling import quick_jit
from tests.models import tiny
from tests.models.parameters import random_params

ADAPTER = Adapter(rank=3, alpha=4.5)
ARCHITECTURES = ('dit', 'dream', 'gpt2')


def describe(arch, adapter=ADAPTER):
  return dataclasses.replace(tiny.describe(arch, 'embedding'), adapter=adapter)


def scores(params, description, **execution):
  """Logits under a signal of random predictions, and what the backbone embeds."""

  def compute(params):
    model = denoiser.bind(params, description, execution=Execution(**execution))
    signal = model.signal(tiny.some_probs())
    return model.logits(model.encode(tiny.tokens_with_masks(), signal, tiny.SIGMA))

  return np.asarray(quick_jit(compute)(params))


def merged_by_hand(params, description):
  """The base whose kernels are W + (alpha / r) A B, summed in float64."""
  adapter = description.adapter

  def merge(node):
    if 'lora_a' in node:
      a, b, w = (np.float64(node[name]) for name in ('lora_a', 'lora_b', 'kernel'))
      w = w + adapter.alpha / adapter.rank * np.einsum('ir,ro->io', a, b)
      return {k: v for k, v in node.items() if k == 'bias'} | {'kernel': np.float32(w)}
    return {k: merge(v) if isinstance(v, dict) else v for k, v in node.items()}

  return {**params, 'backbone': merge(params['backbone'])}


@pytest.mark.parametrize('arch', ARCHITECTURES)
@pytest.mark.slow
def test_factors_add_to_what_their_layer_computes(arch):
  description = describe(arch)
  plain = describe(arch, None)
  params = random_params(description)
  found = scores(params, description)
  wanted = scores(merged_by_hand(params, description), plain)
  # Float32 products of a dozen terms, summed in another order, in a few layers.
  np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-4)
  base = scores(params, plain)
  assert np.abs(base - found).max() > 0.05
  # With the adapter off it is the base, bit for bit, though the factors are there.
  # A fresh one changes no bit of it: B is zero.
  fresh = lora.init_factors(jax.random.key(0), params['backbone'], ADAPTER)
  frozen, trained = lora.divided(params, ADAPTER)
  changed = lora.joined(frozen, {**trained, 'backbone': fresh})
  np.testing.assert_array_equal(base, scores(changed, description))


def test_fresh_factors_are_zero_and_as_small_as_those_of_peft():
  base = random_params(describe('dream', None))['backbone']
  fresh = lora.init_factors(jax.random.key(0), base, ADAPTER)
  described = denoiser.abstract_params(describe('dream'))
  assert jax.tree.structure(lora.joined(base, fresh)) == jax.tree.structure(
    described['backbone']
  )
  for keys, leaf in jax.tree_util.tree_leaves_with_path(fresh):
    bound = len(leaf) ** -0.5
    if keys[-1].key == 'lora_b':
      assert not leaf.any()
    else:
      assert 0.5 * bound < np.abs(leaf).max() <= bound


@pytest.mark.parametrize(('arch', 'remat'), [('dit', 'none'), ('dream', 'full')])
@pytest.mark.slow
def test_gradients_are_those_of_the_merged_weights(arch, remat):
  """By the chain rule from dW: dA = s dW B^T, dB = s A^T dW."""
  description = describe(arch)
  params = random_params(description, scale=0.3)
  frozen, trained = lora.divided(params, description.adapter)
  plain = describe(arch, None)

  def loss(params, description, **execution):
    model = denoiser.bind(params, description, execution=Execution(**execution))
    signal = model.signal(tiny.some_probs())
    out = model.logits(model.encode(tiny.tokens_with_masks(), signal, tiny.SIGMA))
    return (out[..., : tiny.MASK] ** 2).mean()

  found = quick_jit(
    jax.grad(lambda t: loss(lora.joined(frozen, t), description, remat=remat))
  )(trained)
  wanted = quick_jit(jax.grad(lambda p: loss(p, plain)))(
    merged_by_hand(params, description)
  )
  checked = 0
  for path in lora.targeted(frozen['backbone'], ADAPTER):
    node, factors, dense = found['backbone'], params['backbone'], wanted['backbone']
    for part in path.split('/'):
      node, factors, dense = node[part], factors[part], dense[part]
    dw = ADAPTER.scale * np.asarray(dense['kernel'])
    size = np.abs(dw).max()
    for name, exact in (
      ('lora_a', dw @ factors['lora_b'].T),
      ('lora_b', factors['lora_a'].T @ dw),
    ):
      # Sums of float32 in another order.
      np.testing.assert_allclose(node[name], exact, rtol=1e-3, atol=1e-4 * size)
    checked += size > 0
  assert checked > 3


def test_targets_choose_layers_by_their_path():
  backbone = denoiser.abstract_params(tiny.describe('dream', 'none'))['backbone']

  def chosen(targets):
    return sorted(lora.targeted(backbone, Adapter(2, 4.0, targets)))

  attention = [f'layers_0/self_attn/{n}_proj' for n in 'koqv']
  assert chosen(lora.BLOCKS) == sorted(
    [f'layers_0/mlp/{n}_proj' for n in ('down', 'gate', 'up')] + attention
  )
  assert chosen('.*/[qv]_proj') == ['layers_0/self_attn/q_proj', attention[3]]
  assert chosen('.*head') == ['lm_head']
  with pytest.raises(ValueError, match=r"targets is 'q_proj', which matches none of"):
    chosen('q_proj')  # The whole path has to match.


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'rank': 0, 'alpha': 1.0}, 'rank is 0; wanted a whole number from 1'),
    ({'rank': 2, 'alpha': 0.0}, r'alpha is 0\.0; wanted a number above 0'),
    ({'rank': 2, 'alpha': float('nan')}, 'alpha is nan'),
    ({'rank': 2, 'alpha': 1.0, 'targets': '('}, 'no regular expression'),
  ],
)
def test_an_adapter_that_makes_no_sense_is_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    Adapter(**fields)


def test_a_description_keeps_its_adapter():
  described = describe('dream')
  assert ModelDescription.from_dict(described.to_dict()) == described
  assert 'adapter' not in describe('dream', None).to_dict()


def test_factors_are_split_as_the_side_of_the_kernel_they_share():
  axes = ('data', 'fsdp', 'tensor')
  mesh = AbstractMesh((1, 2, 2), axes, (AxisType.Auto,) * 3)
  described = dataclasses.replace(
    tiny.describe('dream', 'none'),
    adapter=Adapter(2, 4.0, 'layers_0/self_attn/(q|o)_proj'),
    architecture=dataclasses.replace(tiny.ARCHITECTURES['dream'], vocab_size=12),
  )
  trained = lora.divided(denoiser.abstract_params(described), described.adapter)[1]
  found = rules.shardings(mesh, trained)['backbone']['layers_0']['self_attn']
  specs = {k: {n: x.spec for n, x in v.items()} for k, v in found.items()}
  assert specs == {
    'q_proj': {'lora_a': P('fsdp', None), 'lora_b': P(None, 'tensor')},
    'o_proj': {'lora_a': P('tensor', None), 'lora_b': P(None, 'fsdp')},
  }
