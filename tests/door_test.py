"""The package from Python: what the README shows, and that it is the command line's."""

import json
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import nbclient
import nbformat
import numpy as np
import pytest

import scmdm_jax as sc
from scmdm_jax.diffusion.likelihood import nelbo
from scmdm_jax.diffusion.network import null_signal
from scmdm_jax.diffusion.schedules import LogLinear
from scmdm_jax.models import denoiser
from tests import tiny_run
from tests.parallel.sameness_test import on_eight_devices

ROOT = pathlib.Path(__file__).parent.parent
KEY = jax.random.key(3)


def readme_lines() -> str:
  """The Python that the README shows."""
  text = (ROOT / 'README.md').read_text()
  [code] = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  return code


@pytest.fixture(scope='module')
def model():
  return sc.load(sc.ASSETS / 'qm9_base')


def molecules(output: str) -> list[str]:
  lines = [line for line in output.splitlines() if line]
  assert len(lines) == 16
  assert all(re.fullmatch(r'[A-Za-z0-9@+\-\[\]()=#%/\\.]+', line) for line in lines)
  return lines


@pytest.mark.slow
def test_the_readme_prints_molecules(model):
  code = readme_lines()
  assert len([line for line in code.splitlines() if line]) <= 10
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True
  )
  found = molecules(done.stdout)
  sampler = sc.Sampler(num_steps=32, strategy=sc.strategies.Ancestral())
  tokens = sc.sample(jax.random.key(0), model, num_samples=16, sampler=sampler)
  assert found == [model.tokenizer.decode(row) for row in tokens]


@pytest.mark.slow
def test_the_readme_runs_in_a_notebook():
  notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(readme_lines())])
  nbclient.NotebookClient(
    notebook, timeout=300, resources={'metadata': {'path': str(ROOT)}}
  ).execute()
  outputs = notebook.cells[0].outputs
  molecules(''.join(o.text for o in outputs if o.get('name') == 'stdout'))


def test_there_are_few_names_and_each_says_what_it_is():
  assert len(sc.__all__) <= 30
  assert dir(sc) == sc.__all__
  for name in sc.__all__:
    assert getattr(sc, name) is not None
    if callable(getattr(sc, name)):
      assert getattr(sc, name).__doc__.strip()
  with pytest.raises(AttributeError, match='nonsense'):
    sc.nonsense  # noqa: B018


def test_importing_it_does_not_start_jax():
  code = 'import sys, scmdm_jax; print("jax" in sys.modules)'
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert done.stdout == 'False\n'


@pytest.mark.slow
def test_samples_are_those_of_the_command_line(model, tmp_path, capsys):
  program = tiny_run.Program(capsys)
  code, _, _ = program.run(
    f'--config={tiny_run.write_config(tmp_path)}',
    '--mode=sample',
    f'--workdir={tmp_path / "run"}',
    f'--config.checkpoint={sc.ASSETS / "qm9_base"}',
    '--config.sample.num_samples=5',
    '--config.sample.num_steps=4',
    '--config.seed=3',
  )
  assert code == 0
  lines = (tmp_path / 'run' / 'samples.jsonl').read_text().splitlines()
  sampler = sc.Sampler(num_steps=4)
  found = sc.sample(KEY, model, num_samples=5, sampler=sampler, length=32)
  assert [json.loads(line)['tokens'] for line in lines] == found.tolist()


@pytest.mark.slow
def test_beliefs_are_those_of_the_samples(model):
  sampler = sc.Sampler(num_steps=4)
  found = sc.beliefs(KEY, model, num_samples=2, sampler=sampler, prompt='C_C(=O)N$')
  tokens = sc.sample(KEY, model, num_samples=2, sampler=sampler, prompt='C_C(=O)N$')
  np.testing.assert_array_equal(found.states[-1], tokens)
  # The first prediction, once more: the base has no signal and no clock.
  network = denoiser.bind(model.params, model.description)
  start = jnp.asarray(found.states[0])
  logits = np.array(
    network.logits(network.encode(start, null_signal(network, start), jnp.ones(2)))
  )
  logits[..., model.tokenizer.mask_id] = -np.inf
  wanted = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  np.testing.assert_allclose(np.exp(found.log_probs[0]), wanted, rtol=1e-4, atol=1e-6)


