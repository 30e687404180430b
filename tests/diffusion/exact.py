"""Exact answers by enumeration, for vocabularies and lengths of two or three."""

import itertools

import numpy as np

from tests.diffusion import toys


def posterior_table(joint):
  """log p(x_0^i | visible tokens) of a joint law [K, ..., K] over L clean tokens.

  Token K is the mask. Returns float32 [K + 1, ..., K + 1, L, K + 1].
  """
  length, clean = joint.ndim, joint.shape[0]
  table = np.full((*[clean + 1] * length, length, clean + 1), -1e30, np.float32)
  for x_t in itertools.product(range(clean + 1), repeat=length):
    visible = tuple(slice(None) if v == clean else slice(v, v + 1) for v in x_t)
    seen = joint[visible]
    for i in range(length):
      others = tuple(j for j in range(length) if j != i)
      marginal = seen.sum(others) / seen.sum()
      tokens = range(clean) if x_t[i] == clean else [x_t[i]]
      for token, p in zip(tokens, marginal, strict=True):
        table[x_t][i, token] = np.log(p)
  return table


def table_network(table):
  """Looks its prediction up by the whole sequence; blind to the signal."""
  length, vocab = table.shape[-2:]
  return toys.Toy(
    lambda x_t, signal, sigma: table[tuple(x_t[:, i] for i in range(length))],
    lambda hidden: hidden,
    lambda probs: probs,
    vocab,
  )


def random_joint(seed, clean, length):
  joint = np.random.default_rng(seed).random((clean,) * length) ** 3 + 0.02
  return joint / joint.sum()


def masked_loss(table, x_0, alpha):
  """E[sum over masked of -log p(x_0 | x_t)] over all mask sets; `alpha` [N] -> [N]."""
  length, vocab = table.shape[-2:]
  total = np.zeros_like(alpha)
  for hidden in itertools.product([False, True], repeat=length):
    x_t = tuple(vocab - 1 if h else int(v) for h, v in zip(hidden, x_0, strict=True))
    nll = sum(-float(table[x_t][i, x_0[i]]) for i in range(length) if hidden[i])
    total += (1 - alpha) ** sum(hidden) * alpha ** (length - sum(hidden)) * nll
  return total


def integrate(function, low, high, nodes=400):
  """Gauss-Legendre on [low, high]."""
  x, w = np.polynomial.legendre.leggauss(nodes)
  half = (high - low) / 2
  return half * np.sum(w * function(low + half * (x + 1)))


def chain_paths(network, x_0, alphas, mask_id, self_conditioning=True):
  """Every order in which the T steps can reveal `x_0`, with the carried signal.

  Yields (forward, bound, reverse): the probability of the path under the forward
  process, its sum of KL terms, and the probability that the sampler takes it and ends
  in `x_0`. `network` is a NumPy one, `alphas` [T + 1] rises from 0 to 1.
  """
  length, num_steps = len(x_0), len(alphas) - 1
  for path in itertools.product(range(num_steps), repeat=length):
    forward, bound, reverse = 1.0, 0.0, 1.0
    signal = np.zeros((1, length, network.signal_dim), np.float32)
    for step in range(num_steps):
      alpha_t, alpha_s = alphas[step], alphas[step + 1]
      reveal = (alpha_s - alpha_t) / (1 - alpha_t)
      x_t = [v if at < step else mask_id for v, at in zip(x_0, path, strict=True)]
      # The schedule's own alpha at t = 1 is eps, where the chain has 0.
      sigma = np.float32([-np.log(max(alpha_t, 1e-3))])
      hidden = network.encode(np.array([x_t]), signal, sigma)
      probs = toys.softmax_np(network.logits(hidden), mask_id)
      for i, at in enumerate(path):
        p = probs[0, i, x_0[i]]
        if at == step:
          reverse *= reveal * p
          forward *= alpha_s - alpha_t
        elif at > step:
          reverse *= 1 - reveal
        if at >= step:
          bound -= reveal * np.log(p)
      if self_conditioning:
        masked = np.array([x_t])[..., None] == mask_id
        signal = np.where(masked, network.signal(probs), signal).astype(np.float32)
    yield forward, bound, reverse
