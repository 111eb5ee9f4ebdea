# SPDX-License-Identifier: Apache-2.0
"""llama.cpp (package llama-cpp-python, built from source): gguf, in one part or in several.

It rounds what goes into a linear with codes to 8 bits (blocks of 32), so its perplexity is near blockq's, not
equal: --dense compares the values that stand in the file, as the package gguf of llama.cpp decodes them.
"""
import glob
import os

from readers import common
from readers.common import DataError

PACKAGES = common.Packages(plain=["gguf", "llama-cpp-python"])
DTYPES = ("float32",)
LINEARS = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
           "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
           "ffn_down": "mlp.down_proj"}


def first_part(folder):
    paths = sorted(glob.glob(os.path.join(folder, "*.gguf")))
    if not paths:
        raise DataError(f"{folder}: holds no *.gguf")
    return paths[0], paths


def checkpoint_rows(w, heads):
    """Rows of q or k of architecture llama in the checkpoint's order: the converter interleaves halves."""
    return w.reshape(heads, -1, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


class Engine:
    def __init__(self, llm, paths, config):
        self.llm, self.paths, self.config, self.faults = llm, paths, config, 0

    def loss(self, window):
        self.llm.reset()
        self.llm.eval(window)
        return common.mean_loss(self.llm.scores[:len(window)], window)

    def generate(self, ids, count):
        """Greedy."""
        self.llm.reset()
        made = []
        for token in self.llm.generate(ids, temp=0):
            made.append(token)
            if len(made) == count:
                return made

    def weights(self):
        import gguf
        heads = {"attn_q": self.config["num_attention_heads"], "attn_k": self.config["num_key_value_heads"]}
        permuted = self.config["model_type"] in ("llama", "mistral")
        for path in self.paths:
            for t in gguf.GGUFReader(path).tensors:
                block, name = t.name.split(".")[1:3] if t.name.startswith("blk.") else ("", "")
                if name not in LINEARS:
                    continue
                w = gguf.quants.dequantize(t.data, t.tensor_type).reshape(t.shape[::-1])
                if permuted and name in heads:
                    w = checkpoint_rows(w, heads[name])
                yield f"model.layers.{block}.{LINEARS[name]}.weight", w


def without_repacking():
    """The kernels that repack Q4_0, Q4_1 and Q8_0 crash on some processors: load models without them."""
    import llama_cpp.llama_cpp as lib
    plain = lib.llama_model_default_params

    def params():
        p = plain()
        p.use_extra_bufts = False
        return p

    lib.llama_model_default_params = params


def open_export(a, config):
    import llama_cpp
    without_repacking()
    path, paths = first_part(a.export_dir)
    threads = a.threads or None
    try:
        llm = llama_cpp.Llama(path, n_ctx=a.ctx, n_batch=a.ctx, logits_all=True, n_threads=threads,
                              n_threads_batch=threads, verbose=False)
    except (ValueError, RuntimeError) as e:
        raise DataError(f"{path}: llama.cpp does not load it: {e}") from None
    print(f"llama-cpp-python {llama_cpp.__version__}; {os.path.basename(path)}, {len(paths)} parts")
    return Engine(llm, paths, config)
