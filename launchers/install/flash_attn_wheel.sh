#!/bin/bash
# Builds a flash-attn wheel for the torch of the active environment; needs nvcc of the same CUDA major and about 4 GB a job.
#   bash launchers/install/flash_attn_wheel.sh [folder for the wheel]
# torch 2.13's headers are C++20 and flash-attn 2.8.3 compiles as C++17, so its setup.py is changed on the way.
set -euo pipefail
version=2.8.3.post2
target=$(realpath "${1:-wheels}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python -c 'import torch; assert torch.version.cuda, "this torch is a CPU build"'
command -v nvcc >/dev/null || { echo "nvcc is missing: install the CUDA toolkit, or use model.attention=varlen, which needs no build"; exit 2; }
python -m pip install --quiet ninja packaging psutil setuptools wheel
FLASH_ATTENTION_SKIP_CUDA_BUILD=TRUE python -m pip download --quiet --no-deps --no-build-isolation --no-binary :all: \
    --dest "$work" "flash-attn==$version"
tar -xzf "$work/flash_attn-$version.tar.gz" -C "$work"
cd "$work/flash_attn-$version"
sed -i 's/-std=c++17/-std=c++20/' setup.py
export FLASH_ATTENTION_FORCE_BUILD=TRUE
export FLASH_ATTN_CUDA_ARCHS=${FLASH_ATTN_CUDA_ARCHS:-"80;90"} MAX_JOBS=${MAX_JOBS:-8}
python -m pip wheel . --no-deps --no-build-isolation --wheel-dir "$target"
echo "next: pip install $target/flash_attn-$version-*.whl"
