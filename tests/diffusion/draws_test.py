"""Draws against exact probabilities and plain NumPy; nuclei against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from scmdm_jax.diffusion import draws
from scmdm_jax.diffusion.masking import BANNED
from tests.compiling import quick_jit, split_key

# Failures of a right program: fewer than one run in a thousand over all tests here.
P_VALUE = 1e-5


@functools.partial(quick_jit, static_argnums=(2, 4, 5))
def draw_many(key, logits, count, temperature=1.0, top_p=1.0, noise='high'):
  """`count` draws from the one distribution given by `logits` [V]."""
  keys = jax.random.split(key, count)
  many = jnp.broadcast_to(logits, (count, logits.shape[-1]))
  many = draws.shape_logits(many, temperature, top_p)
  draw = draws.draw_in_float64 if noise == 'float64' else draws.draw_tokens
  return draw(keys, many, temperature)


quick_draw = quick_jit(draws.draw_tokens)


def assert_law(tokens, probs):
  """Chi-square of drawn tokens; rare ones, expected below 5, are taken together."""
  counts = np.bincount(np.ravel(tokens), minlength=len(probs))
  assert len(counts) == len(probs)
  assert np.all(counts[probs == 0] == 0)
  order = np.argsort(-probs)
  wanted, found = counts.sum() * probs[order], counts[order]
  common = max(int(np.sum(wanted >= 5)), 1)
  wanted = np.append(wanted[:common], wanted[common:].sum())
  found = np.append(found[:common], found[common:].sum())
  real = wanted > 0
  if real.sum() > 1:
    assert stats.chisquare(found[real], wanted[real]).pvalue > P_VALUE


def tempered(logits, temperature):
  """softmax(logits / temperature) in float64; greedy at 0."""
  if temperature == 0:
    return np.eye(len(logits))[np.argmax(logits)]
  scores = np.float64(logits) / temperature
  weights = np.where(logits > BANNED, np.exp(scores - scores.max()), 0)
  return weights / weights.sum()


@pytest.mark.parametrize(
  ('vocab', 'temperatures'),
  # Blocks of ceil(sqrt(V)): no remainder at 1 and 9, a last block of 1, 2 and 24.
  [(1, [1.0, 0.0]), (2, [1.0]), (3, [0.5]), (9, [2.0]), (11, [1.0, 0.0, 0.5, 2.0])],
)
def test_law(vocab, temperatures):
  logits = np.random.default_rng(vocab).standard_normal(vocab).astype(np.float32)
  for i, temperature in enumerate(temperatures):
    tokens = draw_many(jax.random.key(i), logits, 2**15, temperature)
    assert tokens.dtype == jnp.int32
    assert_law(tokens, tempered(logits, temperature))


def zipf(vocab, power=1.1):
  """Zipf's law in random order: frequent tokens are not neighbours."""
  probs = 1.0 / np.arange(1, vocab + 1) ** power
  return np.random.default_rng(1).permutation(probs / probs.sum())


def test_law_of_a_language():
  probs = zipf(1000)
  tokens = draw_many(jax.random.key(2), np.float32(np.log(probs)), 2**15)
  assert_law(tokens, probs)
  # The rare ones as a whole: 889 tokens, a fifth of the draws.
  tail = probs < 1e-3
  share = np.isin(tokens, np.flatnonzero(tail)).mean()
  wanted = probs[tail].sum()
  assert abs(share - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / tokens.size)


RARE = np.array([0.6, 0.4 - 1.65e-5, 0.0, 7.5e-6, 9e-6])


@pytest.mark.parametrize('noise', ['high', 'float64'])
@pytest.mark.slow
def test_rare_tokens_come_at_their_rate(noise):
  logits = np.float32(np.where(RARE > 0, np.log(np.maximum(RARE, 1e-38)), BANNED))
  with jax.enable_x64(noise == 'float64'):
    tokens = draw_many(jax.random.key(3), logits, 2**20, noise=noise)
  assert tokens.dtype == jnp.int32
  assert_law(tokens, RARE)
  # None of the rarest at all would have had a probability of 4e-4.
  assert np.all(np.bincount(tokens)[3:] > 0)


