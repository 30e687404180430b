#!/usr/bin/env bash
# Runs a command on all hosts of a Cloud TPU slice, v4 to v6e (newer: launch/gke.sh).
#
#   export TPU_NAME=scmdm TPU_ZONE=us-east5-b TPU_TYPE=v6e-16
#   launch/tpu_vm.sh create     asks for the slice (a queued resource)
#   launch/tpu_vm.sh status     it is yours when this says ACTIVE
#   launch/tpu_vm.sh setup      copies this project to all hosts and installs it
#   launch/tpu_vm.sh run python -m scmdm_jax.main --config=configs/qm9_compare.py \
#     --workdir=/mnt/runs/qm9
#   launch/tpu_vm.sh logs       follows the output of one host; Ctrl-C ends only this
#   launch/tpu_vm.sh stop       the run saves and ends; the same `run` resumes it
#   launch/tpu_vm.sh delete     deletes the slice and its disks, after a question
#
# TPU_PROJECT  default: the project that gcloud is set to
# TPU_SPOT     1: a cheaper slice that may be taken away at any time
# TPU_WORKER   the host that `logs` follows (default 0)
# DRY_RUN      1: print the gcloud commands and run none
#
# Copied are the package, configs/, launch/ and what installs them; nothing else. The
# workdir must be on a disk that all hosts share and that outlives them (Filestore).
set -euo pipefail

say() { printf 'launch/tpu_vm.sh: %s\n' "$*" >&2; }
die() { say "$@"; exit 2; }
need() { [[ -n ${!1:-} ]] || die "$1: not set; wanted $2"; }

shown() { # Prints a command so that a shell can read it back, and runs it.
  printf '+'
  printf ' %q' "$@"
  printf '\n'
  if [[ ${DRY_RUN:-} != 1 ]]; then "$@"; fi
}

tpus() { # GROUP VERB ARGUMENTS...
  shown gcloud compute tpus "$@" "--zone=$TPU_ZONE" \
    ${TPU_PROJECT:+"--project=$TPU_PROJECT"}
}

on_hosts() { # WORKERS COMMAND: a command for the hosts' shell.
  tpus tpu-vm ssh "$TPU_NAME" "--worker=$1" "--command=$2"
}

runtime_version() {
  need TPU_TYPE "the type of the slice, such as v6e-16"
  case $TPU_TYPE in
    v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) die "TPU_TYPE=$TPU_TYPE; wanted v4-, v5litepod-, v5p- or v6e- and a size;" \
      'newer ones are reached by launch/gke.sh' ;;
  esac
}

create() {
  local version
  version=$(runtime_version)
  tpus queued-resources create "$TPU_NAME" "--node-id=$TPU_NAME" \
    "--accelerator-type=$TPU_TYPE" "--runtime-version=$version" \
    ${TPU_SPOT:+--spot}
}

# The hosts' own Python is 3.10.
# shellcheck disable=SC2016  # For the hosts' shell.
readonly environment='export PATH=$HOME/.local/bin:$PATH SCMDM_EXTRAS=quickstart,tpu'
readonly install="set -e; $environment
mkdir -p scmdm_jax
tar -xzf scmdm_jax.tgz -C scmdm_jax
python3 -m pip install -qq --user uv==0.13.9
uv python install --quiet 3.12
PYTHON=\$(uv python find 3.12) scmdm_jax/launch/local.sh true"

setup() {
  local root archive
  root=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
  archive=$(mktemp -d)
  # shellcheck disable=SC2064  # The directory's name as it is now.
  trap "rm -rf -- $(printf %q "$archive")" EXIT
  shown tar -czf "$archive/scmdm_jax.tgz" -C "$root" --exclude=__pycache__ \
    LICENSE configs constraints launch pyproject.toml scmdm_jax setup.py
  tpus tpu-vm scp "$archive/scmdm_jax.tgz" "$TPU_NAME:scmdm_jax.tgz" --worker=all
  on_hosts all "$install"
}

# The command itself comes in words that the hosts' shell takes for one each.
run() {
  (($#)) || die 'give a command, such as: launch/tpu_vm.sh run python -m' \
    'scmdm_jax.main --config=FILE --workdir=SHARED_DIRECTORY'
  local words
  words=$(printf ' %q' "$@")
  on_hosts all "set -e; $environment SCMDM_COORDINATOR=auto
if [ -s scmdm_jax.pid ] && kill -0 \"\$(cat scmdm_jax.pid)\" 2>/dev/null; then
  echo 'a run is under way: launch/tpu_vm.sh stop' >&2; exit 2
fi
setsid scmdm_jax/launch/local.sh$words >>scmdm_jax.log 2>&1 </dev/null &
echo \$! >scmdm_jax.pid"
}

(($#)) || die 'give one of create, status, setup, run, logs, stop, delete'
verb=$1
shift
if [[ $verb != run && $# -gt 0 ]]; then die "$verb takes no arguments; found $*"; fi
need TPU_NAME "a name for the slice"
need TPU_ZONE "the zone of the slice, such as us-east5-b"
case $verb in
  create | setup) "$verb" ;;
  run) run "$@" ;;
  status) tpus queued-resources describe "$TPU_NAME" ;;
  logs) on_hosts "${TPU_WORKER:-0}" 'tail -n 100 -F scmdm_jax.log' ;;
  stop) on_hosts all "kill -TERM \"\$(cat scmdm_jax.pid)\"" ;;
  delete) tpus queued-resources delete "$TPU_NAME" --force ;;
  *) die "found $verb; wanted create, status, setup, run, logs, stop or delete" ;;
esac
