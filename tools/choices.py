#!/usr/bin/env python3
"""Tokenize multiple-choice questions into the file that `"eval": "choice"` of a recipe reads.

    choices.py questions.jsonl -o questions.json --tokenizer MODEL_DIR
    blockq eval --model MODEL_DIR --eval choice:questions.json

A line of questions.jsonl is an object: {"context": "The sky is", "choices": [" blue", " green"], "answer": 0}.
A choice is put behind the context as it is, so it begins with a blank where one is wanted; --delimiter " " puts
one between them, as most tasks of lm-evaluation-harness do. As there, context and choice are tokenized together,
and the tokens behind those of the context alone are the choice's; blanks at the end of the context count as the
choice's. Several files are put one behind the other. The same input gives the same bytes. Needs numpy, and
tokenizers unless --tokenizer is bytes.
"""
import argparse
import contextlib
import json
import os
import sys

import prepare
from prepare import DataError


def read_items(paths):
    """(place for messages, question) of each line that is not blank."""
    for path in paths:
        lines = prepare.read_text([path], utf8=True).decode("utf-8").split("\n")
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{path}:{number}", parse(f"{path}:{number}", line)


def parse(place, line):
    try:
        item = json.loads(line)
    except ValueError as e:
        raise DataError(f"{place}: is no JSON: {e}") from None
    if not isinstance(item, dict):
        raise DataError(f"{place}: is no object: write one question a line")
    context, choices, answer = (item.get(key) for key in ("context", "choices", "answer"))
    if not isinstance(context, str):
        raise DataError(f"{place}: context is {context!r}: give a text")
    if not isinstance(choices, list) or not 2 <= len(choices) <= 26 or not all(isinstance(c, str) for c in choices):
        raise DataError(f"{place}: choices is {str(choices)[:60]}: give a list of 2 to 26 texts")
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise DataError(f"{place}: answer is {answer!r}: give the number of the right choice, 0 to {len(choices) - 1}")
    return context, choices, answer


def split(encode, context, choice):
    """Ids of the context and of the choice, as lm-evaluation-harness parts them."""
    blanks = len(context) - len(context.rstrip())
    if blanks:
        context, choice = context[:-blanks], context[-blanks:] + choice
    front = encode(context)
    return front, encode(context + choice)[len(front):]


def open_tokenizer(path, rule):
    """(text to ids, number of ids, name, ids in front of each context)."""
    if path == "bytes":
        if rule == "yes":
            raise DataError("--tokenizer bytes has no BOS token: use --bos auto or no")
        return lambda text: list(text.encode("utf-8")), 256, "bytes", []
    tok, digest, config = prepare.load_tokenizer(path)
    bos = prepare.find_bos(tok, config, rule)
    vocab = max(tok.get_vocab(with_added_tokens=True).values()) + 1
    return lambda text: tok.encode(text, add_special_tokens=False).ids, vocab, digest, [bos] if bos >= 0 else []


def tokenize(place, item, encode, front, delimiter):
    context, choices, answer = item
    parts = [split(encode, context, delimiter + choice) for choice in choices]
    ids = front + parts[0][0]
    if not ids:
        raise DataError(f"{place}: context {context!r} gives no tokens: give a context, or --bos yes")
    for number, (_, own) in enumerate(parts):
        if not own:
            raise DataError(f"{place}: choice {number}, {choices[number]!r}, gives no tokens of its own: give a text")
    return {"context": ids, "choices": [own for _, own in parts], "answer": answer}


def write(path, vocab, name, items):
    """Write the file under another name first, so that it is complete or absent."""
    temp = f"{path}.{os.getpid()}.tmp"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temp)
    with open(temp, "x", encoding="ascii") as f:
        f.write(f'{{"vocab": {vocab}, "tokenizer": "{name}", "items": [\n')
        f.write(",\n".join(json.dumps(item, separators=(",", ":")) for item in items))
        f.write("\n]}\n")
    os.replace(temp, path)


def choices(a):
    prepare.check_place(a)
    encode, vocab, name, front = open_tokenizer(a.tokenizer, a.bos)
    items = [tokenize(place, item, encode, front, a.delimiter) for place, item in read_items(a.text)]
    if not items:
        raise DataError(f"{', '.join(a.text)}: has no questions at all: is the file empty?")
    write(a.output, vocab, name, items)
    longest = max(len(i["context"]) + max(map(len, i["choices"])) for i in items)
    print(f"{a.output}: {len(items)} questions, {longest} tokens the longest, tokens of {vocab} ids, "
          + (f"BOS {front[0]} in front" if front else "no BOS"))


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                epilog="Exit status: 0 done, 2 usage, 3 bad or missing data.")
    p.add_argument("text", metavar="QUESTIONS.jsonl", nargs="+", help="questions, one JSON object a line")
    p.add_argument("-o", "--output", metavar="questions.json", required=True, help="file to write")
    p.add_argument("--tokenizer", metavar="PATH", required=True,
                   help="a model's folder (its tokenizer_config.json then decides on BOS), a tokenizer.json, "
                        "or the word bytes (./bytes for a folder of that name)")
    p.add_argument("--delimiter", metavar="TEXT", default="", help="text between context and choice (none)")
    p.add_argument("--bos", choices=["auto", "yes", "no"], default="auto",
                   help="put one BOS in front of each context: as the tokenizer does by itself (default), "
                        "always, never")
    a = p.parse_args(argv)
    try:
        choices(a)
    except (DataError, OSError) as e:
        print(f"choices: {e}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
