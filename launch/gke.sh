#!/usr/bin/env bash
# Runs a command as a JobSet on a Kubernetes cluster, from launch/gke_jobset.yaml.
#
#   export JOB_NAME=scmdm JOB_IMAGE=REGISTRY/scmdm_jax:0.1.0 JOB_CLAIM=runs
#   launch/gke.sh run tpu python -m scmdm_jax.main --config=configs/qm9_compare.py \
#     --workdir=/runs/qm9
#   launch/gke.sh run gpu python -m scmdm_jax.main ...
#   launch/gke.sh logs       follows the output of the first host
#   launch/gke.sh delete     ends the run, which saves first; the workdir stays
#
# JOB_IMAGE  from launch/Dockerfile
# JOB_CLAIM  a volume claim (ReadWriteMany) that becomes /runs on every host
# DRY_RUN    1: print the manifest and the kubectl command, and run nothing
#
# Chips, topology and number of hosts are in launch/gke_jobset.yaml.
# shellcheck disable=SC2016  # What is in single quotes is not for this shell.
set -euo pipefail

die() { printf 'launch/gke.sh: %s\n' "$*" >&2; exit 2; }
need() { [[ -n ${!1:-} ]] || die "$1: not set; wanted $2"; }

shown() { # Prints a command so that a shell can read it back, and runs it.
  printf '+'
  printf ' %q' "$@"
  printf '\n'
  if [[ ${DRY_RUN:-} != 1 ]]; then "$@"; fi
}

# A JSON list is YAML, too. Kubernetes takes $$ for $, and $(X) for a variable's value.
readonly as_json='import json, sys
print(json.dumps([word.replace("$", "$$") for word in sys.argv[1:]]))'

run() { # tpu|gpu COMMAND...
  [[ ${1:-} == tpu || ${1:-} == gpu ]] || die 'run: give tpu or gpu, then a command'
  local kind=$1 here manifest command
  shift
  (($#)) || die "run $kind: give a command, such as python -m scmdm_jax.main --help"
  need JOB_IMAGE "the image of launch/Dockerfile in your registry"
  need JOB_CLAIM "the volume claim for /runs"
  here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
  command=$(python3 -c "$as_json" "$@")
  manifest=$(<"$here/gke_jobset.yaml")
  manifest=${manifest//'${NAME}'/"$JOB_NAME"}
  manifest=${manifest//'${IMAGE}'/"$JOB_IMAGE"}
  manifest=${manifest//'${CLAIM}'/"$JOB_CLAIM"}
  manifest=${manifest//'${COMMAND}'/"$command"}
  if [[ ${DRY_RUN:-} == 1 ]]; then printf '%s\n' "$manifest"; fi
  shown kubectl apply "--selector=accelerator=$kind" --filename=- <<<"$manifest"
}

(($#)) || die 'give one of run, logs, delete'
verb=$1
shift
need JOB_NAME "a name for the run"
[[ $JOB_NAME =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
  die "JOB_NAME=$JOB_NAME; wanted at most 40 of a-z, 0-9 and -, a letter first"
readonly index=batch.kubernetes.io/job-completion-index
case $verb in
  run) run "$@" ;;
  logs)
    shown kubectl logs --follow --tail=100 \
      "--selector=jobset.sigs.k8s.io/jobset-name=$JOB_NAME,$index=0"
    ;;
  delete) shown kubectl delete jobset "$JOB_NAME" ;;
  *) die "found $verb; wanted run, logs or delete" ;;
esac
