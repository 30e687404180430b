import dataclasses
import json
import math
import re

import pytest
from ml_collections import ConfigDict

from scmdm_jax.diffusion import strategies
from scmdm_jax.diffusion.guidance import Guidance
from scmdm_jax.diffusion.sampling import Sampler
from scmdm_jax.diffusion.schedules import Cosine, LogLinear, Polynomial
from scmdm_jax.domains import registry
from scmdm_jax.errors import BadInput
from scmdm_jax.models.families.dit import DiTConfig
from scmdm_jax.models.families.llama import DecoderConfig
from scmdm_jax.models.injection import INJECTIONS
from scmdm_jax.settings import building, options
from scmdm_jax.settings.options import SampleSettings, Settings, default_config
from scmdm_jax.settings.resolve import resolve


def fields_of(group, prefix=''):
  """Dotted name, type and default of every option."""
  for field in dataclasses.fields(group):
    default = getattr(group, field.name)
    if dataclasses.is_dataclass(default):
      yield from fields_of(default, f'{prefix}{field.name}.')
    else:
      yield f'{prefix}{field.name}', field.type, default


FIELDS = list(fields_of(Settings()))
DATA_SETS = [name for domain in registry.domains() for name in domain.data_sets]
NAMES = [name for name, *_ in FIELDS]
NUMBERS = [name for name, kind, _ in FIELDS if kind in (int, float)]
WHOLE = [name for name, kind, _ in FIELDS if kind is int]
REAL = [name for name, kind, _ in FIELDS if kind is float]
TUPLES = [name for name, kind, _ in FIELDS if kind is tuple]


def with_option(name, value):
  """The defaults as a plain dict, which takes any value, with one changed."""
  config = default_config().to_dict()
  *groups, last = name.split('.')
  group = config
  for part in groups:
    group = group[part]
  group[last] = value
  return config


def refusal(config):
  with pytest.raises(BadInput) as caught:
    resolve(config)
  message = str(caught.value)
  assert '\n' not in message
  return message


def value_at(settings, name):
  for part in name.split('.'):
    settings = getattr(settings, part)
  return settings


def test_the_defaults_are_valid():
  assert resolve(default_config()) == Settings()
  assert resolve({}) == Settings()
  assert resolve(default_config().to_dict()) == Settings()


def test_settings_survive_json_and_hashing():
  again = resolve(json.loads(json.dumps(dataclasses.asdict(Settings()))))
  assert again == Settings()
  assert hash(again) == hash(Settings())


@pytest.mark.parametrize('name', NAMES)
def test_every_option_is_an_option_of_the_config(name):
  config = default_config()
  value = value_at(Settings(), name)
  assert value_at(config, name) == value
  assert value_at(resolve(with_option(name, value)), name) == value


def test_the_config_is_locked():
  config = default_config()
  with pytest.raises(AttributeError, match='num_steps'):
    config.train.num_step = 3
  with pytest.raises(AttributeError):
    config.trian = {}
  with pytest.raises(TypeError):
    config.train.num_steps = 'many'


@pytest.mark.parametrize('name', NAMES)
def test_a_misspelt_option_gets_its_right_name(name):
  *groups, last = name.split('.')
  wrong = '.'.join([*groups, f'{last}x'])
  message = refusal(with_option(wrong, 1))
  assert message == f'{wrong}: no such option; did you mean {name}?'


@pytest.mark.parametrize(
  ('wrong', 'right'),
  [
    ('trian', 'train'),
    ('methods', 'method'),
    ('smaple', 'sample'),
    ('train.learning_rat', 'train.learning_rate'),
    ('train.warmup', 'train.warmup_steps'),
    ('sample.temprature', 'sample.temperature'),
  ],
)
def test_usual_misspellings(wrong, right):
  message = refusal(with_option(wrong, 1))
  assert message == f'{wrong}: no such option; did you mean {right}?'


def test_nothing_is_suggested_for_something_else_entirely():
  assert refusal({'xyzzy': 1}) == 'xyzzy: no such option'


