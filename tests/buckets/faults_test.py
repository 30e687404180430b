"""Servers of buckets that die, fail or are slow while a step is saved."""

import http.client
import http.server
import re
import threading
import time
import urllib.parse

import pytest

from tests import tiny_run
from tests.buckets.steps_test import steps_of
from tests.faults import starting

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]
VARIABLES = {'s3': 'AWS_ENDPOINT_URL', 'gs': 'STORAGE_EMULATOR_HOST'}


class Between:
  """A server that passes requests on to a real one, or does as `how` says.

  how: 'pass', 'slow' (50 ms later), 'fail' (answers 500) or 'dead' (closes without an
    answer).
  """

  def __init__(self, url):
    self.how, self.uploads = 'pass', 0
    self.when_uploaded = lambda path: None
    target, between = urllib.parse.urlsplit(url).netloc, self

    class Handler(http.server.BaseHTTPRequestHandler):
      protocol_version = 'HTTP/1.1'

      def answer(self):
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        if self.command in ('PUT', 'POST') and 'delete' not in self.path:
          between.uploads += 1
          between.when_uploaded(self.path + body[:500].decode('latin-1'))
        if between.how == 'dead':
          self.close_connection = True
          return
        if between.how == 'slow':
          time.sleep(0.05)
        if between.how == 'fail':
          status, headers, content = 500, [], b''
        else:
          status, headers, content = self.forward(body)
        self.send_response(status)
        for name, value in headers:
          if name.lower() not in ('content-length', 'transfer-encoding', 'connection'):
            self.send_header(name, value)
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        if self.command != 'HEAD':
          self.wfile.write(content)

      def forward(self, body):
        there = http.client.HTTPConnection(target)
        try:
          there.request(self.command, self.path, body, dict(self.headers))
          response = there.getresponse()
          return response.status, response.getheaders(), response.read()
        finally:
          there.close()

      do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

      def log_message(self, format, *args):
        pass

    self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    self.url = f'http://127.0.0.1:{self.server.server_port}'
    self.thread = threading.Thread(target=self.server.serve_forever)
    self.thread.start()

  def close(self):
    self.server.shutdown()
    self.thread.join()
    self.server.server_close()


@pytest.fixture
def between(cloud, monkeypatch, request):
  """Makes a bucket and the server between us and it, by scheme."""
  made = []

  def make(scheme):
    files, bucket = cloud(scheme)
    made.append(Between(request.getfixturevalue(f'{scheme}_server')))
    monkeypatch.setenv(VARIABLES[scheme], made[-1].url)
    return files, bucket, made[-1]

  yield make
  for server in made:
    server.close()


@pytest.fixture
def train(tmp_path):
  """Starts a training whose workdir is given; killed at the end of the test."""
  config = tiny_run.write_config(tmp_path)
  (tmp_path / 'cache').mkdir()
  (tmp_path / 'temporary').mkdir()
  processes = []

  def run(workdir):
    options = ('--config.train.num_steps=60', '--config.train.save_every=10')
    processes.append(
      starting.start(
        tmp_path / 'cache',
        *(f'--config={config}', f'--workdir={workdir}', *options),
        TMPDIR=str(tmp_path / 'temporary'),
      )
    )
    return processes[-1]

  yield run
  for process in processes:
    process.kill()
    process.communicate()


def ended(process):
  """Exit code, output and errors."""
  out, err = process.communicate(timeout=500)
  return process.returncode, out, err


# Cloud Storage is asked again for half a minute, by gcsfs itself.
@pytest.mark.parametrize(
  ('scheme', 'how'), [('s3', 'dead'), ('s3', 'fail'), ('gs', 'fail')]
)
def test_a_server_that_fails_during_a_save(between, tree, train, tmp_path, scheme, how):
  files, bucket, server = between(scheme)
  url = f'{bucket}/run'
  whole = train(tmp_path / 'whole')

  def break_down(path):
    if re.search(r'checkpoints(/|%2F)30(/|%2F)', path):
      server.how = how

  server.when_uploaded = break_down
  assert ended(whole)[0] == 0
  code, out, err = ended(train(url))
  # Meanwhile the lock may say that it could not be renewed.
  lines = [x for x in err.splitlines() if not x.startswith('WARNING the lock could')]
  assert (code in (2, 3), out, len(lines)) == (True, '', 1), err
  assert lines[0].startswith(f'error: {bucket}') and server.how == how
  server.when_uploaded, server.how = (lambda path: None), 'pass'
  _, complete = steps_of(tree(files, url))
  assert complete and complete <= {10, 20}
  code, _, err = ended(train(url))
  assert code == 0, err
  found, complete = steps_of(tree(files, url))
  assert found == complete == {50, 60}
  files.get(
    f'{url.partition("://")[2]}/model/', f'{tmp_path}/got/model/', recursive=True
  )
  same = tiny_run.model_bytes(tmp_path / 'got')
  assert same == tiny_run.model_bytes(tmp_path / 'whole')
  assert list((tmp_path / 'temporary').iterdir()) == []


@pytest.mark.parametrize('scheme', ['s3', 'gs'])
def test_a_slow_server(between, tree, train, scheme):
  files, bucket, server = between(scheme)
  server.how = 'slow'
  code, _, err = ended(train(f'{bucket}/run'))
  assert code == 0, err
  assert server.uploads > 20
  found, complete = steps_of(tree(files, f'{bucket}/run'))
  assert found == complete == {50, 60}
