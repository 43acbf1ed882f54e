#!/usr/bin/env bash
# An environment of its own for lmms-eval, with svco as a model of it: bash launchers/install/lmms_eval.sh FOLDER
#
# It cannot share svco's: its own pins pull another torch, and filelock 4 breaks it. So it is installed without its pins, with svco's
# torch, transformers and peft, and with what its core and its image tasks import.
#
# Variables: PYTHON (3.11 or newer), TORCH_INDEX (another wheel index for torch, e.g. https://download.pytorch.org/whl/cpu).
set -euo pipefail
[ $# = 1 ] || { echo "usage: bash $0 FOLDER"; exit 2; }
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$1
version=0.7.3
[ ! -e "$folder" ] || [ -f "$folder/pyvenv.cfg" ] || { echo "$folder is there and is no environment; name another folder."; exit 2; }
"${PYTHON:-python3}" -m venv "$folder"
install() { "$folder/bin/python" -m pip install --quiet --disable-pip-version-check -c "$root/constraints.txt" "$@"; }
install ${TORCH_INDEX:+--no-deps --index-url "$TORCH_INDEX"} torch
install transformers peft safetensors numpy pillow pyyaml jinja2 matplotlib tqdm psutil 'fsspec[http]' braceexpand accelerate
install --use-pep517 --no-deps "$root"
install --no-deps "lmms-eval==$version"
install 'filelock<4' 'datasets>=2.19' 'evaluate>=0.4' loguru pytablewriter sqlitedict jsonlines tenacity httpx openai sacrebleu \
    numexpr scikit-learn nltk openpyxl python-dotenv tqdm-multiprocess zss latex2sympy2 sympy pydantic packaging tiktoken
"$folder/bin/python" - <<'PYTHON'
from lmms_eval.models import list_available_models

assert "svco" in list_available_models(), "lmms-eval does not see svco among its models"
PYTHON
echo "lmms-eval $version is in $folder: svco table --harness lmms-eval --harness-env $folder"
