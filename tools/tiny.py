#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Train an embedded demo model: a byte-level Llama, or with --moe a Qwen3-MoE (token id = byte value).

Needs torch and safetensors, no GPU (a CPU with bf16 instructions helps a lot). One command makes the Llama:

    python tools/tiny.py --compile --valid wiki.valid.raw --test wiki.test.raw --prose PATH... --out jobs/demo

and the same with `--moe --steps 1400 --batch 2048 --threads 1` the other one.

It cuts OUT/calibration.txt and OUT/evaluation.txt out of the two WikiText-2 files, trains on what is left
of them and on the prose, adds large activation channels without changing the function (see outliers()), and
writes config.json and model.safetensors (bf16) into OUT/model, or with --moe into OUT/moe. The seed fixes the
first weights and every batch, but not how sums round: a rerun comes close, not bit for bit.

Texts: WikiText-2 raw (wikitext-2-raw-v1.zip, Merity et al. 2016, CC BY-SA 3.0). Prose is any file or folder
of .html or .txt; the committed model used the Debian package `anarchism` (An Anarchist FAQ, GPL-2):

    apt-get download anarchism && dpkg-deb -x anarchism_*.deb prose    # then --prose prose/usr/share/doc
"""
import argparse, html, json, math, re, time
from pathlib import Path
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

HIDDEN, HEADS, KV, VOCAB, EPS, THETA = 128, 4, 2, 256, 1e-5, 10000.0
HEAD = HIDDEN // HEADS
BLOCKS, INNER = 8, 384                                     # of the Llama
MOE_BLOCKS, EXPERTS, TAKEN, EXPERT_INNER = 4, 16, 2, 64    # of the Qwen3-MoE


# ---- text ----

def cut(text, least):
    """The first articles, at least `least` bytes of them, and the articles after these."""
    end = next(m.start() + 1 for m in re.finditer(rb"\n = [^=\n]+ = \n", text) if m.start() + 1 >= least)
    return text[:end], text[end:]


def like_wikitext(s):
    """Space the punctuation of plain prose the way WikiText does."""
    s = s.replace("\u2019", "'").replace("\u2018", "'").replace("\u201c", '"').replace("\u201d", '"')
    s = re.sub(r"(\d)([.,])(\d)", r"\1 @\2@ \3", s)
    s = re.sub(r"(\w)-(\w)", r"\1 @-@ \2", s)
    s = re.sub(r"(?<!@)([,;:!?()\[\]\"])(?!@)", r" \1 ", s)
    s = re.sub(r"(\w)('s|')(?=\s|$)", r"\1 \2", s)
    s = re.sub(r"\.(?=\s|$)", " .", s)
    return " ".join(s.split())


def prose(paths):
    """All .html and .txt under the paths as one text, one paragraph a line."""
    files = sorted(f for p in map(Path, paths) for f in ([p] if p.is_file() else p.rglob("*"))
                   if f.suffix in (".html", ".txt"))
    out = []
    for f in files:
        s = f.read_text(encoding="utf-8", errors="ignore")
        if f.suffix == ".html":
            s = re.sub(r"(?is)<(script|style|head)\b.*?</\1>", " ", s)
            s = re.sub(r"(?i)</?(p|div|li|h\d|blockquote|br)\b[^>]*>", "\n\n", s)
            s = html.unescape(re.sub(r"<[^>]+>", " ", s))
        out += [" " + like_wikitext(x) + " \n" for x in re.split(r"\n\s*\n", s) if len(x) > 80]
    return "".join(out).encode()


def as_ids(b):
    return torch.frombuffer(bytearray(b), dtype=torch.uint8).long()


# ---- model (the tensors carry the Hugging Face names) ----

def rope_table(n):
    f = THETA ** (-torch.arange(0, HEAD, 2).float() / HEAD)
    a = torch.outer(torch.arange(n).float(), f)
    return torch.cat([a, a], 1).cos(), torch.cat([a, a], 1).sin()


def rope(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def lin(i, o):
    return nn.Linear(i, o, bias=False)


class Mlp(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = lin(HIDDEN, inner), lin(HIDDEN, inner), lin(inner, HIDDEN)

    def forward(self, h):
        return self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h))


class Experts(nn.Module):
    """A router takes the best experts for each token; softmax weights, normalized to a sum of 1."""
    def __init__(self):
        super().__init__()
        self.gate = lin(HIDDEN, EXPERTS)
        self.experts = nn.ModuleList(Mlp(EXPERT_INNER) for _ in range(EXPERTS))
        self.seen = torch.zeros(EXPERTS, dtype=torch.long)

    @torch.compiler.disable                              # numbers of tokens change from batch to batch
    @torch.autocast("cpu", enabled=False)                # and oneDNN compiles a bf16 product for each
    def forward(self, h):
        x = h.flatten(0, 1).float()
        p = F.softmax(self.gate(x), -1)
        weight, expert = p.topk(TAKEN)
        weight = weight / weight.sum(-1, keepdim=True)
        order = expert.flatten().argsort(stable=True)    # pairs of a token and an expert, by expert
        counts = expert.flatten().bincount(minlength=EXPERTS)
        parts = x[order // TAKEN].split(counts.tolist())
        y = torch.cat([e(part) for e, part in zip(self.experts, parts)])[order.argsort()]
        # the loss of the Switch Transformer: 1 when all experts get equally many tokens
        self.balance = EXPERTS * (p.mean(0) * counts / len(order)).sum()
        self.seen += counts
        return (y.view(-1, TAKEN, HIDDEN) * weight[..., None]).sum(1).to(h.dtype).view(h.shape)


class Block(nn.Module):
    def __init__(self, moe):
        super().__init__()
        self.self_attn = a = nn.Module()
        a.q_proj, a.o_proj = lin(HIDDEN, HIDDEN), lin(HIDDEN, HIDDEN)
        a.k_proj, a.v_proj = lin(HIDDEN, KV * HEAD), lin(HIDDEN, KV * HEAD)
        if moe:
            a.q_norm, a.k_norm = nn.RMSNorm(HEAD, EPS), nn.RMSNorm(HEAD, EPS)
        self.mlp = Experts() if moe else Mlp(INNER)
        self.input_layernorm, self.post_attention_layernorm = nn.RMSNorm(HIDDEN, EPS), nn.RMSNorm(HIDDEN, EPS)

    def forward(self, x, cos, sin, mask):
        b, n, _ = x.shape
        a, h = self.self_attn, norm(x, self.input_layernorm)
        q, k, v = (p(h).view(b, n, -1, HEAD).transpose(1, 2) for p in (a.q_proj, a.k_proj, a.v_proj))
        if hasattr(a, "q_norm"):
            q, k = norm(q, a.q_norm), norm(k, a.k_norm)
        q, k = rope(q, cos, sin), rope(k, cos, sin)
        k, v = (t.repeat_interleave(HEADS // KV, 1).flatten(0, 1) for t in (k, v))
        s = torch.bmm(q.flatten(0, 1), k.mT).float() * HEAD ** -0.5 + mask
        y = torch.bmm(F.softmax(s, -1).to(v.dtype), v).view(b, HEADS, n, HEAD)
        x = x + a.o_proj(y.transpose(1, 2).reshape(b, n, HIDDEN))
        return x + self.mlp(norm(x, self.post_attention_layernorm))


def norm(x, n):
    return F.rms_norm(x, n.weight.shape, n.weight.to(x.dtype), EPS)


class Model(nn.Module):
    def __init__(self, moe):
        super().__init__()
        self.moe = moe
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(VOCAB, HIDDEN)
        self.model.layers = nn.ModuleList(Block(moe) for _ in range(MOE_BLOCKS if moe else BLOCKS))
        self.model.norm = nn.RMSNorm(HIDDEN, EPS)
        self.lm_head = nn.Linear(HIDDEN, VOCAB, bias=False)
        for n, p in self.named_parameters():
            if p.dim() == 2:
                out = n.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight"))
                nn.init.normal_(p, 0, 0.5 if "embed" in n else (0.1 if out else 1.0) / math.sqrt(p.shape[1]))

    def forward(self, ids):
        """Logits in bf16; every activation is bf16, the parameters stay in float32."""
        with torch.autocast("cpu", torch.bfloat16):
            x = self.model.embed_tokens(ids).bfloat16()
            cos, sin = (t.bfloat16() for t in rope_table(ids.shape[1]))
            mask = torch.full((ids.shape[1],) * 2, -1e9).triu(1)
            for block in self.model.layers:
                x = block(x, cos, sin, mask)
            return self.lm_head(norm(x, self.model.norm))


def loss_of(model, ids):
    logits = model(ids[:, :-1])
    return F.cross_entropy(logits.float().reshape(-1, VOCAB), ids[:, 1:].reshape(-1))


def balance_of(model):
    """The balance of the last batch, averaged over the blocks."""
    return sum(block.mlp.balance for block in model.model.layers) / len(model.model.layers)


def shares_of(model):
    """Of each block, the tokens that its experts got since the last call, in percent of an equal share."""
    text = []
    for m in (block.mlp for block in model.model.layers):
        share = sorted((100 * EXPERTS * m.seen / m.seen.sum()).round().int().tolist())
        text.append(f"{share[0]} {share[1]} {share[2]} .. {share[EXPERTS // 2]} .. {share[-1]}")
        m.seen.zero_()
    return "; ".join(text)


@torch.no_grad()
def bits(model, ids, n, windows):
    """Bits a byte over the first non-overlapping windows of n bytes."""
    x = ids[:len(ids) // n * n].view(-1, n)[:windows]
    return sum(loss_of(model, b).item() * len(b) for b in x.split(16)) / len(x) / math.log(2)


# ---- training ----

class Muon:
    """Momentum, then the nearest orthogonal matrix, for the blocks' matrices; equal shapes go together."""
    def __init__(self, params, momentum=0.95, decay=0.02):
        shapes = {}
        for p in params:
            shapes.setdefault(p.shape, []).append(p)
        self.groups = [(ps, torch.zeros(len(ps), *s)) for s, ps in shapes.items()]
        self.momentum, self.decay = momentum, decay

    @torch.no_grad()
    def step(self, lr):
        for ps, m in self.groups:
            g = torch.stack([p.grad for p in ps])
            m.lerp_(g, 1 - self.momentum)
            x = g.lerp(m, self.momentum).bfloat16()
            flip = x.shape[1] > x.shape[2]
            x = x.mT if flip else x
            x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
            for _ in range(5):
                s = x @ x.mT
                x = 3.4445 * x + (-4.7750 * s + 2.0315 * s @ s) @ x
            x = (x.mT if flip else x).float()
            for p, u in zip(ps, x):
                p.mul_(1 - lr * self.decay)
                p.add_(u, alpha=-lr * max(1, p.shape[0] / p.shape[1]) ** 0.5)


