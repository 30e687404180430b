"""Sources on the hub: the real library, a server on this machine, and the cache."""

import hashlib
import http.server
import json
import pathlib
import threading

import jax
import numpy as np
import pytest

from scmdm_jax.checkpoints import hub, store
from scmdm_jax.errors import BadInput
from scmdm_jax.runs import converting

constants = pytest.importorskip('huggingface_hub.constants')
BASE = pathlib.Path(__file__).parents[2] / 'scmdm_jax' / 'assets' / 'qm9_base'
COMMIT = '5f0b02c75b57c5855da9ae460ce51323ea669d8a'
UNASKED = {
  'modeling.py': b'raise SystemExit',
  'pytorch_model.bin': b'pickle',
  'original/consolidated.safetensors': b'again',
}


@pytest.fixture
def served(tmp_path, monkeypatch):
  """A hub with one repository; yields the paths that were asked of it."""
  files = {p.name: p.read_bytes() for p in BASE.iterdir() if p.is_file()} | UNASKED
  asked = []

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
      self.answer(with_body=False)

    def do_GET(self):
      self.answer(with_body=True)

    def answer(self, with_body):
      path = self.path.partition('?')[0]
      asked.append(path)
      listing = {
        'id': 'somebody/molecules',
        'sha': COMMIT,
        'siblings': [{'rfilename': name} for name in files],
      }
      name = path.removeprefix(f'/somebody/molecules/resolve/{COMMIT}/')
      headers = {'X-Repo-Commit': COMMIT}
      if path.startswith('/api/models/somebody/molecules/revision/'):
        known = path.rsplit('/', 1)[1] in ('main', 'v1', COMMIT)
        body = json.dumps(listing).encode() if known else b''
        if not known:
          headers |= {'X-Error-Code': 'RevisionNotFound'}
        self.send_response(200 if known else 404)
      elif path == f'/api/models/somebody/molecules/tree/{COMMIT}':
        tree = [
          {
            'type': 'file',
            'path': name,
            'size': len(content),
            'oid': hashlib.sha1(content).hexdigest(),
          }
          for name, content in files.items()
        ]
        body = json.dumps(tree).encode()
        self.send_response(200)
      elif name in files:
        body = files[name]
        headers |= {'ETag': f'"{hashlib.sha256(body).hexdigest()}"'}
        self.send_response(200)
      else:
        body = b''
        headers |= {'X-Error-Code': 'RepoNotFound'}
        self.send_response(404)
      for key, value in (headers | {'Content-Length': str(len(body))}).items():
        self.send_header(key, value)
      self.end_headers()
      if with_body:
        self.wfile.write(body)

    def log_message(self, *args):
      pass

  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  endpoint = f'http://127.0.0.1:{server.server_port}'
  monkeypatch.setattr(constants, 'ENDPOINT', endpoint)
  monkeypatch.setattr(
    constants,
    'HUGGINGFACE_CO_URL_TEMPLATE',
    endpoint + '/{repo_id}/resolve/{revision}/{filename}',
  )
  monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setattr(constants, 'HF_HUB_DISABLE_PROGRESS_BARS', True)
  monkeypatch.setattr(constants, 'HF_HUB_DISABLE_XET', True)
  yield asked
  server.shutdown()
  thread.join()
  server.server_close()


def test_a_repository_is_fetched_and_written_down(served, tmp_path, monkeypatch):
  source = 'hf://somebody/molecules@v1'
  converting.import_model(source, str(tmp_path / 'fetched'))
  converting.import_model(str(BASE), str(tmp_path / 'local'))
  found, origin = (
    store.load_model(tmp_path / 'fetched'),
    store.open_model(tmp_path / 'fetched').extra,
  )
  jax.tree.map(
    np.testing.assert_array_equal, found[1], store.load_model(tmp_path / 'local')[1]
  )
  assert origin['imported_from'] == source
  assert origin['hub']['revision'] == COMMIT
  weights = hashlib.sha256((BASE / 'model.safetensors').read_bytes()).hexdigest()
  assert origin['hub']['files']['model.safetensors'] == weights
  # No code, no pickles, no weights in folders.
  assert not [path for path in served for name in UNASKED if path.endswith(name)]
  assert any(path.endswith('model.safetensors') for path in served)
  # What is in the cache is not fetched again, as offline; in the library's own layout.
  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
  before = len(served)
  assert hub.snapshot(source).name == COMMIT
  assert len(served) == before


@pytest.mark.parametrize(
  ('source', 'message'),
  [
    ('hf://molecules', 'wanted hf://owner/name or hf://owner/name@revision'),
    ('hf://somebody/../etc', 'wanted hf://owner/name'),
    ('hf://somebody/molecules@v2', r'cannot be fetched \(RevisionNotFoundError'),
    ('hf://nobody/nothing', r'cannot be fetched \(RepositoryNotFoundError'),
  ],
)
def test_what_is_not_there_is_one_line(served, source, message):
  with pytest.raises(BadInput, match=message) as refused:
    hub.snapshot(source)
  assert '\n' not in str(refused.value)
