#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Let `blockq generate` continue texts, and print what it writes as text.

    generate.py MODEL_DIR "The capital of France is" "def fibonacci(n):"
    generate.py demo.run "The " --tokenizer bytes -- --temperature 0.7 --seed 3

The first argument is a model or a finished run, as `blockq generate` takes it; of a run both the original and the
result continue the texts. What follows -- goes to blockq as it is. Needs numpy, and tokenizers unless --tokenizer is
bytes.
"""
import argparse
import subprocess
import sys

import prepare
from prepare import DataError


def open_tokenizer(path, rule):
    """(text to ids, ids to text)."""
    if path == "bytes":
        if rule == "yes":
            raise DataError("--tokenizer bytes has no BOS token: use --bos auto or no")
        return lambda text: list(text.encode("utf-8")), lambda ids: bytes(i % 256 for i in ids).decode("utf-8", "replace")
    tok, _, config = prepare.load_tokenizer(path)
    bos = prepare.find_bos(tok, config, rule)
    front = [bos] if bos >= 0 else []
    return (lambda text: front + tok.encode(text, add_special_tokens=False).ids,
            lambda ids: tok.decode(ids, skip_special_tokens=False))


def generate(a):
    encode, decode = open_tokenizer(a.tokenizer or a.path, a.bos)
    command = [a.blockq, "generate", a.path, "-n", str(a.count)]
    for text in a.text:
        ids = encode(text)
        if not ids:
            raise DataError(f"{text!r} gives no tokens: give a text, or --bos yes")
        command += ["--prompt-tokens", ",".join(map(str, ids))]
    done = subprocess.run(command + a.more, stdout=subprocess.PIPE, text=True, check=False)
    for line in done.stdout.splitlines():
        name, _, ids = line.rpartition(": ")
        weights, _, number = name.rpartition(" ")
        # a character may have the end of the prompt and the first new token in it, so both are decoded together
        print(f"{weights}: {decode(encode(a.text[int(number)]) + [int(i) for i in ids.split(',')])!r}")
    return done.returncode


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    at = argv.index("--") if "--" in argv else len(argv)
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                epilog="Exit status: 0 done, 2 usage, 3 bad or missing data; else blockq's own.")
    p.add_argument("path", metavar="MODEL|RUN", help="what continues the texts")
    p.add_argument("text", metavar="TEXT", nargs="+", help="a prompt, at most 16")
    p.add_argument("-n", "--count", metavar="N", type=int, default=32, help="tokens to add to each (32)")
    p.add_argument("--tokenizer", metavar="PATH",
                   help="a model's folder, a tokenizer.json, or the word bytes (the folder MODEL; needed for a run "
                        "and for a GGUF file)")
    p.add_argument("--bos", choices=["auto", "yes", "no"], default="auto",
                   help="put one BOS in front of each text: as the tokenizer does by itself (default), always, never")
    p.add_argument("--blockq", metavar="FILE", default="blockq", help="the program (blockq)")
    a = p.parse_args(argv[:at])
    a.more = argv[at + 1:]
    try:
        return generate(a)
    except (DataError, OSError) as e:
        print(f"generate: {e}", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