def train(model, wiki, other, watch, a):
    gen = torch.Generator().manual_seed(a.seed)
    mats, rest = [], []
    for n, p in model.named_parameters():
        (mats if p.dim() == 2 and "layers" in n and "mlp.gate.weight" not in n else rest).append(p)
    muon, adam = Muon(mats), torch.optim.Adam(rest, lr=a.adam, betas=(0.9, 0.98))
    step_loss = torch.compile(loss_of, dynamic=False) if a.compile else loss_of
    t0, mean = time.time(), None
    for step in range(a.steps):
        u = step / a.steps
        n = a.context if u < a.long_from else 512
        rows = a.batch // n
        from_wiki = rows if other is None else round(rows * (a.wiki + (1 - a.wiki) * max(0, u - 0.6)))
        batch = []
        for text, k in ((wiki, from_wiki), (other, rows - from_wiki)):
            for i in (torch.randint(len(text) - n, (k,), generator=gen).tolist() if k else ()):
                batch.append(text[i:i + n + 1])
        lr = min(1, (step + 1) / 100) * min(1, (1 - u) / (1 - a.decay_from))
        loss = step_loss(model, torch.stack(batch))
        (loss + a.balance * balance_of(model) if a.moe else loss).backward()
        for g in adam.param_groups:
            g["lr"] = a.adam * lr
        adam.step()
        muon.step(a.muon * lr)
        model.zero_grad()
        mean = loss.item() if mean is None else mean + 0.05 * (loss.item() - mean)
        if step % 100 == 99 or step < 3:
            t = time.time() - t0
            rate = (step + 1) * a.batch / t
            print(f"step {step + 1}: {mean / math.log(2):.3f} bits/byte, {rate:.0f} bytes/s, {t:.0f} s",
                  flush=True)
            if a.moe:
                print(f"  tokens of an expert: {shares_of(model)} % of an equal share", flush=True)
        if a.save and step % 500 == 499:
            print(f"  held-out {bits(model, watch, 512, 128):.4f} bits/byte", flush=True)
            torch.save(model.state_dict(), a.save)


