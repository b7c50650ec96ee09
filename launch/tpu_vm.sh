#!/usr/bin/env bash
# Runs the main job on Cloud TPU VMs, of one host or many, got through a queued resource.
#   export ZONE=us-east5-b TYPE=v6e-64 STORE=10.0.0.2:/share      of all commands below
#   launch/tpu_vm.sh create NAME                           asks for the TPU and waits for it
#   launch/tpu_vm.sh run NAME --config=configs/hematoma.py:xl     copies the code, runs on all hosts
#   launch/tpu_vm.sh delete NAME                           gives the TPU back
# Needs gcloud with a project set. STORE is an NFS export (Filestore) that all hosts can mount, for
# workdirs and the cache; a slice of one host does without, but a deleted TPU takes its disk along.
# RUNTIME is the TPU's software version (by the TYPE), SPOT=1 asks for a spot TPU.
# A run that a maintenance event stops exits with 75 and is started again on the spot. When a spot
# TPU is taken away: delete, create and run again; the run goes on from STORE.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  sed -n '2,7p' launch/tpu_vm.sh >&2
  exit 2
}

[ $# -ge 2 ] || usage
command=$1 name=$2
shift 2
: "${ZONE:?set ZONE, such as us-east5-b}"

runtime() {
  case "${TYPE:?set TYPE, such as v6e-64}" in
    v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *)
      echo "repdiff: no RUNTIME is known for TYPE=$TYPE; set it." >&2
      exit 2
      ;;
  esac
}

on_all_hosts() {
  gcloud compute tpus tpu-vm ssh "$name" --zone="$ZONE" --worker=all --command="$1"
}

create() {
  local version=${RUNTIME:-} state='' spot=()
  [ -n "$version" ] || version=$(runtime)
  [ -z "${SPOT:-}" ] || spot=(--spot)
  gcloud compute tpus queued-resources create "$name" --node-id="$name" --zone="$ZONE" \
    --accelerator-type="$TYPE" --runtime-version="$version" ${spot[@]+"${spot[@]}"}
  until [ "$state" = ACTIVE ]; do
    sleep 30
    state=$(gcloud compute tpus queued-resources describe "$name" --zone="$ZONE" \
      --format='value(state.state)')
    echo "repdiff: $name is $state"
    case "$state" in FAILED | SUSPENDED | SUSPENDING | DELETING) exit 1 ;; esac
  done
}

run() {
  local archive arguments
  archive=$(mktemp -d)/repdiff.tar.gz
  tar -czf "$archive" --exclude=__pycache__ pyproject.toml README.md LICENSE repdiff configs launch
  gcloud compute tpus tpu-vm scp "$archive" "$name:/tmp/repdiff.tar.gz" --zone="$ZONE" --worker=all
  rm -r "$(dirname "$archive")"
  on_all_hosts "set -e; mkdir -p ~/repdiff; tar -xzf /tmp/repdiff.tar.gz -C ~/repdiff"
  # The TPU software versions are of Ubuntu 22.04, whose Python is 3.10.
  on_all_hosts "set -e; python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
      sudo apt-get -q update; sudo apt-get -qy install python3.11-venv; }"
  if [ -n "${STORE:-}" ]; then
    on_all_hosts "set -e; command -v mount.nfs >/dev/null || {
        sudo apt-get -q update; sudo apt-get -qy install nfs-common; }
      mkdir -p ~/repdiff/workdirs
      mountpoint -q ~/repdiff/workdirs || sudo mount -t nfs '$STORE' ~/repdiff/workdirs"
  fi
  [ $# -gt 0 ] || set -- --config=configs/hematoma.py:xl
  arguments=$(printf '%q ' "$@" --config.cache=workdirs/cache)
  on_all_hosts "cd ~/repdiff; code=75
    while [ \$code -eq 75 ]; do code=0; EXTRAS=tpu,ct launch/local.sh $arguments || code=\$?; done
    exit \$code"
}

delete() {
  gcloud compute tpus queued-resources delete "$name" --zone="$ZONE" --force --quiet
}

case "$command" in
  create | run | delete) "$command" "$@" ;;
  *) usage ;;
esac
