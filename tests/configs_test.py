"""Every committed config is one that the package accepts."""

import inspect
import pathlib
import types
from typing import get_args

import pytest

from scmdm_jax import command_line
from scmdm_jax.errors import BadInput
from scmdm_jax.settings.resolve import resolve

CONFIGS = pathlib.Path(__file__).parents[1] / 'configs'
MODES = {
  'benchmark_small.py': 'benchmark',
  'blocks_small.py': 'compare',
  'blocks_small.py:4': 'compare',
  'blocks_small.py:16': 'compare',
  'blocks_small.py:32': 'compare',
  'blocks_small.py:base_4': 'train',
  'blocks_small.py:base_8': 'train',
  'blocks_small.py:base_16': 'train',
  'chat_small.py': 'train',
  'cifar10_paper.py': 'compare',
  'cifar10_paper.py:classifier': 'train',
  'cifar10_paper.py:pretrain': 'train',
  'depth_small.py': 'compare',
  'depth_small.py:images': 'compare',
  'depth_small.py:images_base': 'train',
  'depth_small.py:images_classifier': 'train',
  'depth_small.py:letters': 'compare',
  'depth_small.py:letters_base': 'train',
  'depth_small.py:molecules_base': 'train',
  'dream_7b.py': 'plan',
  'dream_7b.py:sample': 'plan',
  'dream_7b_lora.py': 'plan',
  'dream_7b_lora.py:v5e': 'plan',
  'dream_7b_lora.py:v6e': 'plan',
  'fashion_few_greys.py': 'compare',
  'fashion_few_greys.py:base': 'train',
  'fashion_few_greys.py:classifier': 'train',
  'fashion_few_greys.py:base_14': 'train',
  'fashion_few_greys.py:classifier_14': 'train',
  'fashion_few_greys.py:compare_14': 'compare',
  'fashion_small.py': 'compare',
  'fashion_small.py:base': 'train',
  'fashion_small.py:classifier': 'train',
  'genomes_small.py': 'compare',
  'genomes_small.py:base': 'train',
  'genomes_small.py:classifier': 'train',
  'letters_h100.py': 'compare',
  'letters_h100.py:base': 'train',
  'letters_h100.py:judge': 'train',
  'letters_small.py': 'compare',
  'letters_small.py:base': 'train',
  'letters_small.py:judge': 'train',
  'letters_small.py:whole': 'compare',
  'letters_small.py:base_128': 'train',
  'letters_small.py:judge_128': 'train',
  'letters_small.py:rows_128': 'compare',
  'llada_8b.py': 'plan',
  'llada_8b.py:h100': 'plan',
  'llada_8b.py:sample': 'plan',
  'llada_8b_lora.py': 'plan',
  'llada_8b_lora.py:v5e': 'plan',
  'llada_8b_lora.py:v6e': 'plan',
  'mdlm_owt.py': 'plan',
  'mdlm_owt.py:h100': 'plan',
  'mdlm_owt.py:v6e': 'plan',
  'owt_paper.py': 'compare',
  'qm9_base.py': 'train',
  'qm9_compare.py': 'compare',
  'qm9_judge.py': 'train',
  'qm9_paper.py': 'compare',
  'qm9_paper.py:pretrain': 'train',
  'quickstart.py': 'compare',
  'rrna_small.py': 'compare',
  'rrna_small.py:base': 'train',
  'rrna_small.py:base_256': 'train',
  'rrna_small.py:compare_256': 'compare',
  'ten_species_paper.py': 'compare',
  'ten_species_paper.py:base': 'train',
  'ten_species_paper.py:classifier': 'train',
  'text_small.py': 'compare',
  'text_small.py:base': 'train',
  'text_small.py:judge': 'train',
}


def argument(path):
  """The parameter of a config's get_config, None if it takes none."""
  module = types.ModuleType(path.stem)
  module.__file__ = str(path)
  exec(compile(path.read_text(), path, 'exec'), module.__dict__)
  return next(iter(inspect.signature(module.get_config).parameters.values()), None)


def test_none_is_left_out():
  names = []
  for path in CONFIGS.glob('*.py'):
    names.append(path.name)
    if taken := argument(path):
      others = [x for x in get_args(taken.annotation) if x != taken.default]
      assert others, f'{path.name} does not name its arguments'
      names += [f'{path.name}:{other}' for other in others]
  assert sorted(names) == sorted(MODES)


@pytest.mark.parametrize('name', MODES)
def test_config_is_accepted(name):
  assert resolve(command_line.load_config(str(CONFIGS / name))).mode == MODES[name]


@pytest.mark.parametrize('name', sorted({n.split(':')[0] for n in MODES if ':' in n}))
def test_an_argument_that_there_is_not(name):
  with pytest.raises(BadInput, match=rf'{name}:judges: wanted one of \w+, \w+'):
    command_line.load_config(f'{CONFIGS / name}:judges')
