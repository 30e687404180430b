"""Recipes of a comparison's arms as they are written."""

import jax
import numpy as np
import pytest

from scmdm_jax import command_line
from scmdm_jax.diffusion.estimates import Estimate
from scmdm_jax.domains.registry import get_tokenizer
from scmdm_jax.errors import BadInput
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from scmdm_jax.runs import arms
from scmdm_jax.runs.opening import Model
from scmdm_jax.settings import default_config, recipes
from scmdm_jax.settings.recipes import Recipe
from scmdm_jax.settings.resolve import resolve
from tests import tiny_run


@pytest.mark.parametrize(
  ('text', 'wanted'),
  [
    ('same_t', Recipe('same_t')),
    ('same_t:injection=table', Recipe('same_t', injection='table')),
    ('unrolled:passes=3,rate=0.9', Recipe('unrolled:passes=3', 0.9)),
    ('earlier_t:rate=0.5,low=0.1,high=0.2', Recipe('earlier_t:low=0.1,high=0.2', 0.5)),
  ],
)
def test_what_is_written(text, wanted):
  assert recipes.parse(text) == wanted


@pytest.mark.parametrize(
  'text',
  ['', 'chain', 'same_t:rate=0', 'same_t:rate=1,rate=1', 'same_t:injection=none', 3],
)
def test_what_is_none(text):
  assert not recipes.is_recipe(text)


@pytest.mark.slow
def test_recipes_spend_what_the_control_does(tmp_path):
  config = command_line.load_config(str(tiny_run.write_config(tmp_path)))
  config.mode = 'compare'
  config.train.num_steps = 1000
  config.train.batch_size = 60
  config.compare.rates = (1.0,)
  config.compare.equal_steps = False
  config.compare.recipes = ('unrolled:passes=3,rate=0.9',)
  settings = resolve(config)
  description = ModelDescription(DiTConfig(35, 32, 96, 3, 4, 32), 2, 'smiles_qm9')
  params = jax.tree.map(
    lambda x: np.zeros(x.shape, x.dtype), denoiser.abstract_params(description)
  )
  base = Model(description, params, get_tokenizer('smiles_qm9'))
  control, full, unrolled = arms.plan_arms(settings, base)
  assert (control.name, full.name) == (arms.CONTROL, 'rate 1')
  assert full.train_steps == 1000
  for arm in (control, full, unrolled):
    assert arm.flops_ratio == pytest.approx(1, abs=2e-3)
  # The stated costs: 4/3 of a vanilla step against 1.6; what is not the backbone is
  # some percent.
  stated = Estimate(1).cost(1.0) / Estimate(3).cost(0.9)
  assert unrolled.train_steps / 1000 == pytest.approx(stated, rel=0.03)
  assert unrolled.method(settings).estimate == 'unrolled:passes=3'
  assert (unrolled.rate, unrolled.method(settings).rate) == (0.9, 0.9)
  assert unrolled.directory == 'unrolled-passes-3-rate-0.9'

  # Without rates the first recipe has the run's steps, and they cost what others get.
  config.compare.rates = ()
  config.train.num_steps = unrolled.train_steps
  alone = arms.plan_arms(resolve(config), base)
  assert [arm.name for arm in alone] == [control.name, unrolled.name]
  # Its steps were rounded: half a step of it is less than one of the control's.
  assert alone[0].train_steps == pytest.approx(control.train_steps, abs=1)
  assert (alone[1].train_steps, alone[1].flops_ratio) == (unrolled.train_steps, 1)
  assert arms.main_arm(alone) == alone[1]
  assert arms.main_arm([control, unrolled, full]) == full
  table = arms.Arm('other', 1.0, 1, 1.0, recipe='same_t:injection=table')
  assert table.method(settings).injection == 'table'


@pytest.mark.parametrize(
  ('group', 'option', 'value', 'wanted'),
  [
    ('method', 'estimate', 'chain', 'wanted same_t, unrolled:passes=3, or earlier_t'),
    ('compare', 'recipes', ('same_t', 'same_t'), 'wanted a tuple of different recipes'),
    ('compare', 'recipes', ('same_t:rate=2',), 'wanted a tuple of different recipes'),
  ],
)
def test_settings_refuse(group, option, value, wanted):
  config = default_config()
  config[group][option] = value
  with pytest.raises(BadInput, match=wanted):
    resolve(config)
