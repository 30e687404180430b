"""GGUF files written byte by byte from the format's description, honest or not."""

import math
import struct

import numpy as np

UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 4, 5, 6, 7, 8, 9, 10
_CODES = {UINT32: '<I', INT32: '<i', FLOAT32: '<f', BOOL: '<?', UINT64: '<Q'}
F32, F16, Q4_0, Q4_1, Q8_0, Q8_1, BF16 = 0, 1, 2, 3, 8, 9, 30
_BLOCKS = {F32: (1, 4), F16: (1, 2), BF16: (1, 2), Q8_0: (32, 34), Q8_1: (32, 40)}

VOCAB, WIDTH, BLOCKS, HEADS, KV_HEADS, MLP = 12, 16, 2, 4, 2, 32
THETA, EPS = 5000.0, 1e-5
TOKENS = ['<end>', 'a', 'b', 'c', 'Ġ', '1', '2', 'ab', 'Ġab', '<say>', '[PAD10]', 'd']
TYPES = [3, 1, 1, 1, 1, 1, 1, 1, 1, 4, 5, 1]
MERGES = ['a b', 'Ġ ab']


def string(text):
  data = text if isinstance(text, bytes) else text.encode()
  return struct.pack('<Q', len(data)) + data


def value(kind, x):
  return string(x) if kind == STRING else struct.pack(_CODES[kind], x)


def array(kind, values):
  head = struct.pack('<IQ', kind, len(values))
  return head + b''.join(value(kind, x) for x in values)


def field(name, kind, x):
  """One entry of the header; `kind` is a number, or (ARRAY, number)."""
  if isinstance(kind, tuple):
    return string(name) + struct.pack('<I', ARRAY) + array(kind[1], x)
  return string(name) + struct.pack('<I', kind) + value(kind, x)


def info(name, shape, kind, offset):
  dims = struct.pack(f'<{len(shape)}Q', *reversed(shape))
  return (
    string(name)
    + struct.pack('<I', len(shape))
    + dims
    + struct.pack('<IQ', kind, offset)
  )


def header(fields=(), infos=(), *, version=3, num_fields=None, num_tensors=None):
  """All before the padding; counts as given, else the true ones."""
  num_fields = len(fields) if num_fields is None else num_fields
  num_tensors = len(infos) if num_tensors is None else num_tensors
  start = b'GGUF' + struct.pack('<IQQ', version, num_tensors, num_fields)
  return start + b''.join(fields) + b''.join(infos)


def pad(data, alignment=32):
  return data + b'\0' * (-len(data) % alignment)


def file(fields, tensors):
  """A whole file of fields and {name: (shape, kind, bytes)}."""
  infos, body = [], b''
  for name, (shape, kind, data) in tensors.items():
    infos.append(info(name, shape, kind, len(body)))
    body += pad(data)
  return pad(header(fields, infos)) + body


def plain(x):
  return x.shape, F32, x.astype('<f4').tobytes()


def llama_fields(architecture='llama', **changed):
  """What a causal model's file says of itself; None leaves a field out."""
  a = f'{architecture}.'
  entries = {
    'general.architecture': (STRING, architecture),
    'general.name': (STRING, 'tiny'),
    a + 'context_length': (UINT32, 24),
    a + 'embedding_length': (UINT32, WIDTH),
    a + 'block_count': (UINT32, BLOCKS),
    a + 'feed_forward_length': (UINT32, MLP),
    a + 'attention.head_count': (UINT32, HEADS),
    a + 'attention.head_count_kv': (UINT32, KV_HEADS),
    a + 'attention.layer_norm_rms_epsilon': (FLOAT32, EPS),
    a + 'rope.freq_base': (FLOAT32, THETA),
    a + 'rope.dimension_count': (UINT32, WIDTH // HEADS),
    'tokenizer.ggml.model': (STRING, 'gpt2'),
    'tokenizer.ggml.pre': (STRING, 'smollm'),
    'tokenizer.ggml.tokens': ((ARRAY, STRING), TOKENS),
    'tokenizer.ggml.token_type': ((ARRAY, INT32), TYPES),
    'tokenizer.ggml.merges': ((ARRAY, STRING), MERGES),
    'tokenizer.ggml.bos_token_id': (UINT32, 0),
    'tokenizer.ggml.eos_token_id': (UINT32, 0),
    'tokenizer.ggml.add_bos_token': (BOOL, False),
  }
  entries |= changed
  return [field(name, *entry) for name, entry in entries.items() if entry]


def hugging_face_tensors(seed=0, *, biases=False):
  """Random float32 tensors of the tiny model by Hugging Face's names."""
  rng = np.random.default_rng(seed)
  kv = WIDTH // HEADS * KV_HEADS
  shapes = {'model.embed_tokens.weight': (VOCAB, WIDTH), 'model.norm.weight': (WIDTH,)}
  for i in range(BLOCKS):
    p = f'model.layers.{i}.'
    rows = {'q': WIDTH, 'k': kv, 'v': kv, 'o': WIDTH}
    shapes |= {f'{p}self_attn.{n}_proj.weight': (r, WIDTH) for n, r in rows.items()}
    if biases:
      shapes |= {f'{p}self_attn.{n}_proj.bias': (rows[n],) for n in 'qkv'}
    shapes |= {
      f'{p}input_layernorm.weight': (WIDTH,),
      f'{p}post_attention_layernorm.weight': (WIDTH,),
      f'{p}mlp.gate_proj.weight': (MLP, WIDTH),
      f'{p}mlp.up_proj.weight': (MLP, WIDTH),
      f'{p}mlp.down_proj.weight': (WIDTH, MLP),
    }
  shapes['lm_head.weight'] = (VOCAB, WIDTH)
  return {n: rng.normal(size=s).astype(np.float32) * 0.4 for n, s in shapes.items()}


def interleaved(x, heads):
  """Rows of q or k in GGUF's order: components k and k + K/2 become neighbours."""
  size = len(x) // heads
  out = np.empty_like(x)
  for head in range(heads):
    for k in range(size // 2):
      for half in range(2):
        out[head * size + 2 * k + half] = x[head * size + k + half * size // 2]
  return out


_LAYERS = {
  'input_layernorm': 'attn_norm',
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.o_proj': 'attn_output',
  'post_attention_layernorm': 'ffn_norm',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
  'embed_tokens': 'token_embd',
  'norm': 'output_norm',
  'lm_head': 'output',
}


def gguf_name(name):
  *path, parameter = name.removeprefix('model.').split('.')
  block = f'blk.{path[1]}.' if path[0] == 'layers' else ''
  return f'{block}{_LAYERS[".".join(path[2:] if block else path)]}.{parameter}'


def tensors(hugging_face, architecture='llama'):
  """The tensors as the file holds them, all float32."""
  found = {}
  for name, x in hugging_face.items():
    if architecture == 'llama' and 'q_proj' in name:
      x = interleaved(x, HEADS)
    if architecture == 'llama' and 'k_proj' in name:
      x = interleaved(x, KV_HEADS)
    found[gguf_name(name)] = plain(x)
  return found


def llama(architecture='llama', seed=0, **changed):
  """A whole tiny model file."""
  weights = hugging_face_tensors(seed, biases=architecture == 'qwen2')
  return file(llama_fields(architecture, **changed), tensors(weights, architecture))


def zeros(shape, kind):
  block, size = _BLOCKS[kind]
  return shape, kind, bytes(math.prod(shape) // block * size)
