#!/usr/bin/env bash
# Runs a command as N processes of one run on this machine, over the loopback.
#
#   launch/local.sh launch/local_multiprocess.sh 2 \
#     python -m scmdm_jax.main --config=configs/quickstart.py --workdir=runs/two
#
# Each process finds its place in SCMDM_COORDINATOR, SCMDM_NUM_PROCESSES and
# SCMDM_PROCESS_ID (scmdm_jax/processes/joining.py); its lines begin with its number.
# A rehearsal for several hosts: XLA_FLAGS=--xla_force_host_platform_device_count=4
# gives every process 4 devices. On a host with GPUs one process drives them all.
#
# SIGTERM and SIGINT are passed on to every process; one that comes while they are
# started starts no more of them. When one fails, the others are ended, by SIGKILL if
# they are still there SCMDM_KILL_AFTER seconds later (default 10). Exit code: that of
# the first failure; else 75 (saved on a signal, run the same command again) if one says
# so; else 128 and the signal's number if not all were started; else 0.
set -euo pipefail

say() { printf 'launch/local_multiprocess.sh: %s\n' "$*" >&2; }
die() { say "$@"; exit 2; }

if (($# < 2)) || ! [[ $1 =~ ^[1-9][0-9]?$ ]]; then
  die 'give a number of processes from 1 to 99 and a command, such as:' \
    'launch/local_multiprocess.sh 2 python -m scmdm_jax.main --help'
fi
count=$1
shift

# Passed on by the loop below alone: a trap may run when a process is started already,
# and not yet known there.
asked=()  # Signals that came and are not passed on yet.
trap 'asked+=(TERM)' TERM
trap 'asked+=(INT)' INT

free_port='import socket
with socket.socket() as s:
  s.bind(("127.0.0.1", 0))
  print(s.getsockname()[1])'
port=$(python3 -c "$free_port") || ((${#asked[@]})) || die 'python3 does not run'
export SCMDM_COORDINATOR=127.0.0.1:$port SCMDM_NUM_PROCESSES=$count

numbered() { # NUMBER: copies the input, the number before every line.
  local line
  while IFS= read -r line || [[ -n $line ]]; do
    printf '[%s] %s\n' "$1" "$line"
  done
}

declare -A number=()  # Of every process that runs, by its id.
groups=() readers=() killer=

pass_on() { # SIGNAL
  local id
  for id in "${!number[@]}"; do kill "-$1" "$id" 2>/dev/null || true; done
}

end_groups() { # Whatever the processes have left behind.
  local id
  for id in "${groups[@]}" $killer; do kill -KILL -- "-$id" 2>/dev/null || true; done
}

end_others() {
  pass_on TERM
  {
    sleep "${SCMDM_KILL_AFTER:-10}"
    pass_on KILL
  } </dev/null >/dev/null 2>&1 &
  killer=$!
  disown "$killer"  # Or else bash would tell of its end.
}

pipes=$(mktemp -d)
trap 'end_groups; rm -rf -- "$pipes"' EXIT
# All of them now: later, Ctrl-C would reach a program in the foreground and not this.
fifos=("$pipes/clock")
for ((i = 0; i < count; i++)); do fifos+=("$pipes/out$i" "$pipes/err$i"); done
mkfifo -- "${fifos[@]}" || ((${#asked[@]}))
exec 8<>"$pipes/clock"
# Every job in a group of its own: Ctrl-C then comes here alone, and is passed on.
set -m
for ((i = 0; i < count && !${#asked[@]}; i++)); do
  numbered "$i" <"$pipes/out$i" 8>&- &
  readers+=("$!")
  numbered "$i" <"$pipes/err$i" >&2 8>&- &
  readers+=("$!")
  (
    printf . >&8  # From here on a signal is its own, and not lost to the traps above.
    SCMDM_PROCESS_ID=$i exec "$@" 8>&-
  ) </dev/null >"$pipes/out$i" 2>"$pipes/err$i" &
  number[$!]=$i
  groups+=("$!")
  # Not for ever: Ctrl-C also ends a reader that has no group of its own yet.
  waits=0
  until read -rN 1 -t 0.1 -u 8 || ! kill -0 "$!" 2>/dev/null ||
    ((${#asked[@]} && ++waits > 10)); do :; done
done
missing=0
if ((i < count)); then
  missing=$((128 + $(kill -l "${asked[0]}")))
  say "SIG${asked[0]} after $i of $count processes were started; no more are"
fi

# Asked for any process that ends, bash would sometimes miss one that just did.
failed=0 saved=0
while ((${#number[@]})); do
  read -rt 0.1 -u 8 || true
  passed=("${asked[@]}") asked=()
  for signal in "${passed[@]}"; do pass_on "$signal"; done
  for id in "${!number[@]}"; do
    if kill -0 "$id" 2>/dev/null; then continue; fi
    i=${number[$id]} code=0
    wait "$id" 2>/dev/null || code=$?
    unset "number[$id]"
    if ((code == 75)); then
      saved=75
    elif ((code && !failed)); then
      failed=$code
      say "process $i ended with exit code $code; ending the others"
      end_others
    fi
  done
done
end_groups
# For its end a reader needs a writer, which a process killed at once never was.
for ((i = 0; i < count; i++)); do : <>"$pipes/out$i" <>"$pipes/err$i"; done
wait "${readers[@]}" 2>/dev/null || true
exit $((failed ? failed : saved ? saved : missing))
