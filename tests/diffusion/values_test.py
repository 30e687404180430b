"""Values of the method refuse what is out of range, with what was found."""

import dataclasses
import math

import jax.numpy as jnp
import pytest

from scmdm_jax.diffusion import strategies
from scmdm_jax.diffusion.guidance import Guidance
from scmdm_jax.diffusion.readout import measure_of
from scmdm_jax.diffusion.sampling import Sampler
from scmdm_jax.diffusion.schedules import Cosine, LogLinear, Polynomial
from scmdm_jax.diffusion.strategies import (
  P2,
  Ancestral,
  Confidence,
  Dream,
  EntropyBound,
  Factor,
  Joint,
  MaskGIT,
  ReMDM,
  Threshold,
  parse,
)


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: ReMDM(rule='nonsense'), "rule: found 'nonsense'; wanted one of cap, resc"),
    (lambda: ReMDM(eta=1.5), 'eta: found 1.5; wanted a probability, 0 to 1'),
    (lambda: ReMDM(t_off=0.0), 't_off: found 0.0; wanted a number between 0 and 1'),
    (lambda: ReMDM(t_on=0.1, t_off=0.9), 't_on: found 0.1; wanted more than t_off'),
    (lambda: P2(-1.0), 'eta: found -1.0; wanted a finite number from 0'),
    (lambda: MaskGIT(math.nan), 'tau: found nan; wanted a finite number from 0'),
    (lambda: Threshold(math.inf), 'tau: found inf; wanted a finite number from 0'),
    (lambda: Factor(-0.1), 'factor: found -0.1; wanted a finite number'),
    (lambda: EntropyBound(-0.1), 'bound: found -0.1; wanted a finite number'),
    (lambda: Confidence('nonsense'), "measure: found 'nonsense'; wanted one of log_p"),
    (lambda: Dream(''), "measure: found ''; wanted one of log_prob"),
    (lambda: Dream(eps=1.0), 'eps: found 1.0; wanted a time from 0, below 1'),
    (lambda: Dream(alg_temp=-1.0), 'alg_temp: found -1.0; wanted a finite number'),
    (lambda: Guidance(-1.5), 'weight: found -1.5; wanted a number from -1 to 1e+06'),
    (lambda: Guidance(math.nan), 'weight: found nan; wanted a number'),
    (lambda: LogLinear(1.0), 'eps: found 1.0; wanted a number from 0, below 1'),
    (lambda: Cosine(-0.1), 'eps: found -0.1; wanted a number from 0, below 1'),
    (lambda: Polynomial(math.inf), 'power: found inf; wanted a number above 0'),
    (lambda: Sampler(0), 'num_steps: found 0; wanted a number above 0'),
    (lambda: Sampler(4, top_p=7), 'top_p: found 7; wanted a number above 0, at most 1'),
    (lambda: Sampler(4, noise='nonsense'), "noise: found 'nonsense'; wanted one of hi"),
    (
      lambda: Sampler(4, noise='low'),
      "noise: found 'low'; wanted 'low' with the Joint",
    ),
    (lambda: Sampler(4, Joint()), "noise: found 'high'; wanted 'low' with the Joint"),
    (lambda: Sampler(4, block_length=-1), 'block_length: found -1; wanted a number'),
    (lambda: Sampler(4, chunk=0), 'chunk: found 0; wanted a number above 0'),
    (lambda: Sampler(4, block_length=3).blocks(8), 'block_length: found 3; wanted a d'),
    (
      lambda: measure_of('nonsense', jnp.zeros((1, 3)), jnp.zeros(1, int)),
      "measure: found 'nonsense'; wanted one of log_prob, entropy, margin",
    ),
    (lambda: parse('p2:eta=-1'), 'strategy: p2:eta: found -1.0; wanted a finite'),
  ],
)
def test_out_of_range(make, message):
  with pytest.raises(ValueError) as caught:
    make()
  assert str(caught.value).startswith(message)


def test_samplers_are_compilation_keys():
  one = Sampler(8, ReMDM('conf', 0.5), Cosine(), guidance=Guidance(1.0))
  assert hash(one) == hash(dataclasses.replace(one)) and one == dataclasses.replace(one)
  assert one != dataclasses.replace(one, guidance=Guidance(2.0))


def test_every_strategy_is_written_by_its_name():
  for name, cls in strategies.STRATEGIES.items():
    assert parse(name) == cls()
  assert parse('dream:measure=margin,alg_temp=0.5') == Dream('margin', 0.5)
  assert Sampler(4).strategy == Ancestral()
