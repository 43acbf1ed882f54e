#!/bin/bash
# Checks svco on a GPU machine that reaches no network and has torch, but not svco's own needs.
#   bash launchers/install/gpu_box.sh collect [FOLDER]         where there is a network: wheels into FOLDER (default: wheels), 64 MiB at most
#   bash launchers/install/gpu_box.sh check FOLDER [OUT]       on the GPU machine: those wheels aside, launchers/gpu_check.py, results in OUT
# The machine keeps its own torch (2.11 or newer), numpy, pillow, huggingface_hub (1.31 or newer) and what else transformers and peft
# ask for. PYTHON names its interpreter, PYTHON_VERSION its version at collecting (default 3.12). Nothing of it is changed.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
what=${1:-}
wheels=${2:-wheels}
# DeepSpeed, webdataset and flash-attn are not: gpu_check needs none of them.
packages=(transformers peft tokenizers safetensors accelerate psutil)
most=$((64 * 1024 * 1024))

case "$what" in
collect)
    mkdir -p "$wheels"
    rm -f "$wheels"/*.whl # two versions of one package would stop the install
    pins=()
    for package in "${packages[@]}"; do pins+=("$(grep "^$package==" "$root/constraints.txt")"); done
    "${PYTHON:-python3}" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
        --python-version "${PYTHON_VERSION:-3.12}" --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
        --platform manylinux2014_x86_64 --dest "$wheels" "${pins[@]}"
    bytes=$(cat "$wheels"/*.whl | wc -c)
    echo "$wheels: $(find "$wheels" -name '*.whl' | wc -l) wheels, $((bytes / 1024)) KiB"
    ((bytes <= most)) || { echo "More than 64 MiB."; exit 1; }
    ;;
check)
    out=${3:-$root/launchers/results}
    aside=$(mktemp -d)
    trap 'rm -rf "$aside"' EXIT
    "${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --no-cache-dir \
        --target "$aside" "$wheels"/*.whl
    minutes=$(awk "BEGIN { print (480 - $SECONDS) / 60 }") # 8, less what that took
    PYTHONPATH="$aside:$root${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 "${PYTHON:-python3}" \
        "$root/launchers/gpu_check.py" --out "$out" --minutes "$minutes"
    ;;
*)
    sed -n '2,6s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
