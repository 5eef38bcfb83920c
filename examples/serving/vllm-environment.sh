#!/usr/bin/env bash
# Makes a virtual environment with vLLM's CPU build and this checkout of mars-export: about 4 GB.
#     bash examples/serving/vllm-environment.sh DIR [PYTHON]
set -euo pipefail
target=${1:?give the directory of the new environment}
here=$(cd "$(dirname "$0")" && pwd)
requirements=$here/vllm-requirements.txt

"${2:-python3}" -m venv "$target"
# From PyTorch's own index, since PyPI has the CUDA builds alone; the rest from PyPI.
mapfile -t torch < <(grep '^torch' "$requirements")
"$target/bin/pip" install --no-deps --extra-index-url https://download.pytorch.org/whl/cpu "${torch[@]}"
"$target/bin/pip" install --no-deps -r "$requirements"
"$target/bin/pip" install --no-deps -e "$here/../.."
"$target/bin/python" -c 'import vllm; print("vLLM", vllm.__version__)'
