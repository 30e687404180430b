"""What ends a run before its time, and the exit code of each; all in one line."""


class BadInput(Exception):
  """The user asked for something impossible: one line, exit code 2.

  The message names the field or file, what was found, what was wanted, and what
  to do about it.
  """

  exit_code = 2


class DamagedData(BadInput):
  """A file on disk is truncated, altered or inconsistent: one line, exit code 3."""

  exit_code = 3


class PeerLost(Exception):
  """Another process of the run died or hangs; names it. One line, exit code 4."""

  exit_code = 4


class Stopped(Exception):
  """SIGTERM: the run has saved what it had. One line, exit code 75.

  The same command resumes. 75 is EX_TEMPFAIL, "try again later": launch/ does.
  """

  exit_code = 75


_LONGEST = 2000  # Characters of a line of error.
_LAST = 400  # Of those, how many are its end: what to do stands there.


def printable(text: str) -> str:
  """Returns `text` as one line of bounded length that a terminal shows as it is.

  Line ends become spaces; control characters, and those that turn the direction of
  writing, are written as `repr` does. The middle of a long text is left out.
  """
  if left_out := max(len(text) - _LONGEST, 0):
    middle = f' ... ({left_out} characters left out) ... '
    text = text[: _LONGEST - _LAST] + middle + text[-_LAST:]
  line = ' '.join(text.splitlines())
  return ''.join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def first_line(error: BaseException) -> str:
  """The first line of what `error` says, or else its type."""
  return (str(error).splitlines() or [''])[0] or type(error).__name__
