#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# setup.sh [DIR [PEER...]]: makes Python environments for the peers below DIR (default build/peers).
# PEER: torch llmcompressor gptqmodel quark aimet; default all.  `torch` is the stack that the others see through a .pth
# file, so torch is there once.  The versions are those that were measured; every one of them is a package of PyPI.  What a
# peer asks for and does not need here is left out: pip's complaints about it, and about versions, are expected.
# About 5 GB and ten minutes.  Without a GPU torch needs only the libraries of an installed CUDA 13 toolkit and four
# small wheels; where there is no toolkit (CUDA_HOME, nvcc or /usr/local/cuda), torch comes with all its own.
set -euo pipefail
dir=${1:-build/peers}
shift || true
peers=("$@")
[[ $# -gt 0 ]] || peers=(torch llmcompressor gptqmodel quark aimet)

home=${CUDA_HOME:-/usr/local/cuda}
if ! [[ -d $home/lib64 ]] && command -v nvcc >/dev/null; then home=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")"); fi
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

# pip of the environment NAME
pips() { "$dir/$1/bin/python" -m pip install -q --disable-pip-version-check "${@:2}"; }

stack() {
    python3 -m venv "$dir/torch"
    pips torch --upgrade pip
    if compgen -G "$home/lib64/libcublas.so.13*" >/dev/null; then
        pips torch --no-deps torch==2.15.0 nvidia-nccl-cu13 nvidia-cufile nvidia-cusparselt-cu13 nvidia-nvshmem-cu13
    else
        pips torch torch==2.15.0
    fi
    pips torch triton filelock fsspec jinja2 networkx sympy typing-extensions 'setuptools>=77,<82' numpy==2.4.6 safetensors \
        h5py tokenizers huggingface-hub regex pyyaml packaging requests tqdm typer psutil 'pydantic>=2'
    pips torch --no-deps transformers==5.23.0
    local site
    site=$(echo "$dir"/torch/lib/python3.*/site-packages)
    cat >"$dir/env.sh" <<TEXT
export LD_LIBRARY_PATH=$site/nvidia/nccl/lib:$site/nvidia/cu13/lib:$site/nvidia/nvshmem/lib:$home/lib64 HF_HUB_OFFLINE=1
TEXT
}

# An environment NAME on top of the stack
above() {
    [[ -d $dir/torch ]] || stack
    python3 -m venv "$dir/$1"
    (cd "$dir/torch/lib" && echo "$PWD"/python3.*/site-packages) >"$(echo "$dir/$1"/lib/python3.*/site-packages)/stack.pth"
}

for peer in "${peers[@]}"; do
    echo "== $peer"
    case $peer in
    torch) stack ;;
    llmcompressor)
        above "$peer"
        pips "$peer" --no-deps llmcompressor==0.14.0.1 compressed-tensors==0.20.0 accelerate==1.15.0
        pips "$peer" datasets==5.2.0 loguru
        ;;
    gptqmodel)
        above "$peer"
        pips "$peer" 'setuptools>=77,<82' wheel ninja maturin
        pips "$peer" --no-deps accelerate==1.15.0 torchao defuser tokenicer device-smi
        pips "$peer" threadpoolctl protobuf pillow pypcre logbar datasets==5.2.0 dill
        pips "$peer" --no-deps --no-build-isolation gptqmodel==7.7.0
        ;;
    quark)
        above "$peer"
        pips "$peer" --no-deps amd-quark==0.13 accelerate==1.15.0
        pips "$peer" datasets==5.2.0 loguru onnx onnxslim scipy joblib zstandard sentencepiece ninja
        ;;
    aimet)
        above "$peer"
        pips "$peer" --no-deps aimet-torch==2.42.0 torchvision
        pips "$peer" onnx onnx_ir onnxscript psutil jsonschema pandas scipy scikit-learn tensorboard matplotlib bokeh holoviews \
            hvplot cvxpy osqp pybind11
        ;;
    *) echo "setup.sh: $peer is none of torch llmcompressor gptqmodel quark aimet" >&2 && exit 2 ;;
    esac
done
