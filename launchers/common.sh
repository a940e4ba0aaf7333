# Sourced by the launchers: which programs they run, what they set, and what they refuse.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# torch finds ninja by PATH, so the environment's programs go first even if it is active nowhere.
if [ -d "$root/.venv/bin" ]; then
  export PATH="$root/.venv/bin:$PATH"
fi

fail() {
  echo "error: $*" >&2
  exit 2
}

count_gpus() {
  { nvidia-smi -L 2> /dev/null || true; } | { grep -c '^GPU' || true; }
}

# share_cores RANKS: settings of a host with that many ranks, where the caller has made none.
share_cores() {
  local cores
  cores=$(nproc)
  # More threads than cores make all ranks slower.
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > $1 ? cores / $1 : 1))}
  if [ "$(count_gpus)" = 0 ]; then
    export DS_ACCELERATOR=${DS_ACCELERATOR:-cpu}
  fi
}

is_loopback() {
  case $1 in
    localhost | localhost.* | ip6-localhost | 127.* | ::1 | 0.0.0.0) return 0 ;;
    *) return 1 ;;
  esac
}

# resolves_to_loopback NAME: as seen from this host; a name that is not known (yet) does not.
resolves_to_loopback() {
  local address
  address=$({ getent ahosts "$1" || true; } | head -n 1 | cut -d ' ' -f 1)
  [ -n "$address" ] && is_loopback "$address"
}

# launch OPTION... -- ARGUMENT...: start the ranks under deepspeed; with DRY_RUN=1 show the command instead.
launch() {
  local options=()
  while [ "$1" != -- ]; do
    options+=("$1")
    shift
  done
  shift
  [ $# -gt 0 ] || fail "no arguments: give those of the training, as in --config configs/demo.yaml --run runs/demo"
  local command=(deepspeed --log_level warning "${options[@]}" --module unigrf_dist.train "$@")
  if [ "${DRY_RUN:-0}" = 1 ]; then
    printf '%s\n' "${command[*]@Q}"
    exit 0
  fi
  command -v deepspeed > /dev/null || fail "no deepspeed on this host: run \`make setup\` in $root"
  exec "${command[@]}"
}