def test_a_prompt_stays_what_it_is(model):
  found = sc.sample(
    KEY, model, num_samples=2, sampler=sc.Sampler(num_steps=4), prompt='C_C(=O)N$'
  )
  template = model.tokenizer.encode_prompt('C_C(=O)N$', found.shape[1])
  fixed = template != model.tokenizer.mask_id
  assert (found[:, fixed] == template[fixed]).all()
  assert (found != model.tokenizer.mask_id).all()


def rows_of(model):
  texts = ['CCO', 'C1CC1', 'CC(=O)N', 'OCC#N', 'CNC', 'C=CC', 'CCOC', 'NCCO']
  length = model.description.architecture.length
  return np.stack([model.tokenizer.encode(text, length) for text in texts])


@pytest.mark.slow
def test_nelbo_is_the_mean_over_rows_and_draws(model):
  rows = rows_of(model)
  options = sc.EvaluateSettings(num_examples=8, batch_size=4, repeats=2)
  network = denoiser.bind(model.params, model.description)
  total = 0.0
  for repeat in range(2):
    for batch in range(2):
      key = jax.random.fold_in(jax.random.fold_in(KEY, repeat), batch)
      tokens = jnp.asarray(rows[4 * batch : 4 * batch + 4])
      total += float(
        nelbo(
          key,
          network,
          tokens,
          schedule=LogLinear(),
          mask_id=model.description.mask_id,
          passes=1,
        ).sum()
      )
  found = sc.nelbo(KEY, model, rows, passes=1, options=options)
  # One float32 sum in another order.
  assert found == pytest.approx(total / (2 * rows.size), rel=1e-5)
  carried = sc.carried_nelbo(KEY, model, rows, num_steps=2, options=options)
  assert 0 < carried < np.log(model.description.architecture.vocab_size)


@pytest.mark.slow
def test_an_adapted_model_is_saved_and_loaded_as_it_is(model, tmp_path):
  rows = rows_of(model)
  train = sc.TrainSettings(
    num_steps=12,
    batch_size=8,
    warmup_steps=2,
    learning_rate=1e-2,
    injection_rate_factor=1.0,
    ema_decay=0.5,
  )
  adapted = sc.adapt(KEY, model, rows, train=train)
  assert adapted.description.injection == 'embedding'
  options = sc.EvaluateSettings(num_examples=8, batch_size=8, repeats=4)
  before, after = (sc.nelbo(KEY, m, rows, options=options) for m in (model, adapted))
  # It has seen these eight rows twelve times: it must know them better.
  assert after < before - 0.05
  sc.save(adapted, tmp_path / 'adapted')
  again = sc.load(tmp_path / 'adapted')
  assert again.description == adapted.description
  jax.tree.map(np.testing.assert_array_equal, again.params, adapted.params)
  with pytest.raises(sc.BadInput, match='adapted'):
    sc.save(adapted, tmp_path / 'adapted')


def test_mistakes(model):
  judge = sc.load(sc.ASSETS / 'qm9_judge')
  with pytest.raises(sc.BadInput, match='wanted a masked diffusion model'):
    sc.sample(KEY, judge)
  with pytest.raises(sc.BadInput, match='nowhere'):
    sc.load('nowhere')
  with pytest.raises(ValueError, match='num_steps'):
    sc.Sampler(num_steps=0)


ON_A_MESH = """\
import jax, numpy as np
import scmdm_jax as sc
sampler = sc.Sampler(num_steps=4)
one = sc.load(sc.ASSETS / 'qm9_base')
mesh = sc.make_mesh(data=4, fsdp=2)
many = sc.load(sc.ASSETS / 'qm9_base', mesh=mesh)
key = jax.random.key(3)
alone = sc.sample(key, one, num_samples=6, sampler=sampler)
spread = sc.sample(key, many, num_samples=6, sampler=sampler, mesh=mesh)
print((alone == spread).all())
rows = np.tile(alone[:2], (4, 1))
train = sc.TrainSettings(num_steps=2, batch_size=8, warmup_steps=1)
found = [
  sc.adapt(key, model, rows, train=train, mesh=where)
  for model, where in ((one, None), (many, mesh))
]
# Float32 sums of gradients in another order, then two steps of at most 1e-3.
jax.tree.map(
  lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), *(m.params for m in found)
)
print('same')
"""


@pytest.mark.slow
def test_on_a_mesh_as_on_one_device():
  assert on_eight_devices('-c', ON_A_MESH).split() == ['True', 'same']
