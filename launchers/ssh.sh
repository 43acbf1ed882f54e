#!/bin/bash
# 'deepspeed --hostfile' for clusters without pdsh: one ssh a host, and your environment goes along.
#   launchers/ssh.sh HOSTFILE launchers/train.py --ds ds_configs/zero3.json ...
# Needs: ssh to every host without a password, and this folder, the environment and HOSTFILE at the same path on each.
# MASTER_ADDR (default: the first address of the first host) and MASTER_PORT (29500) can be set.

set -u
if [ $# -lt 2 ] || [ ! -r "$1" ]; then
    echo "usage: launchers/ssh.sh HOSTFILE PROGRAM [ARGUMENT ...]   (HOSTFILE: lines of 'host slots=N')" >&2
    exit 2
fi
hostfile=$(realpath "$1")
shift
launcher=$(command -v deepspeed) || { echo "deepspeed is not in PATH: activate the environment first" >&2; exit 2; }
mapfile -t hosts < <(awk '!/^[[:space:]]*(#|$)/ { print $1 }' "$hostfile")
master=${MASTER_ADDR:-$(ssh -n "${hosts[0]}" hostname -I | awk '{ print $1 }')}
[ -n "$master" ] || { echo "no address of ${hosts[0]}: set MASTER_ADDR" >&2; exit 2; }

# What a run depends on, as it is set here. Tokens and the like do not travel, since everybody on a host can read the command
# lines there: 'hf auth login' on each host, or a base model on shared storage.
environment="cd $(printf %q "$PWD");"
for name in $(compgen -e | grep -E '^(PATH|LD_LIBRARY_PATH|OMP_|HF_|NCCL_|GLOO_|TORCH_|CUDA_|DEEPSPEED_|DS_|PYTHON|SVCO_|UCX_)' \
    | grep -vE 'TOKEN|KEY|SECRET|PASSWORD'); do
    environment+=" export $name=$(printf %q "${!name}");"
done

pids=()
# shellcheck disable=SC2317 # called by the trap
end() { [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null; }
trap end EXIT
trap 'exit 130' INT TERM
for rank in "${!hosts[@]}"; do
    words=("$launcher" --hostfile "$hostfile" --no_ssh --node_rank "$rank" --master_addr "$master" \
        --master_port "${MASTER_PORT:-29500}" "$@")
    # A terminal of its own on the other side (-tt): when this ssh ends, so does all that it started there.
    ssh -tt "${hosts[rank]}" "$environment exec$(printf ' %q' "${words[@]}")" </dev/null \
        > >(tr -d '\r' | sed -u "s/^/${hosts[rank]}: /") &
    pids+=($!)
done

# The first that fails ends all. (wait -n would not do: it forgets those that ended at the same time.)
while [ ${#pids[@]} -gt 0 ]; do
    for rank in "${!pids[@]}"; do
        kill -0 "${pids[rank]}" 2>/dev/null && continue
        wait "${pids[rank]}" || exit $?
        unset "pids[rank]"
    done
    sleep 0.2
done
