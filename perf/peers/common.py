# SPDX-License-Identifier: Apache-2.0
"""What the peers' scripts share: arguments, token ids, the model, the perplexity and the one line of JSON.

Protocol of the perplexity (that of `blockq eval`): windows of ctx ids side by side from the start of the file, nothing
put in front; a window's loss is the mean over its ctx - 1 predictions; exp of the mean over windows.  In float32,
whatever --dtype says of the quantization.
"""
import argparse
import importlib.metadata
import json
import math
import os
import resource
import statistics
import sys
import time

import h5py
import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

# What the peers print goes to standard error: standard output is for the line of JSON.
_out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

PARTS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def arguments(text, **more):
    """The parsed command line; more: name -> keyword arguments of add_argument, for what one peer alone has."""
    p = argparse.ArgumentParser(description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--model", required=True, help="directory with config.json and model.safetensors")
    p.add_argument("--tokens", help="tokens.h5 of the calibration")
    p.add_argument("--samples", type=int, default=32, help="of the calibration, from the file's start, without gaps")
    p.add_argument("--length", type=int, default=512, help="ids of a sample")
    p.add_argument("--bits", type=int, default=4)
    p.add_argument("--group", type=int, default=-1, help="columns that share a scale; -1: a row")
    p.add_argument("--asymmetric", action="store_true", help="with zero points")
    p.add_argument("--eval", help="tokens.h5 of the evaluation; without it nothing is evaluated")
    p.add_argument("--ctx", type=int, default=512)
    p.add_argument("--windows", type=int, default=40)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the model while it is quantized")
    p.add_argument("--save", help="directory for the model with its dequantized weights, float32")
    for name, keywords in more.items():
        p.add_argument("--" + name.replace("_", "-"), **keywords)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    return a


def ids(path):
    """All ids of a tokens.h5, int64."""
    with h5py.File(path) as f:
        if f.attrs["format"] not in (b"blockq tokens", "blockq tokens"):
            sys.exit(f"{path}: is no tokens file of blockq")
        return torch.from_numpy(f["tokens"][:].astype(np.int64))


def calibration(a):
    """(samples, length) ids."""
    t = ids(a.tokens)
    if t.numel() < a.samples * a.length:
        sys.exit(f"{a.tokens}: has {t.numel()} ids, {a.samples} x {a.length} are asked for")
    return t[: a.samples * a.length].view(a.samples, a.length)


def load(a, **more):
    """The model, float32 unless --dtype says otherwise; attention as transformers chooses unless `more` says so."""
    from transformers import AutoModelForCausalLM
    m = AutoModelForCausalLM.from_pretrained(a.model, dtype=getattr(torch, a.dtype), **more).eval()
    m.config.use_cache = False
    return m


def tokenizer(a):
    """The model's own, or a stand-in: some peers ask for one even where the samples are ids."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    if os.path.exists(os.path.join(a.model, "tokenizer.json")):
        return AutoTokenizer.from_pretrained(a.model)
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    words = {f"w{i}": i for i in range(256)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="w0")), unk_token="w0", pad_token="w0")


def linears(m):
    """(name, module) of all linears of the decoder blocks, in order."""
    return [(n, x) for n, x in m.named_modules() if n.rsplit(".", 1)[-1] in PARTS and isinstance(x, torch.nn.Linear)]


def perplexity(m, a):
    """None without --eval.  m maps ids (1, ctx) to an object with .logits, or to the logits."""
    if not a.eval:
        return None
    t, losses = ids(a.eval), []
    if isinstance(m, torch.nn.Module):
        m.float()
    if t.numel() < a.windows * a.ctx:
        sys.exit(f"{a.eval}: has {t.numel()} ids, {a.windows} x {a.ctx} are asked for")
    with torch.no_grad():
        for w in t[: a.windows * a.ctx].view(a.windows, 1, a.ctx):
            y = m(w)
            y = getattr(y, "logits", y)[0, :-1].float()
            losses.append(torch.nn.functional.cross_entropy(y, w[0, 1:]).item())
    return math.exp(sum(losses) / len(losses))


class Clock:
    """with Clock() as c: ...; then c.seconds of the wall and c.cpu_seconds of this process, all threads."""

    def __enter__(self):
        self.start = time.perf_counter(), time.process_time()
        return self

    def so_far(self):
        return time.perf_counter() - self.start[0]

    def __exit__(self, *error):
        self.seconds = time.perf_counter() - self.start[0]
        self.cpu_seconds = time.process_time() - self.start[1]


class Steps:
    """with Steps() as s: ...; then s.wall and s.cpu, median seconds of an optimizer step, from any code's torch optimizers.

    A step counts from the end of the one before; medians are blind to the few that cross from block to block.
    """

    def __enter__(self):
        self.at = []
        self.hook = register_optimizer_step_post_hook(
            lambda *a: self.at.append((time.perf_counter(), time.process_time())))
        return self

    def __exit__(self, *error):
        self.hook.remove()
        self.wall, self.cpu = (statistics.median(y - x for x, y in zip(c, c[1:])) if len(c) > 1 else None
                               for c in (list(zip(*self.at)) or ((), ())))

    def settings(self):
        return {"steps": len(self.at), "step_seconds": self.wall, "step_cpu_seconds": self.cpu}


def report(peer, package, a, clock, ppl, **settings):
    """The one line on standard output.  The peak covers loading, quantization and what came before the call."""
    line = {"peer": peer, "version": importlib.metadata.version(package), "torch": torch.__version__,
            "bits": a.bits, "group": a.group, "symmetric": not a.asymmetric, "samples": a.samples, "length": a.length,
            "threads": a.threads, "dtype": a.dtype, **settings, "seconds": clock and round(clock.seconds, 2),
            "cpu_seconds": clock and round(clock.cpu_seconds, 2), "peak_rss_mb": a.peak, "ctx": a.ctx,
            "windows": a.windows, "perplexity": ppl}
    print(json.dumps(line), file=_out, flush=True)


def peak_mb():
    """The most memory this process has held so far, MB (10^6)."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)


def finish(peer, package, a, m, clock, **settings):
    """After quantization: notes the peak, saves if asked to, evaluates and reports."""
    a.peak = peak_mb()
    if a.save:
        from safetensors.torch import load_file, save_file
        source = load_file(os.path.join(a.model, "model.safetensors"))
        now = m.state_dict()
        os.makedirs(a.save, exist_ok=True)
        save_file({k: now[k].float().contiguous() if k in now else v for k, v in source.items()},
                  os.path.join(a.save, "model.safetensors"), metadata={"format": "pt"})
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            if os.path.exists(os.path.join(a.model, name)):
                with open(os.path.join(a.model, name), "rb") as src, open(os.path.join(a.save, name), "wb") as dst:
                    dst.write(src.read())
    report(peer, package, a, clock, perplexity(m, a), **settings)