@pytest.mark.parametrize('group', ['data', 'model', 'method', 'train', 'sample'])
def test_a_group_must_be_a_group(group):
  message = refusal({group: 3})
  assert message == f'{group}: found 3; wanted a group of options'


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('name', REAL)
def test_numbers_must_be_finite(name, value):
  message = refusal(with_option(name, value))
  assert message == f'{name}: found {value!r}; wanted finite numbers'


@pytest.mark.parametrize('name', NUMBERS)
def test_no_option_may_be_negative(name):
  if name in ('sample.label', 'evaluate.lm_eval_fewshot'):
    # Each in turn; as the task says.
    assert value_at(resolve(with_option(name, -1)), name) == -1
    assert refusal(with_option(name, -2)) == (
      f'{name}: found -2; wanted a number of at least -1'
    )
    return
  if name.startswith('mesh.'):
    assert value_at(resolve(with_option(name, -1)), name) == -1  # The rest.
    assert refusal(with_option(name, -2)) == (
      f'{name}: found -2; wanted a whole number above 0, or -1'
    )
    return
  message = refusal(with_option(name, -1))
  wanted = r'a number (above|of at least|from) [01]'
  assert re.fullmatch(rf'{name}: found -1(\.0)?; wanted {wanted}.*', message)


# Where zero means something: no warm-up, no decay, greedy sampling, ...
ZERO_ALLOWED = {
  'data.length',
  'data.unknown',
  'data.side',
  'data.chunk_limit',
  'model.block_length',
  'model.window',
  'evaluate.discriminator_epochs',
  'verify_below',
  'seed',
  'sample.block_length',
  'sample.refresh',
  'sample.compact',
  'sample.guidance',
  'sample.label',
  'method.eps',
  'method.class_shown',
  'method.rate',
  'train.final_learning_rate',
  'train.warmup_steps',
  'train.weight_decay',
  'train.ema_decay',
  'sample.temperature',
  'compare.benchmark_pairs',
  'compare.sweep_samples',
  'evaluate.mauve_seeds',
  'evaluate.neighbour_images',
  'evaluate.context_stretches',
  'evaluate.ngram_order',
  'plan.hbm_gib',
  'plan.tries',
  'plan.price_per_hour',
  'train.skip_limit',
  'train.spike_window',
  'train.step_timeout',
  'train.lora_rank',
  'train.evaluate_every',
  'sample.max_new_tokens',
  'evaluate.lm_eval_fewshot',
  'evaluate.lm_eval_limit',
}


@pytest.mark.parametrize('name', NUMBERS)
def test_zero_only_where_it_means_something(name):
  config = with_option(name, 0)
  if name in ZERO_ALLOWED:
    assert value_at(resolve(config), name) == 0
  else:
    assert refusal(config).startswith(f'{name}: found 0')


@pytest.mark.parametrize('name', ['method.rate', 'sample.top_p'])
@pytest.mark.parametrize('value', [1.0001, 2])
def test_shares_end_at_one(name, value):
  message = refusal(with_option(name, value))
  assert re.fullmatch(rf'{name}: found {value}(\.0)?; wanted a number .* 1', message)


@pytest.mark.parametrize('name', ['method.eps', 'train.ema_decay'])
def test_shares_that_must_stay_below_one(name):
  message = refusal(with_option(name, 1.0))
  assert message == f'{name}: found 1.0; wanted a number from 0, below 1'


WRONG_TYPES = {
  int: ['3', 3.0, 3.5, True, None, (3,), {}],
  float: ['0.1', True, None, (0.1,), {}],
  str: [3, True, None, ('a',), b'a', {}],
  bool: [1, 0, 'true', None],
  tuple: [3, 'abc', None, {}, {1}],
}


@pytest.mark.parametrize(('name', 'kind', 'default'), FIELDS)
def test_wrong_types_are_named(name, kind, default):
  for value in WRONG_TYPES[kind]:
    message = refusal(with_option(name, value))
    assert message == f'{name}: found {value!r}; wanted {kind.__name__}'


@pytest.mark.parametrize('name', TUPLES)
def test_a_list_will_do_for_a_tuple(name):
  value = value_at(Settings(), name)
  assert value_at(resolve(with_option(name, list(value))), name) == value


