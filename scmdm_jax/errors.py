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


def first_line(error: BaseException) -> str:
  """The first line of what `error` says, or else its type."""
  return (str(error).splitlines() or [''])[0] or type(error).__name__