def test_float64_wants_64_bits():
  with pytest.raises(ValueError, match='enable_x64'):
    draws.draw_in_float64(split_key(jax.random.key(0), 1), jnp.zeros((1, 3)))


def block_totals(blocks, temperature):
  """T log sum exp(scores / T) of every block, float64."""
  if temperature == 0:
    return np.array([b.max() for b in blocks])
  return np.array([temperature * np.logaddexp.reduce(b / temperature) for b in blocks])


# A large vocabulary has blocks of every 1024th column.
@pytest.mark.parametrize('vocab', [1, 16, 23, 17_000, 17 * 1024])
@pytest.mark.slow
def test_equals_plain_gumbel_max_over_blocks(vocab):
  rng = np.random.default_rng(vocab)
  size, large = int(np.ceil(np.sqrt(vocab))), vocab > 2**14
  rows = 8 if large else 64
  logits = np.float32(2 * rng.standard_normal((rows, vocab)))
  logits[rng.random((rows, vocab)) < 0.3] = BANNED
  logits[:, vocab // 2] = 0.5
  keys = split_key(jax.random.key(4), rows)
  first, second = (1024, -(-vocab // 1024)) if large else (size, size)
  noise = quick_jit(
    jax.vmap(lambda key: jax.random.gumbel(key, (first + second,), mode='high'))
  )(keys)
  noise = np.float64(noise)
  columns = np.arange(vocab)
  blocks = columns % 1024 if large else columns // size
  for temperature in (0.0, 0.5, 1.0, 2.0):
    found = quick_draw(keys, logits, temperature)
    for n in range(rows):
      scores = np.where(logits[n] > BANNED, np.float64(logits[n]), -np.inf)
      parts = [scores[blocks == i] for i in range(blocks.max() + 1)]
      totals = block_totals(parts, temperature)
      block = np.argmax(totals + temperature * noise[n, : len(totals)])
      inside = noise[n, first : first + len(parts[block])]
      token = np.argmax(parts[block] + temperature * inside)
      assert found[n] == columns[blocks == block][token]


def test_law_of_a_large_vocabulary():
  probs = zipf(20_000)
  tokens = draw_many(jax.random.key(12), np.float32(np.log(probs)), 2**11)
  assert_law(tokens, probs)
  share = np.isin(tokens, np.flatnonzero(probs < 1e-4)).mean()
  wanted = probs[probs < 1e-4].sum()
  assert abs(share - wanted) < 4.5 * np.sqrt(wanted * (1 - wanted) / tokens.size)


@pytest.mark.parametrize('temperature', [0.0, 0.7])
def test_scores_of_strided_blocks_are_the_same_sliced_and_stacked(temperature):
  logits = jax.random.normal(jax.random.key(0), (3, 20_000)).at[:, 7::1024].set(BANNED)
  stacked = draws._stacked_scores(logits, temperature)
  # In float32 the order of 20 terms moves the last bits.
  np.testing.assert_allclose(
    draws._sliced_scores(logits, temperature, 1), stacked, rtol=1e-6
  )
  spread = np.asarray(logits, np.float64)
  for block in (0, 7, 999):
    column = spread[:, block::1024]
    expected = column.max(1)
    if temperature:
      expected = temperature * np.logaddexp.reduce(column / temperature, axis=1)
    np.testing.assert_allclose(stacked[:, block], expected, rtol=1e-5)


def test_float64_is_plain_gumbel_max():
  logits = np.float32(np.random.default_rng(5).standard_normal((32, 11)))
  with jax.enable_x64(True):
    keys = split_key(jax.random.key(5), 32)
    gumbel = quick_jit(jax.vmap(lambda k: jax.random.gumbel(k, (11,), jnp.float64)))
    noise = np.asarray(gumbel(keys))
    draw = quick_jit(draws.draw_in_float64)
    for temperature in (0.0, 0.7):
      # A traced float32 temperature must not round the noise.
      found = draw(keys, logits, np.float32(temperature))
      wanted = (np.float64(logits) + np.float32(temperature) * noise).argmax(-1)
      assert noise.dtype == np.float64
      assert np.array_equal(found, wanted)


@pytest.mark.parametrize('allowed', [0, 6, 10])
@pytest.mark.parametrize('temperature', [0.0, 1.0, 50.0])
def test_only_one_token_is_not_banned(allowed, temperature):
  logits = np.full(11, BANNED, np.float32)
  # Low, so that only the ban tells it apart.
  logits[allowed] = -1e4
  tokens = draw_many(jax.random.key(6), logits, 2**15, temperature)
  assert np.all(np.asarray(tokens) == allowed)
  nucleus = draw_many(jax.random.key(6), logits, 2**15, temperature, 0.65)
  assert np.all(np.asarray(nucleus) == allowed)


def test_all_probability_on_one_token():
  logits = np.zeros(11, np.float32)
  logits[7] = 1e4
  for temperature in (0.0, 1.0):
    tokens = draw_many(jax.random.key(7), logits, 2**15, temperature)
    assert np.all(np.asarray(tokens) == 7)


def test_banned_tokens_are_never_drawn():
  logits = np.float32(np.random.default_rng(8).standard_normal(23))
  # A whole block of 5, its neighbour's first, and the last, shorter block.
  banned = np.array([5, 6, 7, 8, 9, 10, 20, 21, 22])
  logits[banned] = BANNED
  for temperature in (0.5, 1.0, 2.0):
    tokens = draw_many(jax.random.key(8), logits, 2**15, temperature)
    assert not np.isin(tokens, banned).any()
    assert_law(tokens, tempered(logits, temperature))


def nucleus_np(probs, top_p):
  """The shortest list of most probable tokens that reaches `top_p`."""
  keep = np.zeros(probs.shape, bool)
  total = 0.0
  for token in np.argsort(-probs, kind='stable'):
    keep[token] = True
    total += probs[token]
    if total >= top_p:
      return keep
  return keep


quick_nucleus = quick_jit(draws.keep_nucleus)
TOP_P = [1e-9, 0.1, 0.5, 0.9, 0.999]


@pytest.mark.parametrize('top_p', TOP_P)
@pytest.mark.parametrize('vocab', [1, 2, 11, 257])
def test_nucleus(vocab, top_p):
  rng = np.random.default_rng(vocab)
  logits = (2 * rng.standard_normal((20, 3, vocab))).astype(np.float32)
  if vocab > 2:
    logits[..., 1] = BANNED
  probs = np.apply_along_axis(tempered, -1, logits, 1.0)
  wanted = np.apply_along_axis(nucleus_np, -1, probs, top_p)
  found = np.asarray(quick_nucleus(logits, top_p))
  assert np.array_equal(found > BANNED, wanted)
  assert np.array_equal(found[wanted], logits[wanted])
  assert np.all(wanted.sum(-1) >= 1)
  if top_p == 1e-9:
    assert np.all(wanted.sum(-1) == 1)


@pytest.mark.parametrize('top_p', TOP_P)
def test_nucleus_of_a_large_vocabulary(top_p):
  logits = 3 * np.random.default_rng(3).standard_normal((4, 50_257), np.float32)
  kept = np.asarray(quick_nucleus(logits, top_p)) > BANNED
  probs = np.apply_along_axis(tempered, -1, logits, 1.0)
  for row, p, keep in zip(logits, probs, kept, strict=True):
    assert row[keep].min() > row[~keep].max()
    # Float32 sums of 50,257 terms are good to about 1e-6.
    total = p[keep].sum()
    assert total - p[keep].min() - 2e-6 < top_p < total + 2e-6


@pytest.mark.parametrize('top_p', TOP_P)
@pytest.mark.parametrize('scale', [1e-30, 1.0, 100.0, 1e4, 1e20])
def test_nucleus_of_scores_of_any_size(scale, top_p):
  rng = np.random.default_rng(4)
  logits = np.float32(scale * rng.standard_normal((8, 33)))
  # The largest far above, as far below zero as others are above it, and about zero.
  logits[0, 5] = 50 * scale
  logits[1] -= 20 * np.float32(scale)
  logits[2, ::2] = -logits[2, 1]
  logits[3, :3] = 0.0, -0.0, 2e-38
  kept = np.asarray(quick_nucleus(logits, top_p)) > BANNED
  for row, keep in zip(logits, kept, strict=True):
    p = tempered(row, 1.0)
    above = np.array([p[row > score].sum() for score in row])
    clear = np.abs(above - top_p) > 1e-6
    assert np.array_equal(keep[clear], (above < top_p)[clear])
    assert keep[row.argmax()]


@pytest.mark.parametrize(
  ('top_p', 'least'), [(1e-9, 0.3), (0.1, 0.3), (0.5, 0.3), (0.65, 0.1), (0.95, 0.05)]
)
def test_nucleus_keeps_equals_together(top_p, least):
  # Whoever is as probable as the token that crosses the line stays with it.
  assert np.all(np.asarray(quick_nucleus(np.zeros((1, 8), np.float32), top_p)) == 0)
  probs = np.array([0.05, 0.3, 0.05, 0.3, 0.1, 0.1, 0.1])
  kept = np.asarray(quick_nucleus(np.float32(np.log(probs)), top_p)) > BANNED
  assert np.array_equal(kept, probs >= least)


@pytest.mark.parametrize('temperature', [1.0, 0.5])
def test_top_p_comes_after_the_temperature(temperature):
  probs = np.array([0.4, 0.3, 0.2, 0.1, 0.0])
  logits = np.float32([*np.log(probs[:4]), BANNED])
  law = tempered(logits, temperature)
  # 0.4 + 0.3 either way; at temperature 0.5: 0.53 + 0.30.
  keep = nucleus_np(law, 0.65)
  assert keep.sum() == 2
  tokens = draw_many(jax.random.key(9), logits, 2**15, temperature, 0.65)
  assert_law(tokens, np.where(keep, law, 0) / law[keep].sum())


@pytest.mark.parametrize(
  ('temperature', 'top_p'), [(3.0, 1e-9), (3.0, 1e-300), (0.0, 0.7)]
)
def test_a_tiny_nucleus_or_temperature_is_greedy(temperature, top_p):
  logits = np.float32(np.random.default_rng(10).standard_normal((64, 11)))
  logits[:, 3] = BANNED
  # Two that differ by one rounding, which no division may confuse.
  logits[:, 5] = logits.max(-1) + 0.1
  logits[:, 9] = np.nextafter(logits[:, 5], np.float32(9))
  shaped = quick_jit(draws.shape_logits, static_argnums=2)(logits, temperature, top_p)
  keys = split_key(jax.random.key(11), 64)
  found = quick_draw(keys, shaped, temperature)
  if temperature == 0:
    assert np.array_equal(found, logits.argmax(-1))
  assert np.all(np.asarray(found) >= 5)


def test_the_nucleus_of_a_greedy_draw_is_that_of_temperature_1():
  logits = np.float32(np.random.default_rng(12).standard_normal((8, 11)))
  shape = quick_jit(draws.shape_logits, static_argnums=2)
  assert np.array_equal(shape(logits, 0.0, 0.8), shape(logits, 1.0, 0.8))
  assert np.any(np.asarray(shape(logits, 0.0, 0.8)) != shape(logits, 0.01, 0.8))


@functools.partial(quick_jit, static_argnums=(2, 4))
def draw_jointly(key, logits, count, reveal, mask_id, temperature=1.0):
  keys = jax.random.split(key, count)
  many = jnp.broadcast_to(logits, (count, logits.shape[-1]))
  return draws.draw_jointly(keys, many, temperature, reveal, mask_id)


@pytest.mark.parametrize('temperature', [1.0, 0.5])
def test_joint_law_of_common_tokens(temperature):
  logits = np.float32([1.0, 0.0, BANNED, -1.0, 0.5])
  tokens = draw_jointly(jax.random.key(13), logits, 2**15, 0.3, 2, temperature)
  law = 0.3 * tempered(logits, temperature)
  law[2] = 0.7
  assert_law(tokens, law)


def test_joint_draw_at_the_ends():
  logits = np.float32([1.0, 0.0, BANNED, -1.0, 0.5])
  all_revealed = np.asarray(draw_jointly(jax.random.key(14), logits, 4096, 1.0, 2))
  assert_law(all_revealed, tempered(logits, 1.0))
  none = np.asarray(draw_jointly(jax.random.key(14), logits, 4096, 0.0, 2))
  assert np.all(none == 2)


def lost_share(a):
  """What is left of a rate of a 2^-23 in a joint draw with 23 random bits.

  The winning noise of the mask is exponential, E; of the 2^23 values of the token's,
  floor(a E) are smaller.
  """
  return 1 / (a * np.expm1(1 / a))


# Only noise among the TOP largest of its 2^23 values can make the rare token win.
TOP = 128


def few_bits(keys_seen):
  """`jax.random.gumbel` with the rare last column's noise among the TOP largest."""

  def gumbel(key, shape, dtype, mode):
    keys_seen.append(mode)
    (vocab,) = shape
    bits = jax.random.bits(key, (vocab,)) >> 9
    last = (1 << 23) - 1 - bits[-1] % TOP
    u = bits.at[-1].set(last).astype(dtype) * dtype(2**-23)
    return -jnp.log(-jnp.log(jnp.maximum(u, jnp.finfo(dtype).tiny)))

  return gumbel


def test_low_noise_has_23_bits():
  # What `few_bits` stands for, and that 'high' has more.
  sizes = (2**10, 2**10)
  for mode, on_lattice in [('low', True), ('high', False)]:
    gumbel = quick_jit(lambda key, mode=mode: jax.random.gumbel(key, sizes, mode=mode))
    noise = np.float64(gumbel(jax.random.key(15)))
    # exp(-noise) is -log(u); noise of about 12 is rounded by up to 1e-6.
    steps = -np.expm1(-np.exp(-noise[noise > 11])) * 2**23
    assert len(steps) > 10
    gap = np.abs(steps - np.round(steps)) / (2e-6 * steps)
    assert (gap.max() < 1) == on_lattice


def test_the_joint_draw_loses_rare_tokens_as_the_closed_form_says(monkeypatch):
  # Rates of about 1e-7 would take 10^9 draws: the rare token's noise is drawn among
  # the 128 largest values, and only there can it win.
  modes = []
  monkeypatch.setattr(jax.random, 'gumbel', few_bits(modes))
  count, reveal = 2**17, 1e-3
  found, wanted = [], []
  draw = quick_jit(
    lambda keys, logits: jax.vmap(
      lambda k, x: draws.draw_jointly(k[None], x[None], 1.0, reveal, 1)[0], (0, None)
    )(keys, logits)
  )
  for i, a in enumerate([0.25, 0.5, 1.0, 2.0, 4.0]):
    p = a * 2**-23 / reveal
    logits = np.float32([np.log(0.7 - p), BANNED, np.log(0.3), np.log(p)])
    keys = split_key(jax.random.key(16 + i), count)
    wins = int(np.sum(np.asarray(draw(keys, logits)) == 3))
    expected = count * a * lost_share(a) / TOP
    found.append(wins)
    wanted.append(expected)
    assert abs(wins - expected) < 4 * np.sqrt(expected)
    # Far from the rate that the model asks for: 1024 a.
    assert wins < count * a / TOP - 4 * np.sqrt(expected)
  assert set(modes) == {'low'}
  # The revealed are too few: all tokens of one rate, so the share is that of all.
  assert sum(found) < 0.85 * count * 7.75 / TOP


@pytest.mark.long
def test_the_joint_draw_reveals_too_few():
  # 4096 equal tokens at a rate of 2^-24 each: of 32 revealed 10 are left.
  vocab, reveal, rows = 4096, 2.0**-12, 2**11
  logits = jnp.zeros(vocab + 1).at[0].set(BANNED)

  @jax.jit
  def count(key):
    def batch(total, key):
      tokens = draw_jointly.__wrapped__(key, logits, rows, reveal, 0)
      return total + jnp.sum(tokens != 0), None

    return jax.lax.scan(batch, 0, jax.random.split(key, 2**17 // rows))[0]

  revealed, exact = int(count(jax.random.key(21))), 32
  wanted = exact * lost_share(0.5)
  assert abs(revealed - wanted) < 4 * np.sqrt(wanted)
  # P(Poisson(32) <= 22) = 0.04; what is found lies far lower.
  assert stats.poisson.cdf(revealed, exact) < 1e-3