# Of a benchmark, sweeps may be empty and sizes may repeat; a comparison may have no
# recipes (tests/recipes_test.py has what it refuses).
CHECKED = [
  name
  for name in TUPLES
  if not name.startswith(('benchmark.', 'compare.recipes', 'train.accept_changes'))
]


@pytest.mark.parametrize('name', CHECKED)
@pytest.mark.parametrize('value', [(-1,), ('a',), (None,), (1, -2), ((1,),), (1, 1)])
def test_entries_of_tuples_are_checked(name, value):
  message = refusal(with_option(name, value))
  assert message.startswith(f'{name}: found {value!r}; wanted a tuple of ')


# With recipes a comparison may have no rates:
# `test_a_comparison_wants_a_rate_or_a_recipe`. More passes than two are never needed.
MAY_BE_EMPTY = ('compare.rates', 'evaluate.passes')


@pytest.mark.parametrize('name', [name for name in CHECKED if name not in MAY_BE_EMPTY])
def test_tuples_have_entries(name):
  assert refusal(with_option(name, ())).startswith(f'{name}: found (); wanted a tuple')


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('train.accept_changes', ('a',)),
    ('train.accept_changes', (1,)),
    ('benchmark.batch_sizes', (0, 1)),
    ('benchmark.lengths', (4, 4)),
    ('benchmark.step_counts', (1.5,)),
    ('benchmark.vocab_sizes', ('a',)),
    ('benchmark.strategies', (1,)),
    ('benchmark.memory_shape', (8,)),
    ('benchmark.memory_shape', (8, -1)),
  ],
)
def test_sizes_of_a_benchmark(name, value):
  assert refusal(with_option(name, value)).startswith(
    f'{name}: found {value!r}; wanted'
  )


@pytest.mark.parametrize('name', TUPLES)
@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_entries_of_tuples_are_finite(name, value):
  assert refusal(with_option(name, (1, value))).startswith(f'{name}: found (1, ')


@pytest.mark.parametrize(
  'name', ['evaluate.carried_steps', 'compare.seeds', 'compare.step_counts']
)
@pytest.mark.parametrize('value', [1.5, 2.0, True])
def test_whole_numbers_in_tuples(name, value):
  message = refusal(with_option(name, (1, value)))
  assert message.startswith(
    f'{name}: found (1, {value}); wanted a tuple of different whole'
  )


@pytest.mark.parametrize('name', ['compare.rates', 'compare.temperatures'])
def test_truth_is_no_number_in_tuples(name):
  assert refusal(with_option(name, (True,))).startswith(f'{name}: found (True,)')


def test_a_comparison_wants_a_rate_or_a_recipe():
  config = with_option('compare.rates', ()) | {'mode': 'compare'}
  assert refusal(config).startswith('compare.rates: found () and no recipe either')
  config['compare']['recipes'] = ('unrolled:passes=3,rate=0.9',)
  assert resolve(config).compare.rates == ()


def test_whole_numbers_will_do_for_real_ones():
  settings = resolve(with_option('method.rate', 1))
  assert settings.method.rate == 1.0
  assert isinstance(settings.method.rate, float)


