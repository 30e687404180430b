"""A small comparison with made-up, hand-checkable numbers."""

import html.parser
import re

import pytest

CONTROL = 'rate 0, equal FLOPs'
METRICS = {
  'valid_rate': {'label': 'valid rate', 'better': 'higher', 'quality': True},
  'generative_perplexity': {
    'label': 'generative perplexity',
    'better': 'lower',
    'quality': True,
  },
  'valid': {'label': 'valid count', 'better': 'higher', 'quality': False},
  'unique_rate': {'label': 'unique of valid', 'better': 'higher', 'quality': False},
}
_VOID = {'br', 'img', 'meta'}


def make_run(arm, seed, valid_rate, perplexity=5.0, steps=(8, 32)):
  sample = {
    'valid': round(1000 * valid_rate),
    'count': 1000,
    'valid_rate': valid_rate,
    'unique_rate': 0.9,
    'novel_rate': 0.5,
    'valid_canonical_unique_rate': 0.4,
    'generative_perplexity': perplexity,
    'entropy': 2.4,
    'distinct_4': 0.9,
  }
  return {
    'arm': arm,
    'seed': seed,
    'likelihood': {
      'nelbo_null': 0.8,
      'nelbo_two_pass': 0.7,
      'carried_nelbo': {str(t): 0.8 + 1 / t for t in steps},
    },
    'samples': {str(t): {**sample, 'evaluations': t} for t in steps},
    'training_curve': [{'step': i, 'loss': 1.0 / (i + 1)} for i in range(5)],
    'seconds': {'train': 2.0, 'sample': 1.0 + seed},
  }


@pytest.fixture
def results():
  """Results of two arms and three seeds, as the mode hands them over."""
  rates = {CONTROL: (0.1, 0.2, 0.4), 'rate 1': (0.2, 0.4, 0.7)}
  curve = [
    {
      'arm': arm,
      'seed': seed,
      'num_steps': 32,
      'temperature': temperature,
      'generative_perplexity': 4.0 + temperature,
      'entropy': 2.0 + temperature / 10,
      'valid_rate': 0.5,
    }
    for arm in rates
    for seed in range(3)
    for temperature in (0.8, 1.0, 1.2)
  ]
  return {
    'domain': 'molecules',
    'metrics': METRICS,
    'title': 'A comparison',
    'command': 'python -m scmdm_jax.main --config=c.py',
    'hardware': 'two cores',
    'versions': {'jax': '0.0'},
    'config': {'train': {'learning_rate': 3e-4}},
    'git_sha': 'abc',
    'base': {'path': 'base', 'parameters': 1234567, 'nelbo_null': 0.9},
    'control': CONTROL,
    'arms': [
      {'name': CONTROL, 'rate': 0.0, 'train_steps': 133, 'flops_ratio': 1.0},
      {'name': 'rate 1', 'rate': 1.0, 'train_steps': 100, 'flops_ratio': 1.0},
    ],
    'seeds': [0, 1, 2],
    'runs': [
      make_run(arm, seed, rate)
      for arm, by_seed in rates.items()
      for seed, rate in enumerate(by_seed)
    ],
    'gallery': {
      'rate 1': [
        {'caption': 'CCO', 'image': 'data:image/png;base64,AAAA'},
        {'caption': 'C1CC', 'image': None},
      ]
    },
    'trajectory': {
      'arm': 'rate 1',
      'num_steps': 2,
      'tokens': [['<mask>', '<mask>'], ['C', '<mask>'], ['C', 'O']],
      'masked': [[True, True], [False, True], [False, False]],
    },
    'temperature_curve': curve,
    'cost': {'train_step_ratio': {'rate 1': 1.3}},
    'notes': ['made up'],
  }


class _Balance(html.parser.HTMLParser):
  """Checks nesting and collects tags, attributes and text."""

  def __init__(self):
    super().__init__()
    self.open, self.tags, self.attributes, self.text = [], [], [], []

  def handle_starttag(self, tag, attrs):
    self.handle_startendtag(tag, attrs)
    if tag not in _VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes.extend(attrs)

  def handle_endtag(self, tag):
    assert self.open, f'</{tag}> closes nothing'
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text.append(data)


@pytest.fixture
def parse():
  """Parses HTML, asserting that it is balanced, inert and self-contained."""

  def parse_html(source):
    parser = _Balance()
    parser.feed(source)
    parser.close()
    assert parser.open == []
    forbidden = {'script', 'iframe', 'object', 'embed', 'link', 'base', 'form'}
    assert not forbidden & set(parser.tags)
    for name, value in parser.attributes:
      assert not name.startswith('on'), name
      if name == 'src':  # Pictures in the page itself.
        assert value.startswith('data:image/'), value
      if name in ('href', 'xlink:href', 'action'):
        assert value.startswith('#'), (name, value)
      if not name.startswith('xmlns'):
        assert 'http://' not in value and 'https://' not in value, (name, value)
    assert '@import' not in source
    for target in re.findall(r'url\(([^)]*)\)', source):
      assert target.startswith('#')
    return parser

  return parse_html
