"""`python -m scmdm_jax.main --config=FILE --workdir=DIR --mode=...`.

  --config=FILE[:ARG]    the run: a Python file whose get_config() returns the options
  --config.NAME=VALUE    another value for one of them, as in --config.train.num_steps=9
  --workdir=DIR          where the run lives; the same command again resumes it
  --mode=MODE            train, sample, evaluate, compare, benchmark, plan, judge,
                         import, export, verify or doctor, instead of the config's own
  --source=PATH          import, export: what to convert; verify: what to check; none of
                         these modes needs a --config; judge: a file of texts
  --as=peft              export: the adapter alone, as the library peft has it
  --as=masked            import: make a masked base of a causal model
  --reference=FILE.npz   verify: input_ids [B, L] and logits [B, L, V] made elsewhere
  --tolerance=X          verify: largest difference of a logit (default 1e-3)

The last line on standard output is one JSON object with the main figures of the mode.
Exit codes: 1 for a verdict of no ("ok": false); and, each with one line on standard
error, 2 for a mistake in what was asked, 3 for damaged data, 4 when another process of
the run was lost, 75 when SIGTERM stopped it, 130 after an interrupt. After the last
three the same command resumes.

Started several times with the variables of `processes/joining`, the processes are one
run, and the first of them writes.
"""

from scmdm_jax.processes import stopping

if __name__ == '__main__':  # The imports take seconds.
  stopping.end_on_interrupt()

import difflib
import importlib
import json
import logging
import os
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from scmdm_jax import command_line
from scmdm_jax.buckets import paths
from scmdm_jax.command_line import Options
from scmdm_jax.data import journal
from scmdm_jax.errors import BadInput, PeerLost, Stopped, first_line, printable

if TYPE_CHECKING:  # Options are only read where a mode wants them.
  from scmdm_jax.settings.options import Settings


class Verb(NamedTuple):
  """What `main` must know of a verb; what it does is `run` of its module.

  module: in `scmdm_jax.verbs`.
  source: what `--source` is, of a verb that takes one.
  flags: what it takes beside `--config`, `--workdir` and `--source`.
  shared: whether several processes may do it together.
  asks: whether it asks now and then whether to stop; SIGTERM simply ends the others.
  stands_alone: whether it is no run: it needs no config, and its workdir, if it has
    one, is not the directory of a run.
  """

  module: str
  source: str = ''
  flags: tuple[str, ...] = ()
  shared: bool = False
  asks: bool = False
  stands_alone: bool = False


VERBS = {
  'train': Verb('train', shared=True, asks=True),
  'sample': Verb('sample', shared=True, asks=True),
  'evaluate': Verb('evaluate', shared=True, asks=True),
  'compare': Verb('compare', shared=True, asks=True),
  'benchmark': Verb('benchmark', shared=True, asks=True),
  'judge': Verb('judge', source='a file of texts', shared=True, asks=True),
  'import': Verb(
    'import_', source='--source and --workdir', flags=('as_',), stands_alone=True
  ),
  'export': Verb(
    'export', source='--source and --workdir', flags=('as_',), stands_alone=True
  ),
  'verify': Verb(
    'verify',
    source='the path of a checkpoint',
    flags=('reference', 'tolerance'),
    stands_alone=True,
  ),
  'doctor': Verb('doctor', stands_alone=True),
  'plan': Verb('plan'),
}


def _taken(name: str, verb: Verb, options: Options) -> dict[str, str]:
  """The flags of the verb with their values; refuses those that it does not take."""
  flags = (*(('source',) if verb.source else ()), *verb.flags)
  for flag in ('source', 'reference', 'tolerance', 'as_'):
    if getattr(options, flag) and flag not in flags:
      raise BadInput(
        f'--{flag.rstrip("_")}: given with --mode={name}, which takes none'
      )
  if verb.source and not options.source:
    raise BadInput(f'--source: not given; --mode={name} wants {verb.source}')
  return {flag: getattr(options, flag) for flag in flags}


def _stand_alone(
  name: str, verb: Verb, options: Options, settings: 'Settings'
) -> dict[str, Any]:
  taken = _taken(name, verb, options)
  path = options.workdir or settings.workdir
  run = importlib.import_module(f'scmdm_jax.verbs.{verb.module}').run
  with stopping.unwinding():
    return {'mode': name, **run(settings, path, **taken)}


def _doctor(options: Options) -> dict[str, Any] | None:
  """Looks at the run that `options` would start, as one or several processes."""
  from scmdm_jax.processes import multihost
  from scmdm_jax.runs import workdir
  from scmdm_jax.settings import resolve
  from scmdm_jax.settings.options import Settings

  _taken('doctor', VERBS['doctor'], options)
  settings = Settings() if options.config is None else resolve.resolve(options.config)
  path = options.workdir or settings.workdir
  with stopping.unwinding(), multihost.joined():
    multihost.same_everywhere(workdir.identity(path, settings))
    _refuse_several(settings.mode)
    run = importlib.import_module('scmdm_jax.verbs.doctor').run
    figures = {'mode': 'doctor', **run(settings, path)}
    return figures if multihost.index() == 0 else None


