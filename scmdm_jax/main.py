"""`python -m scmdm_jax.main --config=FILE --workdir=DIR --mode=...`.

  --config=FILE[:ARG]    the run: a Python file whose get_config() returns the options
  --config.NAME=VALUE    another value for one of them, as in --config.train.num_steps=9
  --workdir=DIR          where the run lives; the same command again resumes it
  --mode=MODE            train, sample, evaluate, compare, benchmark, plan, judge,
                         import, export or verify, instead of the config's own
  --source=PATH          import, export: what to convert; verify: what to check; none of
                         these modes needs a --config; judge: a file of texts
  --reference=FILE.npz   verify: input_ids [B, L] and logits [B, L, V] made elsewhere
  --tolerance=X          verify: largest difference of a logit (default 1e-3)

The last line on standard output is one JSON object with the main figures of the mode.
Exit codes: 1 for a verdict of no ("ok": false); and, each with one line on standard
error, 2 for a mistake in what was asked, 3 for damaged data, 4 when another process of
the run was lost, 75 when SIGTERM stopped it. After 4 and 75 the same command resumes.

Started several times with the variables of `parallel/joining`, the processes are one
run, and the first of them writes.
"""

import difflib
import importlib
import json
import logging
import math
import sys
from contextlib import nullcontext
from typing import Any

from scmdm_jax import command_line
from scmdm_jax.command_line import Options
from scmdm_jax.data import journal
from scmdm_jax.errors import BadInput, PeerLost, Stopped, first_line

# Modes that ask now and then whether to stop; SIGTERM simply ends the others.
_ASK = ('train', 'sample', 'evaluate', 'judge', 'compare', 'benchmark')
# Modes that several processes do together.
_SHARED = ('train', 'sample', 'evaluate')


def _convert(mode: str, options: Options) -> dict:
  from scmdm_jax.processes import stopping
  from scmdm_jax.runs import converting
  from scmdm_jax.verbs import export

  for name in ('source', 'workdir'):
    if not getattr(options, name):
      raise BadInput(f'--{name}: not given; --mode={mode} wants --source and --workdir')
  do = converting.import_model if mode == 'import' else export.export_model
  with stopping.unwinding():
    return {'mode': mode, **do(options.source, options.workdir)}


def _verify(options: Options) -> dict:
  from scmdm_jax.verbs import verify

  if not options.source:
    raise BadInput('--source: not given; --mode=verify wants the path of a checkpoint')
  if not options.reference:
    if options.tolerance:
      raise BadInput('--tolerance: given without --reference, whose logits it is for')
    return {'mode': 'verify', **verify.verify(options.source)}
  try:
    tolerance = float(options.tolerance or verify.TOLERANCE)
  except ValueError:
    tolerance = -1.0
  if not 0 <= tolerance < math.inf:
    raise BadInput(f'--tolerance: found {options.tolerance!r}; wanted a number from 0')
  figures = verify.compare(options.source, options.reference, tolerance)
  return {'mode': 'verify', **figures}


def _refuse(options: Options, unused: tuple[str, ...], mode: str) -> None:
  """Refuses a flag that the mode would not look at."""
  for name in unused:
    if getattr(options, name):
      raise BadInput(f'--{name}: given with --mode={mode}, which takes none')


def _run(options: Options) -> dict | None:
  """Runs the mode and returns its main figures; of several processes the first does."""
  from scmdm_jax.settings import options as run_options
  from scmdm_jax.settings import resolve

  if options.mode and options.mode not in run_options.MODES:
    near = difflib.get_close_matches(options.mode, run_options.MODES, n=1)
    hint = f'; did you mean {near[0]}?' if near else ''
    raise BadInput(
      f'--mode: found {options.mode!r}; wanted one of '
      f'{", ".join(run_options.MODES)}{hint}'
    )
  if options.mode in ('import', 'export'):
    _refuse(options, ('reference', 'tolerance'), options.mode)
    return _convert(options.mode, options)
  if options.mode == 'verify':
    return _verify(options)
  if options.config is None:
    raise BadInput('--config: not given; wanted a file such as configs/quickstart.py')
  if options.mode:
    with options.config.unlocked():
      options.config.mode = options.mode
  settings = resolve.resolve(options.config)
  if settings.mode in ('import', 'export'):
    _refuse(options, ('reference', 'tolerance'), settings.mode)
    return _convert(
      settings.mode, options._replace(workdir=options.workdir or settings.workdir)
    )
  if settings.mode == 'verify':
    return _verify(options)
  unused = ('reference', 'tolerance')
  if settings.mode != 'judge':
    unused = ('source', *unused)
  _refuse(options, unused, settings.mode)

  from scmdm_jax.processes import multihost, stopping
  from scmdm_jax.runs import compilation_cache, workdir

  path = options.workdir or settings.workdir
  # One file per verb: verbs/train.py runs --mode=train.
  mode = importlib.import_module(f'scmdm_jax.verbs.{settings.mode}')
  compilation_cache.use(settings.compilation_cache)
  asks = settings.mode in _ASK
  with stopping.listening() if asks else nullcontext(), multihost.joined():
    multihost.same_everywhere(workdir.identity(path, settings))
    if multihost.count() > 1 and settings.mode not in _SHARED:
      raise multihost.CommonMistake(
        f'--mode={settings.mode}: found {multihost.count()} processes; wanted one'
      )
    with workdir.opened(path, settings) as directory:
      source = (options.source,) if settings.mode == 'judge' else ()
      figures = mode.run(settings, directory, *source)
      return figures if multihost.index() == 0 else None


def main(argv: list[str]) -> int:
  """Returns the exit code: 0, 1 for a verdict of no, or that of the error."""
  logging.basicConfig(level=logging.WARNING, format='%(levelname)s %(message)s')
  # Libraries report there, at length, what the one line of an error says.
  logging.getLogger('absl').setLevel(logging.ERROR)
  logging.getLogger('asyncio').setLevel(logging.CRITICAL)
  try:
    options = command_line.parse(argv)
    if options.help:
      print(__doc__)
      return 0
    figures = _run(options)
    if figures is None:
      return 0
    journal.say()
    print(json.dumps(figures), flush=True)
  except (BadInput, PeerLost) as e:
    print(f'error: {" ".join(str(e).splitlines())}', file=sys.stderr)
    return e.exit_code
  except Stopped as e:
    print(e, file=sys.stderr)
    return e.exit_code
  except (OSError, MemoryError) as e:
    print(
      f'error: {type(e).__name__}: {" ".join(str(e).splitlines())}', file=sys.stderr
    )
    return 3
  except RuntimeError as e:  # JAX's own are of this type; it is not imported here.
    if 'RESOURCE_EXHAUSTED' not in str(e):
      raise
    print(
      f'error: out of memory: {first_line(e)}; give a smaller batch_size or length, or '
      'split the model over more devices',
      file=sys.stderr,
    )
    return 2
  except KeyboardInterrupt:
    print('error: interrupted; the same command resumes', file=sys.stderr)
    return 130
  return 0 if figures.get('ok', True) else 1


def _unraisable(what: Any) -> None:
  """Leaves out what reads under way say after a damaged file has ended the reading."""
  if 'Event loop is closed' not in str(what.exc_value):
    sys.__unraisablehook__(what)


if __name__ == '__main__':
  sys.unraisablehook = _unraisable
  exit_code = main(sys.argv)
  if 'scmdm_jax.processes.multihost' in sys.modules:
    from scmdm_jax.processes import multihost

    multihost.end(exit_code)
  sys.exit(exit_code)