@pytest.mark.parametrize(
  ('name', 'choices'),
  [
    ('mode', options.MODES),
    ('data.name', DATA_SETS),
    ('model.architecture', ('mdlm', 'llama', 'dream', 'conv')),
    ('method.objective', ('masked', 'causal', 'classify')),
    ('method.schedule', ('log_linear', 'cosine', 'polynomial')),
    ('method.injection', tuple(INJECTIONS)),
  ],
)
def test_unknown_choices_list_the_known_ones(name, choices):
  message = refusal(with_option(name, 'unheard_of'))
  assert message == f"{name}: found 'unheard_of'; wanted one of {', '.join(choices)}"


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'train.batch_size': 64, 'train.accumulate': 3},
      'train.accumulate: found 3; wanted a divisor of train.batch_size = 64',
    ),
    (
      {'train.num_steps': 100, 'train.warmup_steps': 100},
      'train.warmup_steps: found 100; wanted fewer than train.num_steps = 100',
    ),
    (
      {'train.learning_rate': 1e-3, 'train.final_learning_rate': 1e-2},
      'train.final_learning_rate: found 0.01; wanted at most train.learning_rate = '
      '0.001',
    ),
    (
      {'method.injection': 'none', 'method.rate': 0.5},
      "method.rate: found 0.5 with method.injection = 'none'; wanted rate 0, or an "
      'injection',
    ),
    (
      {'method.class_shown': 0.9},
      "method.class_shown: found 0.9 with data.name = 'qm9'; wanted 0, or data with "
      'classes',
    ),
    (
      {'data.side': 14},
      "data.side: found 14 with data.name = 'qm9'; wanted 0, or images: "
      'fashion_mnist, cifar10',
    ),
    (
      {'data.chunk_limit': 5},
      "data.chunk_limit: found 5 with data.name = 'qm9'; wanted 0, or genomes: "
      'genomes, ten_species',
    ),
    (
      {'data.tokenizer': 'species:9'},
      "data.tokenizer: found 'species:9' with data.name = 'qm9'; wanted it for "
      'genomes: genomes, ten_species only',
    ),
    (
      {'data.name': 'genomes', 'data.tokenizer': 'dna'},
      "data.tokenizer: found 'dna' with data.name = 'genomes'; wanted "
      "'species:COUNT' with 2 to 1000 species, as in species:9",
    ),
    (
      {'data.name': 'genomes', 'data.tokenizer': 'species:9', 'data.length': 1},
      'data.length: found 1; wanted a class and bases',
    ),
    (
      {'method.objective': 'classify', 'model.architecture': 'conv', 'mode': 'plan'},
      "method.objective: found 'classify' with --mode=plan, which is of diffusion "
      "models; wanted 'masked'",
    ),
    (
      {'data.tokenizer': 'pixels:16'},
      "data.tokenizer: found 'pixels:16' with data.name = 'qm9'; wanted it for "
      'images: fashion_mnist, cifar10 only',
    ),
    (
      {'data.name': 'cifar10', 'data.side': 8, 'data.length': 192},
      'data.length: found 192; wanted 193, a class and 3 x 8 x 8 values',
    ),
    (
      {'data.name': 'cifar10', 'data.length': 3073},
      "data.tokenizer: found 'smiles_qm9' with data.name = 'cifar10'; wanted "
      "'pixels:LEVELS' with 2 to 256 levels, as in pixels:16",
    ),
    (
      {'data.name': 'cifar10', 'data.side': 12},
      'data.side: found 12; wanted 0 or a divisor of 32, the side of the images of '
      'cifar10',
    ),
    (
      {'method.objective': 'causal'},
      "method.objective: found 'causal' with model.architecture = 'mdlm'; wanted "
      'llama with it',
    ),
    (
      {'model.architecture': 'llama'},
      "method.objective: found 'masked' with model.architecture = 'llama'; wanted "
      'mdlm or dream with it',
    ),
  ],
)
def test_contradictions_name_both_options(changes, message):
  config = default_config()
  for name, value in changes.items():
    config.update_from_flattened_dict({name: value})
  assert refusal(config) == message


@pytest.mark.parametrize(
  'changes',
  [
    {'method.injection': 'none', 'method.rate': 0.0},
    {'method.rate': 0.0},
    {'train.num_steps': 1, 'train.warmup_steps': 0},
    {'train.batch_size': 6, 'train.accumulate': 3},
    {'train.learning_rate': 0.1, 'train.final_learning_rate': 0.1},
    {'method.objective': 'causal', 'model.architecture': 'llama'},
    # The checkpoint says what the architecture is.
    {'method.objective': 'causal', 'checkpoint': 'somewhere'},
  ],
)
def test_what_only_looks_contradictory(changes):
  config = default_config()
  config.update_from_flattened_dict(changes)
  settings = resolve(config)
  for name, value in changes.items():
    assert value_at(settings, name) == value


def test_resolve_takes_any_mapping_of_options():
  config = ConfigDict({'train': {'num_steps': 200}})
  assert resolve(config).train == options.TrainSettings(num_steps=200)


