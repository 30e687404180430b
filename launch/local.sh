#!/usr/bin/env bash
# Runs a command in the project's own Python environment, made on the first use.
#
#   launch/local.sh python -m scmdm_jax.main --config=configs/quickstart.py
#   launch/local.sh pytest
#
# Works from any directory; the command itself runs in the project root, so that
# relative paths in it (--config, --workdir) start there.
#
# PYTHON        makes the environment; 3.11 or newer (default: python3, or else the
#               first of python3.13, python3.12, python3.11 that works)
# VENV          where it is kept, from the project root (default: .venv)
# SCMDM_EXTRAS  extras of pyproject.toml to install (default: quickstart,dev)
#
# The environment is made anew when pyproject.toml, the constraints, or one of these
# settings changed, or when an install was cut short: so export the settings that you
# change, for all runs. Of two that start at once, one installs and the other waits.
# A directory that was not made here is left alone.
set -euo pipefail

say() { printf 'launch/local.sh: %s\n' "$*" >&2; }
die() { say "$@"; exit 2; }

# Sets python to the interpreter behind $1 (pyenv puts wrappers on PATH, some of
# which only print an error) and version to its X.Y; false if it does not run.
look_at() {
  local answer
  answer=$("$1" -c 'import sys
print("%d.%d" % sys.version_info[:2], getattr(sys, "_base_executable", sys.executable))
' 2>/dev/null </dev/null) || return 1
  version=${answer%% *} python=${answer#* }
}

new_enough() { [[ $version == 3.* && ${version#3.} -ge 11 ]]; }

choose_python() {
  local name
  if [[ -n ${PYTHON:-} ]]; then
    look_at "$PYTHON" || die "PYTHON=$PYTHON does not run; give Python 3.11 or newer"
    new_enough || die "PYTHON=$PYTHON is Python $version; give 3.11 or newer"
    return
  fi
  for name in python3 python3.13 python3.12 python3.11; do
    if look_at "$name" && new_enough; then return; fi
  done
  die 'found no Python 3.11 or newer on PATH; install one or set PYTHON to its path'
}

# Everything that the environment's contents depend on.
wanted() {
  printf '%s\n' "$root" "$venv" "$extras"
  cat setup.py pyproject.toml constraints/*.txt
}

ready() {
  [[ -x $venv/bin/python && -r $stamp && $(<"$stamp") == "$(wanted)" ]] || return 1
  [[ -z ${PYTHON:-} || $("$venv/bin/python" -V) == "Python $version."* ]]
}

lock() {
  # The kernel drops this lock when the last process that holds descriptor 9 dies:
  # killed installs leave none behind. Python does it where there is no flock command.
  exec 9>>"$venv.lock"
  local now='import fcntl; fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)'
  if ! "$python" -c "$now" 2>/dev/null; then
    say "waiting for another run to finish $venv"
    "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
  fi
}

# Moves first, so that a deletion cut short never passes for an environment.
clear_away() {
  rm -rf -- "$venv.stale"
  if [[ -e $venv ]]; then mv -- "$venv" "$venv.stale"; fi
  rm -rf -- "$venv.stale"
}

with_uv() {
  uv venv --quiet --seed --python "$python" "$venv" &&
    uv pip install --quiet --python "$venv/bin/python" \
      --constraint "$constraints" --editable ".[$extras]"
}

with_pip() {
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    die "Python $version cannot make environments; on Debian and Ubuntu:" \
      "apt-get install python$version-venv"
  "$python" -m venv "$venv"
  # Twice quiet: errors only. Old releases of pip warn about packages without wheels.
  "$venv/bin/python" -m pip install -qq --disable-pip-version-check \
    --constraint "$constraints" --editable ".[$extras]"
}

install() {
  local constraints=constraints/py312.txt
  if [[ $version == 3.11 ]]; then constraints=constraints/py311.txt; fi
  say "making $venv with Python $version, about a minute or two"
  clear_away
  trap 'exit 130' INT  # or else Ctrl-C would only end uv, and pip would follow
  if uv --version >/dev/null 2>&1; then
    # pip may know a proxy, certificates or an index that uv was not told of.
    with_uv || { say 'uv failed, trying pip' && clear_away && with_pip; }
  else
    with_pip
  fi
  wanted >"$stamp.new"
  mv -- "$stamp.new" "$stamp"
  say "made it in $SECONDS s"
}

root=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
cd -- "$root"
(($#)) || die 'give a command, such as: launch/local.sh pytest'
venv=${VENV:-.venv} extras=${SCMDM_EXTRAS:-quickstart,dev}
if [[ $venv != /* ]]; then venv=$root/$venv; fi
venv=${venv%/}
stamp=$venv/scmdm_jax.stamp

if [[ -n ${PYTHON:-} ]]; then choose_python; fi
if ! ready; then
  if [[ -e $venv && ! -e $venv.lock ]]; then
    die "$venv was not made by launch/local.sh; remove it or set VENV to a new path"
  fi
  choose_python
  lock
  if ! ready; then install </dev/null; fi
  exec 9>&-
fi

export VIRTUAL_ENV=$venv PATH=$venv/bin:$PATH
unset PYTHONHOME
# Keeps the notes of the compiler's C++ side out of tables and logs.
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-1}
exec "$@"
