from scmdm_jax.runs import timing


def test_ratios_are_interleaved_and_summarised(monkeypatch):
  clock, calls = [0.0], []
  durations = {
    'a': iter([9.0, 9.0, 4.0, 6.0, 2.0]),
    'b': iter([9.0, 9.0, 2.0, 2.0, 2.0]),
  }
  monkeypatch.setattr(timing.time, 'perf_counter', lambda: clock[0])

  def run(name):
    def body():
      calls.append(name)
      clock[0] += next(durations[name])

    return body

  found = timing.interleaved_ratio(run('a'), run('b'), pairs=3)
  # The first two of each warm up and do not count; who goes first alternates.
  assert ''.join(calls) == 'abab' + 'ab' + 'ba' + 'ab'
  assert found == {'median': 2.0, 'low': 1.0, 'high': 3.0, 'pairs': 3}