@pytest.mark.parametrize(
  ('name', 'wanted'),
  [
    ('log_linear', LogLinear(0.01)),
    ('cosine', Cosine(0.01)),
    ('polynomial', Polynomial(3.0, 0.01)),
  ],
)
def test_schedule_of(name, wanted):
  method = options.MethodSettings(schedule=name, eps=0.01, power=3.0)
  assert building.schedule_of(method) == wanted


def test_no_training_option_is_dropped_on_the_way():
  # Every field has its own value, so that a swap shows.
  values = {
    f.name: i + 1 for i, f in enumerate(dataclasses.fields(options.TrainSettings))
  }
  allowed = {'num_steps': 1001, 'learning_rate': 0.75, 'final_learning_rate': 0.5}
  train = options.TrainSettings(**values | allowed | {'ema_decay': 0.25})
  given = dataclasses.asdict(train)
  optimizer = dataclasses.asdict(building.optimizer_of(train))
  loop = dataclasses.asdict(building.loop_of(train))
  for name in ('weight_decay', 'clip', 'ema_decay', 'accumulate'):
    assert optimizer[name] == given[name]
  guard = loop.pop('guard')
  assert guard == {name: given[name] for name in guard}
  assert loop == {name: given[name] for name in loop}
  factor = given.pop('injection_rate_factor')
  assert optimizer['rate_factors'] == (('self_conditioning', factor),)
  # The rest belongs to the data pipeline, the store and the network.
  assert given.keys() - optimizer.keys() - loop.keys() - guard.keys() == {
    'accept_changes',
    'batch_size',
    'keep',
    'dtype',
    'remat',
    'lora_rank',
    'lora_alpha',
    'lora_targets',
  }


def test_new_masked_model():
  settings = Settings(
    data=dataclasses.replace(Settings().data, length=20),
    model=options.ModelSettings(
      hidden_dim=24,
      num_blocks=2,
      num_heads=3,
      mlp_ratio=5,
      cond_dim=7,
      time_conditioning=True,
    ),
    method=options.MethodSettings(injection='gate'),
  )
  description = building.new_model(settings, vocab_size=35, mask_id=2)
  assert description.architecture == DiTConfig(35, 20, 24, 2, 3, 7, 5, True)
  assert (description.mask_id, description.injection) == (2, 'gate')
  assert description.tokenizer == ''


def test_new_judge():
  settings = Settings(
    model=options.ModelSettings(architecture='llama', hidden_dim=24, num_heads=3),
    method=options.MethodSettings(objective='causal'),
  )
  description = building.new_model(settings, vocab_size=35, mask_id=2)
  assert description.architecture == DecoderConfig(35, 32, 24, 3, 3, 3, 96)
  assert (description.mask_id, description.injection) == (None, 'none')


def test_new_decoder_that_sees_both_ways():
  settings = Settings(model=options.ModelSettings(architecture='dream', mlp_ratio=3))
  description = building.new_model(settings, vocab_size=35, mask_id=2)
  assert description.architecture == DecoderConfig(
    35, 32, 96, 3, 4, 4, 288, causal=False, qkv_bias=True, shifted=True
  )
  assert (description.family, description.mask_id) == ('dream', 2)
  assert description.injection == 'embedding'


@pytest.mark.parametrize(
  ('heads', 'message'),
  [
    (5, 'model: hidden_dim 96 is not a multiple of num_heads 5'),
    (32, 'model: rotary positions want an even head size; 96 / 32 is odd'),
  ],
)
def test_sizes_that_do_not_fit(heads, message):
  settings = Settings(model=options.ModelSettings(num_heads=heads))
  with pytest.raises(BadInput) as caught:
    building.new_model(settings, vocab_size=35, mask_id=2)
  assert str(caught.value) == message


def sampled(**options):
  config = default_config()
  config.sample.update(options)
  return config


def test_strategies_by_name_and_field():
  def strategy(**options):
    sample = resolve(sampled(**options)).sample
    return building.sampler_of(sample, LogLinear()).strategy

  assert strategy(strategy='remdm:rule=conf,eta=0.1') == strategies.ReMDM(
    'conf', eta=0.1
  )
  assert strategy() == strategies.Ancestral()
  assert strategy(noise='low') == strategies.Joint()
  for name, cls in strategies.STRATEGIES.items():
    assert strategy(strategy=name) == cls()


