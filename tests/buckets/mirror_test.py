"""Objects, mirrors and locks, against an S3 server and a Cloud Storage server."""

import json
import subprocess
import sys
import threading
from typing import Any

import pytest

from scmdm_jax import files as written_files
from scmdm_jax.buckets import lock, mirror, paths, urls
from scmdm_jax.buckets.objects import Missing, Objects
from scmdm_jax.errors import BadInput, DamagedData

SCHEMES = ('s3', 'gs')


@pytest.mark.parametrize('scheme', SCHEMES)
def test_objects_are_written_whole_once_or_again(cloud, tree, scheme):
  files, bucket = cloud(scheme)
  objects = Objects(f'{bucket}/run')
  assert objects.list() == {}
  objects.write('a/b', b'one')
  first = objects.list()
  objects.write('a/b', b'two')
  second = objects.list()
  assert set(first) == {'a/b'} and first['a/b'].size == 3
  assert first['a/b'].tag != second['a/b'].tag
  assert objects.create('c', b'x') and not objects.create('c', b'y')
  assert tree(files, f'{bucket}/run') == {'a/b': b'two', 'c': b'x'}
  assert objects.read('nothing') is None
  objects.delete(['a/b', 'c'])
  objects.delete(['c'])
  assert objects.list() == {}
  with pytest.raises(Missing, match='no such bucket'):
    Objects(f'{scheme}://no-such-bucket/run').list()


@pytest.mark.parametrize('scheme', SCHEMES)
def test_a_mirror_brings_over_what_is_complete(cloud, tree, tmp_path, scheme):
  files, bucket = cloud(scheme)
  here, there = tmp_path / 'here', tmp_path / 'there'
  (here / 'checkpoints/2').mkdir(parents=True)
  (here / 'checkpoints/2/data').write_bytes(b'2' * 100)
  (here / 'checkpoints/4.orbax-checkpoint-tmp').mkdir()
  (here / 'checkpoints/4.orbax-checkpoint-tmp/data').write_bytes(b'4')
  (here / '.lock').write_bytes(b'')
  (here / 'metrics.jsonl').write_bytes(b'{"step": 1}\n')
  one = mirror.Mirror(Objects(f'{bucket}/run'), here)
  one.push()
  assert set(tree(files, f'{bucket}/run')) == {'metrics.jsonl'}
  # The manifest is what makes the step one.
  (here / 'checkpoints/2.digests.json').write_bytes(b'{}')
  one.push()
  step = {'checkpoints/2/data', 'checkpoints/2.digests.json'}
  assert set(tree(files, f'{bucket}/run')) == {'metrics.jsonl', *step}

  # A kill during the upload of a model and of a step leaves them without one.
  root = f'{bucket}/run'.partition('://')[2]
  files.pipe_file(f'{root}/model/model.json', b'{}')
  files.pipe_file(f'{root}/checkpoints/6/data', b'6')
  two = mirror.Mirror(Objects(f'{bucket}/run'), there)
  there.mkdir()
  two.pull()
  assert tree_of(there) == {
    'metrics.jsonl': b'{"step": 1}\n',
    'checkpoints/2/data': b'2' * 100,
    'checkpoints/2.digests.json': b'{}',
  }
  two.push()
  assert set(tree(files, f'{bucket}/run')) == {'metrics.jsonl', *step}
  # Retention: what goes here goes there.
  (there / 'checkpoints/2.digests.json').unlink()
  two.push()
  assert set(tree(files, f'{bucket}/run')) == {'metrics.jsonl'}


def tree_of(directory):
  found = (p for p in directory.rglob('*') if p.is_file())
  return {p.relative_to(directory).as_posix(): p.read_bytes() for p in found}


def test_a_manifest_is_the_first_to_go_and_the_last_to_come(tmp_path):
  calls = []

  class Recorder:
    def list(self):
      return {}

    def upload(self, directory, names):
      calls.extend(('put', name) for name in sorted(names))

    def delete(self, names):
      calls.extend(('delete', name) for name in sorted(names))

  (tmp_path / 'model').mkdir()
  for name in ('model/model.json', 'model/params', 'model/digests.json'):
    (tmp_path / name).write_text('1')
  recorder: Any = Recorder()
  one = mirror.Mirror(recorder, tmp_path)
  one.push()
  puts = [('put', 'model/model.json'), ('put', 'model/params')]
  assert calls == [*puts, ('put', 'model/digests.json')]
  calls.clear()
  # A new model in the place of the old one.
  (tmp_path / 'model/params').write_text('22')
  (tmp_path / 'model/digests.json').write_text('22')
  one.push()
  marker = 'model/digests.json'
  assert calls == [('delete', marker), ('put', 'model/params'), ('put', marker)]


