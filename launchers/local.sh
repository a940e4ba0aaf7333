#!/usr/bin/env bash
# Train on this machine:  RANKS=2 launchers/local.sh --config configs/demo.yaml --run runs/demo
#
#   RANKS        processes (default: one per GPU, or one)
#   MASTER_PORT  where they meet (default: a port that is free now)
#   DRY_RUN=1    show the command instead of running it
set -euo pipefail
# shellcheck source=launchers/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

gpus=$(count_gpus)
ranks=${RANKS:-$((gpus > 0 ? gpus : 1))}
[[ $ranks =~ ^[1-9][0-9]*$ ]] || fail "RANKS=$ranks: must be a number of processes, 1 or more"
[ "$gpus" = 0 ] || [ "$ranks" -le "$gpus" ] || fail "RANKS=$ranks: this machine has $gpus GPUs, one for each rank"
share_cores "$ranks"
if [ "$gpus" = 0 ]; then
  # Ranks on one machine need no other interface, and a host's name may lead nowhere.
  export GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-lo}
fi
free_port='import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
port=${MASTER_PORT:-$(python3 -c "$free_port")}
launch --num_gpus "$ranks" --master_addr 127.0.0.1 --master_port "$port" -- "$@"
