"""The figures of a plan for a terminal."""

from typing import Any


def table(figures: dict[str, Any]) -> str:
  """The figures for people."""

  def gib(size: float) -> str:
    return f'{size / 2**30:.2f} GiB'

  kept, compiler, cost = (figures[k] for k in ('bytes_per_device', 'compiler', 'cost'))
  rows = [
    ('parameters', f'{figures["parameters"]:,}'),
    ('devices', f'{figures["devices"]} x {figures["chip"]}'),
    ('mesh', ', '.join(f'{k} {v}' for k, v in figures['mesh'].items())),
    *((f'{name}, per device', gib(size)) for name, size in kept.items()),
    ('peak, per device', gib(figures['peak_bytes'])),
    ('memory, per device', gib(figures['room']) if figures['room'] else 'not known'),
    ('FLOPs per token', f'{cost["flops_per_token"]:.4g}'),
    ('tokens per step', f'{cost["tokens_per_step"]:,}'),
  ]
  if compiler is not None:
    rows.insert(-3, ('temporaries, per device', gib(compiler['temporaries'])))
    for kind, entry in (compiler['collectives'] or {}).items():
      rows.append((f'{kind} in the program', f'{entry["count"]}'))
  if spoken := figures['communication']:
    rows += [
      ('collectives per step', f'{spoken["collectives_per_step"]:.1f}'),
      ('of them, per device', gib(spoken['bytes_per_step'])),
    ]
  if 'seconds_per_step' in cost:
    rows += [
      (f'seconds per step at MFU {cost["mfu"]:g}', f'{cost["seconds_per_step"]:.3g}'),
      (f'device-hours for {cost["tokens"]:.3g} tokens', f'{cost["device_hours"]:.4g}'),
    ]
  if found := figures['prediction']:
    each = ', '.join(f'{k} {v:.3g}' for k, v in found['milliseconds_of'].items())
    rows += [
      ('predicted ms per step', f'{found["milliseconds"]:.3g} ({each})'),
      ('predicted floor, ms per step', f'{found["floor_milliseconds"]:.3g}'),
      ('predicted tokens per second', f'{found["tokens_per_second"]:.4g}'),
      ('most bytes, of all that is moved', found['largest']['name'][-60:]),
    ]
  if 'price' in cost:
    rows.append(('price', f'{cost["price"]:.2f}'))
  verdict = {True: 'yes', False: 'no', None: 'not known'}[figures['fits']]
  rows.append(('fits', verdict))
  if figures['change']:
    change = ', '.join(f'{k} = {v}' for k, v in figures['change'].items())
    rows.append(('would fit with', change))
  width = max(len(name) for name, _ in rows)
  return '\n'.join(f'{name:{width}}  {value}' for name, value in rows)
