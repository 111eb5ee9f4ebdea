#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Four byte-level BPE tokenizers that the package tokenizers trains, and the ids that it makes of hard texts.

    make_peer_tokens.py wiki.valid.raw OUT_DIR        # needs tokenizers
"""
import json
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, __version__
from tokenizers.models import BPE
from tokenizers.normalizers import NFC
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
END = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + END
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + END


def level(regex):
    return ByteLevel(add_prefix_space=False, use_regex=regex)


WAYS = {
    "gpt2": level(True),
    "digits": Sequence([Digits(individual_digits=True), level(True)]),
    "llama3": Sequence([Split(Regex(LLAMA3), "isolated"), level(False)]),
    "qwen2": Sequence([Split(Regex(QWEN2), "isolated"), level(False)]),
}
TEXTS = [
    "Hello world", "  leading and   runs \t\t of\n\n\n blanks  \r\n\r\n x ",
    "don't DON'T we'LL I'd've 'S 'tis o'ſ it'ſa ’s",
    "1 12 123 1234 12345678 3.14 1,000 ½ ² Ⅷ ٣٤ 一二 x1y22z333",
    "café CAFÉ naïve Ünïcode ß ﬁ ǅ", "日本語のテキスト 中文 한국어 العربية हिन्दी ไทย",
    "emoji 😀😀 👩‍👩‍👧 🇩🇪 ☃ ♥️", "a<|end|>b <|end|><|end|> <|endx <|end |>",
    "\u00a0nbsp\u2003em\u3000ideo\u2028line\u0085nel\x1cfs\x0bvt\x0c", "\x01\x02\x7f\x80", 80 * "a",
    "!!!???...---___===\n\n---\r\n+++", "def f(x):\n    return x**2  # comment\n\n\n    y = 'it''s'\n", " ", "\n",
    "\r", "  \n  ", "a  \n", "\n\n  a", "tail  ", "x \u00a0 y", "..a ..1 ..\na", "'", "''", "'l", "'re", "'RE'",
    " 's", "\u0301combining e\u0301 o\u0308", "𝒳 𝟙 𐍈 \U0010ffff",
]
POOL = [*"aB1 \n\r\t'.sldm\u00e9\u4e00\u0663\u2003-_", "'re", "<|end|>", "😀", "  ", "\r\n"]


def main(corpus, out):
    rng = random.Random(1)
    texts = TEXTS + ["".join(rng.choice(POOL) for _ in range(rng.randrange(1, 60))) for _ in range(150)]
    with open(corpus, encoding="utf-8") as f:
        text = f.read()[:300000]
    for name, way in WAYS.items():
        t = Tokenizer(BPE(ignore_merges=name == "llama3"))
        t.pre_tokenizer = way
        if name == "qwen2":
            t.normalizer = NFC()
        # without tokens for two bytes, as in SmolLM2's
        alphabet = [c for c in ByteLevel.alphabet() if name != "digits" or c not in "Ģģ"]
        t.train_from_iterator([text], BpeTrainer(vocab_size=700, initial_alphabet=alphabet,
                                                 special_tokens=["<|bos|>", "<|end|>"], show_progress=False))
        if name == "gpt2":
            t.add_tokens([AddedToken("Hello", normalized=True), AddedToken("<|end |>", normalized=False)])
        if name == "llama3":
            t.post_processor = TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", 0)])
        raw = json.loads(t.to_str())
        if name == "gpt2":  # the older form
            raw["model"]["merges"] = [" ".join(merge) for merge in raw["model"]["merges"]]
        cases = [{"text": x, "ids": t.encode(x, add_special_tokens=False).ids} for x in texts]
        for ending, value in ((".tokenizer", raw), ("", {"made_by": f"tokenizers {__version__}", "cases": cases})):
            with open(f"{out}/peer_tokens_{name}{ending}.json", "w", encoding="utf-8") as f:
                json.dump(value, f, ensure_ascii=False, separators=(",", ":"))
                f.write("\n")


main(sys.argv[1], sys.argv[2])
