"""The figures of a benchmark for a terminal."""

from typing import Any


def table(results: dict[str, Any]) -> str:
  """The figures for a terminal."""
  samplers = results['samplers']
  lines = [
    f'{"sampler":38} {"tokens/s":>9} {"evals":>6} {"tokens/eval":>11} '
    f'{"ms/step p50 p90":>17}  ratio'
  ]
  for name, row in samplers['rows'].items():
    ratio = row['ratio']
    lines.append(
      f'{name:38} {row["tokens_per_second"]:9.1f} {row["evaluations"]:6d} '
      f'{row["tokens_per_evaluation"]:11.2f} '
      f'{row["ms_per_step_p50"]:8.1f} {row["ms_per_step_p90"]:8.1f}  '
      f'{ratio["median"]:.3f} ({ratio["low"]:.3f} to {ratio["high"]:.3f})'
    )
  if not samplers['quiet']:
    lines.append('too noisy: the A/A ratio is off by more than 5 %')
  for name, row in results.get('training', {}).get('rows', {}).items():
    ratio = row['ratio']
    lines.append(
      f'{"training step, " + name:38} {row["tokens_per_second"]:9.1f} {"":36}  '
      f'{ratio["median"]:.3f} ({ratio["low"]:.3f} to {ratio["high"]:.3f})'
    )
  for name, curve in results.get('sweeps', {}).items():
    lines.append(
      f'time ~ {name} ^ {curve["exponent"]:.2f} (FLOPs ^ '
      f'{curve["exponent_of_flops"]:.2f}) over {curve["sizes"]}'
    )
  for name, figures in results.get('quality', {}).items():
    numbers = {k: v for k, v in figures.items() if isinstance(v, float)}
    measured = ', '.join(f'{k.replace("_", " ")} {v:.4g}' for k, v in numbers.items())
    lines.append(
      f'{name}: {measured} ({figures["samples"]} samples, noise {figures["noise"]}, '
      f'{figures["evaluations"]} evaluations)'
    )
  if 'memory' in results:
    memory = results['memory']
    lines.append(
      f'temporaries at {memory["shape"]}: {memory["ratio"]:.3f} of the straightforward '
      'sampler'
    )
  return '\n'.join(lines)