@pytest.mark.parametrize('scheme', SCHEMES)
def test_one_of_two_runs_has_a_workdir(cloud, monkeypatch, scheme):
  monkeypatch.setattr(lock, 'BEAT', 0.05)
  _, bucket = cloud(scheme)
  objects = Objects(f'{bucket}/run')
  first = lock.Lock(objects)
  with pytest.raises(BadInput, match='another run is using it'):
    lock.Lock(objects)
  first.release()
  second = lock.Lock(objects)
  second.release()
  assert objects.list() == {}

  # Of many that begin at once, at most one has it.
  owners, refused = [], []

  def begin():
    try:
      owners.append(lock.Lock(objects))
    except BadInput:
      refused.append(1)

  threads = [threading.Thread(target=begin) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(owners) <= 1 and len(owners) + len(refused) == 4
  for owner in owners:
    owner.release()


def test_the_lock_of_a_dead_run_is_taken_over(cloud, monkeypatch, caplog):
  monkeypatch.setattr(lock, 'BEAT', 0.05)
  _, bucket = cloud('s3')
  objects = Objects(f'{bucket}/run')
  # Of this machine: nobody has that number any more.
  dead = subprocess.Popen([sys.executable, '-c', ''])
  dead.wait()
  gone = {**lock._here(), 'pid': dead.pid, 'started': '1', 'token': 'x'}
  objects.write('.lock/3', json.dumps(gone).encode())
  lock.Lock(objects).release()
  assert 'took over' in caplog.text and objects.list() == {}

  # Of another: once it is silent, not while it writes.
  monkeypatch.setattr(lock, 'PATIENCE', 0.5)
  elsewhere = {**gone, 'host': 'other'}
  objects.write('.lock/1', json.dumps(elsewhere).encode())
  stop = threading.Event()

  def beat():
    count = 0
    while not stop.wait(0.02):
      count += 1
      objects.write('.lock/1', json.dumps({**elsewhere, 'beat': count}).encode())

  thread = threading.Thread(target=beat)
  thread.start()
  with pytest.raises(BadInput, match='of other'):
    lock.Lock(objects)
  stop.set()
  thread.join()
  taken = lock.Lock(objects)
  # An owner that was only slow sees it, and writes nothing more.
  objects.create('.lock/9', b'{}')
  taken._thread.join(10)
  with pytest.raises(BadInput, match='taken the workdir over'):
    taken.check()
  taken.release()
  assert set(objects.list()) == {'.lock/2', '.lock/9'}


def test_paths_are_of_this_disk_or_of_a_bucket(tmp_path):
  assert urls.accepted('workdir', 'a/b:c') == 'a/b:c'
  assert urls.accepted('workdir', 'file:///a%20b/c') == '/a b/c'
  assert urls.accepted('workdir', 's3://b/c') == 's3://b/c'
  for url in ('File:///x', 'http://b/c', 'file://host/x', 's3:///c', 'gs://b//c'):
    with pytest.raises(BadInput, match='workdir: found'):
      urls.accepted('workdir', url)
  with pytest.raises(BadInput, match='a path on this disk'):
    urls.accepted('compilation_cache', 's3://b/c', bucket=False)
  assert paths.local_path(str(tmp_path)) == tmp_path


def test_copies_bear_the_name_of_what_they_are_of(cloud, tmp_path):
  files, bucket = cloud('s3')
  root = bucket.partition('://')[2]
  files.pipe_file(f'{root}/data/a.txt', b'abc')
  try:
    folder = paths.local_path(f'{bucket}/data')
    assert (folder / 'a.txt').read_bytes() == b'abc'
    assert paths.local_path(f'{bucket}/data/a.txt').read_bytes() == b'abc'
    assert paths.named(f'{folder}/a.txt: cut') == f'{bucket}/data/a.txt: cut'
    assert not paths.local_path(f'{bucket}/nothing').exists()
    # The same content has the same time: prepared data are found again by it.
    before = (folder / 'a.txt').stat().st_mtime_ns
    paths.forget()
    assert not folder.exists()
    again = paths.local_path(f'{bucket}/data')
    assert (again / 'a.txt').stat().st_mtime_ns == before
    kept = paths.local_directory(f'{bucket}/kept')
    (kept / 'b').mkdir()
    written_files.write_text(kept / 'b/c.txt', 'x')
    assert files.cat_file(f'{root}/kept/b/c.txt') == b'x'
  finally:
    paths.forget()
    written_files.listeners.clear()


def test_a_failing_server_is_one_line(monkeypatch, cloud):
  import http.server

  import fsspec

  class Fails(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      self.send_response(500)
      self.send_header('Content-Length', '0')
      self.end_headers()

    do_PUT = do_HEAD = do_POST = do_GET

    def log_message(self, format, *args):
      pass

  cloud('s3')
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Fails)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  monkeypatch.setenv('AWS_ENDPOINT_URL', f'http://127.0.0.1:{server.server_port}')
  fsspec.get_filesystem_class('s3').clear_instance_cache()
  try:
    with pytest.raises(DamagedData, match='s3://b/run: the server failed') as failed:
      Objects('s3://b/run').list()
    assert '\n' not in str(failed.value)
  finally:
    server.shutdown()
    server.server_close()
