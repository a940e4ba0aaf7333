#!/usr/bin/env bash
# Train on the hosts of a hostfile, which has a line such as "node-a slots=8" for each; slots are ranks.
#
#   from one host, over ssh:    HOSTFILE=hosts launchers/hostfile.sh --config FILE --run DIR
#   on every host, without it:  HOSTFILE=hosts NODE_RANK=0 launchers/hostfile.sh --config FILE --run DIR
#
#   NODE_RANK    this host's line in the hostfile, counted from 0; its presence says that no ssh is used
#   MASTER_ADDR  the first host as all others reach it (default: its name in the hostfile)
#   MASTER_PORT  a port that is free there (default: 29500)
#   OMP_NUM_THREADS, NCCL_…, GLOO_…, TORCH_…, TRITON_…, DS_ACCELERATOR  reach the other hosts where they are set
#   DRY_RUN=1    show the command instead of running it
set -euo pipefail
# shellcheck source=launchers/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

hostfile=${HOSTFILE:-}
[ -n "$hostfile" ] || fail "HOSTFILE is not set: name a file with a line such as \"node-a slots=8\" for each host"
[ -r "$hostfile" ] || fail "$hostfile: no such hostfile"
entries=$(grep -Ev '^[[:space:]]*(#|$)' "$hostfile" || true)
[ -n "$entries" ] || fail "$hostfile: names no host, must have a line such as \"node-a slots=8\" for each"
wrong=$(grep -Evn '^[^[:space:]]+[[:space:]]+slots=[1-9][0-9]*[[:space:]]*$' <<< "$entries" | head -n 1 || true)
[ -z "$wrong" ] || fail "$hostfile: entry ${wrong/:/ is \"}\", must be like \"node-a slots=8\""
mapfile -t hosts < <(cut -d ' ' -f 1 <<< "${entries//$'\t'/ }")
slots=$(grep -Eo '[0-9]+[[:space:]]*$' <<< "${entries%%$'\n'*}")

address=${MASTER_ADDR:-${hosts[0]}}
port=${MASTER_PORT:-29500}
if [ "${#hosts[@]}" -gt 1 ]; then
  for host in "${hosts[@]}"; do
    ! is_loopback "$host" || fail "$hostfile: $host means another host on each of the ${#hosts[@]} hosts"
  done
  ! is_loopback "$address" ||
    fail "MASTER_ADDR=$address: each of the ${#hosts[@]} hosts would wait for itself; set it to the address of ${hosts[0]}"
fi

over_ssh() {
  [ "${DRY_RUN:-0}" = 1 ] || command -v pdsh > /dev/null ||
    fail "no pdsh on this host: apt-get install pdsh, or start every host by itself with NODE_RANK=0, 1, …"
  # DeepSpeed hands the other hosts what this file says and, without it, few of the variables set here.
  export DS_ENV_FILE=$root/build/deepspeed_env
  mkdir -p "$root/build"
  {
    cat ~/.deepspeed_env .deepspeed_env 2> /dev/null || true
    env | grep -E '^(GLOO|NCCL|TORCH|TRITON|DS_ACCELERATOR|OMP_NUM_THREADS|PATH)[A-Z0-9_]*=' || true
  } > "$DS_ENV_FILE"
  launch --hostfile "$hostfile" --master_addr "$address" --master_port "$port" -- "$@"
}

by_itself() {
  share_cores "$slots"
  [[ $NODE_RANK =~ ^[0-9]+$ ]] && [ "$NODE_RANK" -lt "${#hosts[@]}" ] ||
    fail "NODE_RANK=$NODE_RANK: must be 0 to $((${#hosts[@]} - 1)), a line of $hostfile"
  if [ "${#hosts[@]}" -gt 1 ]; then
    [ "$NODE_RANK" = 0 ] || ! resolves_to_loopback "$address" ||
      fail "MASTER_ADDR=$address: is a loopback address on this host; use the address of ${hosts[0]}, or fix /etc/hosts"
    [ "${DS_ACCELERATOR:-}" != cpu ] || [ -n "${GLOO_SOCKET_IFNAME:-}" ] || ! resolves_to_loopback "$(uname -n)" ||
      fail "gloo would offer a loopback address to the other hosts: set GLOO_SOCKET_IFNAME (\`ip addr\` lists interfaces)"
  fi
  launch --hostfile "$hostfile" --no_ssh --node_rank "$NODE_RANK" --master_addr "$address" --master_port "$port" -- "$@"
}

if [ -n "${NODE_RANK:-}" ]; then
  by_itself "$@"
else
  over_ssh "$@"
fi