def _refuse_several(mode: str) -> None:
  from scmdm_jax.processes import multihost

  if multihost.count() > 1 and not VERBS[mode].shared:
    raise multihost.CommonMistake(
      f'--mode={mode}: found {multihost.count()} processes; wanted one'
    )


def _run(options: Options) -> dict | None:
  """Runs the mode and returns its main figures; of several processes the first does."""
  from scmdm_jax.settings import resolve
  from scmdm_jax.settings.options import Settings

  if options.mode and options.mode not in VERBS:
    near = difflib.get_close_matches(options.mode, VERBS, n=1)
    hint = f'; did you mean {near[0]}?' if near else ''
    raise BadInput(
      f'--mode: found {options.mode!r}; wanted one of {", ".join(VERBS)}{hint}'
    )
  if options.mode and VERBS[options.mode].stands_alone:
    if options.mode == 'doctor':
      return _doctor(options)
    return _stand_alone(options.mode, VERBS[options.mode], options, Settings())
  if options.config is None:
    raise BadInput('--config: not given; wanted a file such as configs/quickstart.py')
  if options.mode:
    with options.config.unlocked():
      options.config.mode = options.mode
  settings = resolve.resolve(options.config)
  name, verb = settings.mode, VERBS[settings.mode]
  if verb.stands_alone:
    return _stand_alone(name, verb, options, settings)
  taken = _taken(name, verb, options)

  from scmdm_jax.processes import multihost
  from scmdm_jax.runs import compilation_cache, opening, workdir

  path = options.workdir or settings.workdir
  run = importlib.import_module(f'scmdm_jax.verbs.{verb.module}').run
  compilation_cache.use(settings.compilation_cache)
  with stopping.listening() if verb.asks else nullcontext(), multihost.joined():
    multihost.same_everywhere(workdir.identity(path, settings))
    _refuse_several(name)
    with workdir.opened(path, settings) as directory:
      settings = opening.completed(settings, directory)
      figures = run(settings, directory, **taken)
      return figures if multihost.index() == 0 else None


def main(argv: list[str]) -> int:
  """Returns the exit code: 0, 1 for a verdict of no, or that of the error."""
  handler = logging.StreamHandler()
  handler.setFormatter(_Printable('%(levelname)s %(message)s'))
  logging.basicConfig(level=logging.WARNING, handlers=[handler])
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
    print(paths.named(json.dumps(figures)), flush=True)
  except (BadInput, PeerLost) as e:
    _tell(f'error: {e}')
    return e.exit_code
  except Stopped as e:
    _tell(str(e))
    return e.exit_code
  except (OSError, MemoryError) as e:
    _tell(f'error: {type(e).__name__}: {e}')
    return 3
  except RuntimeError as e:  # JAX's own are of this type; it is not imported here.
    if 'RESOURCE_EXHAUSTED' not in str(e):
      raise
    _tell(
      f'error: out of memory: {first_line(e)}; give a smaller batch_size or length, or '
      'split the model over more devices'
    )
    return 2
  except KeyboardInterrupt:
    stopping.say_interrupted()
    return stopping.INTERRUPTED
  finally:
    paths.forget()
  return 0 if figures.get('ok', True) else 1


def _tell(text: str) -> None:
  """Prints one line to standard error: the only place where errors are printed."""
  print(printable(paths.named(text)), file=sys.stderr, flush=True)


class _Printable(logging.Formatter):
  """Warnings in one printable line, too: names of files are in them."""

  def format(self, record: logging.LogRecord) -> str:
    return printable(paths.named(super().format(record)))


def _unraisable(what: Any) -> None:
  """Leaves out what reads under way say after a damaged file has ended the reading.

  An interrupt inside of code that cannot raise ends the program there and then.
  """
  if isinstance(what.exc_value, KeyboardInterrupt) and stopping.interrupted():
    os._exit(stopping.INTERRUPTED)
  if 'Event loop is closed' not in str(what.exc_value):
    sys.__unraisablehook__(what)


def _program() -> None:
  """Runs `main` and ends the process, also where a library's thread would wait."""
  sys.unraisablehook = _unraisable
  try:
    exit_code = main(sys.argv)
  except BaseException:
    if not stopping.interrupted():
      raise
    exit_code = stopping.INTERRUPTED
  if stopping.interrupted():  # And another error, or none, came of it.
    exit_code = stopping.INTERRUPTED
  if 'scmdm_jax.processes.multihost' in sys.modules:
    from scmdm_jax.processes import multihost

    multihost.end(exit_code)
  stopping.ignore_interrupts()
  if exit_code:  # After a failed save, Orbax's threads wait for minutes.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


if __name__ == '__main__':
  _program()
