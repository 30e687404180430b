"""Which URLs are paths: of a disk, or of a bucket."""

import re
import urllib.parse

from scmdm_jax.errors import BadInput

SCHEMES = ('gs', 's3')
# What may name a repository of the Hugging Face hub.
_SOURCES = ('checkpoint', 'judge', '--source')
_URL = re.compile(r'([A-Za-z][A-Za-z0-9+.-]*)://(.*)', re.DOTALL)


def is_bucket(path: str) -> bool:
  """Returns whether `path` is a URL of a bucket."""
  found = _URL.match(path)
  return found is not None and found[1] in SCHEMES


def accepted(name: str, value: str, *, bucket: bool = True) -> str:
  """Returns the value of an option or flag that may be a path.

  Args:
    name: of the option, for messages.
    value: a path; `file://` goes, other URLs are as they are.
    bucket: whether a path in a bucket is one here.

  Raises:
    BadInput: a URL that is none of these.
  """
  found = _URL.match(value)
  if found is None or (name in _SOURCES and found[1] == 'hf'):
    return value
  scheme, rest = found[1], found[2]
  if scheme == 'file' and rest.startswith(('/', 'localhost/')):
    return urllib.parse.unquote(rest.removeprefix('localhost'))
  if scheme == 'hf' and name in _SOURCES:
    return value
  if bucket and scheme in SCHEMES:
    if re.fullmatch(r'[^/]+(/.*)?', rest) and '//' not in rest:
      return value
    raise BadInput(f'{name}: found {value!r}; wanted {scheme}://BUCKET/PATH')
  wanted = 'gs://BUCKET/PATH, s3://BUCKET/PATH, file:///PATH or ' * bucket
  raise BadInput(f'{name}: found {value!r}; wanted {wanted}a path on this disk')
