"""Servers of S3 and of Cloud Storage on loopback, and an empty bucket in each."""

import http
import itertools
import logging
import os

import pytest

_numbers = itertools.count()
# Read when gcsfs is imported; its newer half speaks a protocol that the emulator lacks.
os.environ.setdefault('GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT', 'false')


@pytest.fixture(scope='session')
def s3_server():
  """The URL of an S3 server."""
  pytest.importorskip('s3fs', reason='the extra cloud is not installed')
  server = pytest.importorskip('moto.server').ThreadedMotoServer('127.0.0.1', 0)
  logging.getLogger('werkzeug').setLevel(logging.ERROR)
  server.start()
  host, port = server.get_host_and_port()
  yield f'http://{host}:{port}'
  server.stop()
  server._server.server_close()


@pytest.fixture(scope='session')
def gs_server():
  """The URL of a Cloud Storage server.

  The emulator does not know `ifGenerationMatch=0`, by which Cloud Storage writes only
  what is not there: that is added.
  """
  pytest.importorskip('gcsfs', reason='the extra cloud is not installed')
  objects = pytest.importorskip('gcp_storage_emulator.handlers.objects')
  server = pytest.importorskip('gcp_storage_emulator.server')
  insert = objects._multipart_upload

  def only_new(request, response, storage):
    name = request.data['meta']['name']
    if request.query.get('ifGenerationMatch') == ['0']:
      bucket = storage.objects.get(request.params['bucket_name'], {})
      if name in bucket:
        response.status = http.HTTPStatus.PRECONDITION_FAILED
        response.json({'error': {'code': 412, 'message': 'conditionNotMet'}})
        return
    insert(request, response, storage)

  objects._multipart_upload = only_new
  running = server.create_server('127.0.0.1', 0, in_memory=True)
  running.start()
  host, port = running._api._httpd.socket.getsockname()
  yield f'http://{host}:{port}'
  running.stop()
  objects._multipart_upload = insert


def close_all(scheme: str) -> None:
  """Closes the connections of every file system of `scheme`, and forgets them.

  What fsspec does itself when one is collected waits for a tenth of a second at most,
  or for nothing at all; sockets that are left open then warn in some later test.
  """
  import fsspec

  kind = fsspec.get_filesystem_class(scheme)
  for files in list(kind._cache.values()):
    if getattr(files, '_s3creator', None) is not None:
      end = files._s3creator.__aexit__
      fsspec.asyn.sync(files.loop, end, None, None, None)
    elif getattr(files, '_session', None) is not None:
      fsspec.asyn.sync(files.loop, files._session.close)
  kind.clear_instance_cache()


@pytest.fixture
def cloud(request, monkeypatch):
  """The file system of fsspec and the URL of an empty bucket, by scheme."""
  import fsspec

  def make(scheme: str):
    if scheme == 's3':
      monkeypatch.setenv('AWS_ENDPOINT_URL', request.getfixturevalue('s3_server'))
      monkeypatch.setenv('AWS_ACCESS_KEY_ID', 'key')
      monkeypatch.setenv('AWS_SECRET_ACCESS_KEY', 'secret')
      monkeypatch.setenv('AWS_DEFAULT_REGION', 'us-east-1')
      monkeypatch.setenv('AWS_MAX_ATTEMPTS', '1')
    else:
      url = request.getfixturevalue('gs_server')
      monkeypatch.setenv('STORAGE_EMULATOR_HOST', url)
    close_all(scheme)
    files = fsspec.filesystem(scheme, use_listings_cache=False)
    bucket = f'bucket-{next(_numbers)}'
    files.mkdir(bucket)
    return files, f'{scheme}://{bucket}'

  yield make
  for scheme in ('s3', 'gs'):
    close_all(scheme)


@pytest.fixture
def tree():
  """Reads what is below a URL: contents by name."""

  def read(files, url):
    root = url.partition('://')[2]
    return {
      name.removeprefix(f'{root}/'): files.cat_file(name) for name in files.find(root)
    }

  return read
