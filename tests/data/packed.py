"""Every way in which a file may be packed, by the ending of its name."""

import bz2
import gzip
import lzma

import pyarrow as pa


def zstandard(data: bytes) -> bytes:
  sink = pa.BufferOutputStream()
  with pa.CompressedOutputStream(sink, 'zstd') as stream:
    stream.write(data)
  return sink.getvalue().to_pybytes()


def alone(data: bytes) -> bytes:
  return lzma.compress(data, lzma.FORMAT_ALONE)


# bgzip writes many members one after the other.
def members(data: bytes) -> bytes:
  half = len(data) // 2
  return gzip.compress(data[:half]) + gzip.compress(data[half:]) + gzip.compress(b'')


WAYS = {
  '': bytes,
  '.gz': gzip.compress,
  '.bgz': members,
  '.bz2': bz2.compress,
  '.xz': lzma.compress,
  '.lzma': alone,
  '.zst': zstandard,
}