def test_no_option_of_a_sampler_is_dropped_on_the_way():
  sample = SampleSettings(
    num_steps=8,
    strategy='p2:eta=0.5',
    top_p=0.75,
    noise='float64',
    block_length=4,
    guidance=1.5,
    keep_signal=False,
    self_conditioning=False,
  )
  assert building.sampler_of(sample, Cosine()) == Sampler(
    8, strategies.P2(0.5), Cosine(), False, 0.75, 'float64', Guidance(1.5), 4, False
  )


@pytest.mark.parametrize(
  ('options', 'wanted'),
  [
    ({'strategy': 'ancestrl'}, 'did you mean ancestral'),
    ({'strategy': 'remdm:eat=1'}, "remdm has no field 'eat'; its fields: rule, eta"),
    ({'strategy': 'remdm:eta=x'}, "remdm:eta: found 'x'; wanted a number"),
    ({'strategy': 'remdm:eta=nan'}, 'remdm:eta: found nan; wanted a probability'),
    ({'strategy': 'remdm:t_off=0'}, 'wanted a number between 0 and 1'),
    ({'strategy': 'remdm:rule=cup'}, 'wanted one of cap, rescale'),
    ({'strategy': 'remdm:eta=0.1,eta=0.2'}, 'remdm:eta is there twice'),
    ({'strategy': 'remdm:t_on=0.1,t_off=0.9'}, 'wanted more than t_off = 0.9'),
    (
      {'strategy': 'dream:eps=1'},
      'dream:eps: found 1.0; wanted a time from 0, below 1',
    ),
    ({'strategy': 'ancestral:eta=1'}, 'its fields: none'),
    ({'strategy': 'p2', 'noise': 'low'}, "the joint draw is 'ancestral' only"),
    ({'noise': 'low', 'temperature': 0.0}, 'wants a temperature above 0'),
    ({'strategy': 'first_hitting'} | {'num_steps': 31}, 'wanted at least 32'),
    ({'block_length': 5}, 'sample.block_length: found 5'),
    ({'block_length': 8, 'num_steps': 30}, 'number of blocks divides num_steps = 30'),
    # There, float32 would let banned tokens win.
    ({'guidance': 1e39, 'prompt': 'C_'}, 'wanted a number from 0 to 1e+06'),
    ({'temperature': 1e30}, 'wanted a number from 0 to 1e+06'),
  ],
)
def test_samplers_that_cannot_run(options, wanted):
  assert wanted in refusal(sampled(**options))


@pytest.mark.parametrize('steps', ['5', '8:5', '0:3', '5:', 'a:b', '5:8:9', '5:2000'])
def test_steps_to_trace_are_checked(steps):
  with pytest.raises(BadInput, match=r'profile\.steps: found'):
    resolve({'profile': {'steps': steps}})


def test_steps_are_traced_in_training_only():
  assert resolve({'profile': {'steps': '5:8'}}).profile.window == (5, 8)
  assert resolve({}).profile.window is None
  with pytest.raises(BadInput, match='with --mode=train'):
    resolve({'mode': 'sample', 'profile': {'steps': '5:8'}})


def test_mauve_wants_text_and_a_judge():
  config = with_option('evaluate.mauve_seeds', 3)
  for judge in ('', 'somewhere'):
    config['judge'] = judge
    config['data'] = {'name': 'text', 'tokenizer': 'sentencepiece:320'}
    if judge:
      assert resolve(config).evaluate.mauve_seeds == 3
    else:
      assert refusal(config) == (
        "evaluate.mauve_seeds: found 3 with data.name = 'text' and judge = ''; wanted "
        'a judge that reads texts, or 0'
      )
    config['data'] = {'name': 'qm9', 'tokenizer': 'smiles_qm9'}
    assert refusal(config).startswith(
      "evaluate.mauve_seeds: found 3 with data.name = 'qm9'; wanted 0, or text: text,"
    )
