"""The two ways a user's input can be wrong, and the exit code of each."""


class BadInput(Exception):
  """The user asked for something impossible: one line, exit code 2.

  The message names the field or file, what was found, what was wanted, and what
  to do about it.
  """

  exit_code = 2


class DamagedData(BadInput):
  """A file on disk is truncated, altered or inconsistent: one line, exit code 3."""

  exit_code = 3
