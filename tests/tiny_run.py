"""A run of a few seconds: real molecules, a toy model."""

import json
import pathlib

from scmdm_jax.main import main

MOLECULES = pathlib.Path(__file__).parent / 'qm9_sample.csv'

_CONFIG = """\
from scmdm_jax.settings import default_config


def get_config():
  config = default_config()
  config.data.source = {source!r}
  config.data.directory = {directory!r}
  config.model.hidden_dim = 8
  config.model.num_blocks = 1
  config.model.num_heads = 2
  config.model.cond_dim = 4
  config.train.num_steps = 6
  config.train.batch_size = 8
  config.train.warmup_steps = 2
  config.train.learning_rate = 1e-2
  config.train.save_every = 2
  config.train.log_every = 1
  return config
"""


def write_config(directory: pathlib.Path) -> pathlib.Path:
  """A config file in `directory`; its data set is prepared there, too."""
  path = directory / 'tiny.py'
  text = _CONFIG.format(source=str(MOLECULES), directory=str(directory / 'data'))
  path.write_text(text)
  return path


def curve(workdir: pathlib.Path) -> list[tuple[int, float, float]]:
  """Step, loss and gradient norm of every line of metrics.jsonl."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  records = [json.loads(line) for line in lines]
  return [(r['step'], r['loss'], r['grad_norm']) for r in records]


def model_bytes(workdir: pathlib.Path) -> dict[str, bytes]:
  """The parameters of `workdir/model`, by path."""
  import jax

  from scmdm_jax.checkpoints import store

  _, params = store.load_model(workdir)
  leaves = jax.tree_util.tree_flatten_with_path(params)[0]
  return {jax.tree_util.keystr(path): leaf.tobytes() for path, leaf in leaves}


class Program:
  """Calls `main` and takes apart what it wrote."""

  def __init__(self, capsys):
    self.capsys = capsys

  def run(self, *arguments):
    self.capsys.readouterr()
    code = main(['main.py', *map(str, arguments)])
    out, err = self.capsys.readouterr()
    return code, out, err

  def refusal(self, *arguments, code=2):
    found, out, err = self.run(*arguments)
    lines = err.splitlines()
    assert (found, out, len(lines)) == (code, '', 1), err
    assert lines[0].startswith('error: ')
    return lines[0].removeprefix('error: ')

  def figures(self, *arguments):
    code, out, err = self.run(*arguments)
    assert code == 0, err
    assert 'Traceback' not in err
    return json.loads(out.splitlines()[-1])