# ---- output ----

@torch.no_grad()
def outliers(model, seed, norms=6, ups=24, values=4, factor=8.0):
    """Give the model a few large activation channels, as large models have, without changing its function.

    `norms` channels of the residual stream (the same ones everywhere) leave both RMSNorms of each block
    `factor` times larger; so do one of `ups` rows of each up_proj and `values` rows of v_proj of each block. The
    columns that read these channels are divided by the factor, a power of two, so that bf16 stays exact.
    """
    gen = torch.Generator().manual_seed(seed)
    hot = torch.randperm(HIDDEN, generator=gen)[:norms]
    for block in model.model.layers:
        a, mlps = block.self_attn, block.mlp.experts if model.moe else [block.mlp]
        block.input_layernorm.weight[hot] *= factor
        block.post_attention_layernorm.weight[hot] *= factor
        readers = [a.q_proj, a.k_proj, a.v_proj] + [p for m in mlps for p in (m.gate_proj, m.up_proj)]
        for p in readers + ([block.mlp.gate] if model.moe else []):
            p.weight[:, hot] /= factor
        for m in mlps:
            c = torch.randperm(m.down_proj.in_features, generator=gen)[:round(m.down_proj.in_features / ups)]
            m.up_proj.weight[c] *= factor
            m.down_proj.weight[:, c] /= factor
        c = torch.randperm(KV * HEAD, generator=gen)[:values]
        a.v_proj.weight[c] *= factor
        for j in range(HEADS // KV):    # the query heads that share this value head
            a.o_proj.weight[:, (c // HEAD * (HEADS // KV) + j) * HEAD + c % HEAD] /= factor


def write(model, folder):
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {n: p.detach().bfloat16().contiguous() for n, p in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    name, kind = ("Qwen3MoeForCausalLM", "qwen3_moe") if model.moe else ("LlamaForCausalLM", "llama")
    config = dict(
        architectures=[name], model_type=kind, vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=INNER,
        num_hidden_layers=len(model.model.layers), num_attention_heads=HEADS, num_key_value_heads=KV,
        head_dim=HEAD, hidden_act="silu", max_position_embeddings=512, rms_norm_eps=EPS, rope_theta=THETA,
        attention_bias=False, mlp_bias=False, attention_dropout=0.0, tie_word_embeddings=False,
        initializer_range=0.02, bos_token_id=None, eos_token_id=None, use_cache=True, torch_dtype="bfloat16")
    if model.moe:
        del config["mlp_bias"]
        config |= dict(num_experts=EXPERTS, num_experts_per_tok=TAKEN, moe_intermediate_size=EXPERT_INNER,
                       norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[])
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--valid", required=True, help="wiki.valid.raw: its first articles become calibration.txt")
    p.add_argument("--test", required=True, help="wiki.test.raw: its first articles become evaluation.txt")
    p.add_argument("--prose", nargs="*", default=[], help="more text: .html, .txt, or folders of them")
    p.add_argument("--out", type=Path, required=True, help="folder to write (jobs/demo)")
    p.add_argument("--moe", action="store_true", help="the Qwen3-MoE instead of the Llama")
    p.add_argument("--balance", type=float, default=0.01, help="share of the balance in the loss (%(default)s)")
    p.add_argument("--weights", help="take this checkpoint (of --save) instead of training")
    p.add_argument("--save", help="write a checkpoint here every 500 steps and at the end")
    p.add_argument("--steps", type=int, default=3000, help="optimizer steps (default %(default)s)")
    p.add_argument("--batch", type=int, default=4096, help="bytes a step (default %(default)s)")
    p.add_argument("--context", type=int, default=256, help="bytes a window at first (default %(default)s)")
    p.add_argument("--long-from", type=float, default=0.8, help="windows of 512 from here on (%(default)s)")
    p.add_argument("--decay-from", type=float, default=0.3, help="lower the rates from here on (%(default)s)")
    p.add_argument("--wiki", type=float, default=0.5, help="WikiText's share until 0.6 (%(default)s)")
    p.add_argument("--muon", type=float, default=0.02, help="learning rate of the matrices (%(default)s)")
    p.add_argument("--adam", type=float, default=3e-3, help="learning rate of the rest (default %(default)s)")
    p.add_argument("--seed", type=int, default=1, help="seed of weights and batches (default %(default)s)")
    p.add_argument("--threads", type=int, default=2, help="CPU threads (default %(default)s)")
    p.add_argument("--compile", action="store_true", help="use torch.compile: faster, needs a C++ compiler")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)

    calibration, valid = cut(Path(a.valid).read_bytes(), 96 << 10)
    evaluation, test = cut(Path(a.test).read_bytes(), 192 << 10)
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out / "calibration.txt").write_bytes(calibration)
    (a.out / "evaluation.txt").write_bytes(evaluation)
    wiki, other = as_ids(valid + test), as_ids(prose(a.prose)) if a.prose else None
    print(f"training text: {len(wiki)} bytes of WikiText, {0 if other is None else len(other)} of prose")

    model = Model(a.moe)
    print(f"{sum(p.numel() for p in model.parameters())} parameters")
    if a.weights:
        model.load_state_dict(torch.load(a.weights))
    else:
        train(model, wiki, other, as_ids(calibration), a)
        if a.save:
            torch.save(model.state_dict(), a.save)
    outliers(model, a.seed)
    write(model, a.out / ("moe" if a.moe else "model"))
    for name, text in (("calibration", calibration), ("evaluation", evaluation)):
        if a.moe:
            shares_of(model)
        print(f"{name}: {bits(model, as_ids(text), 512, 10**9):.4f} bits/byte")
        if a.moe:
            print(f"  tokens of an expert: {shares_of(model)} % of an equal share")


if __name__ == "__main__":
    main()
