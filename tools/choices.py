#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tokenize multiple-choice questions into the file that `"eval": "choice"` of a recipe reads.

    choices.py questions.jsonl -o questions.json --tokenizer MODEL_DIR
    blockq eval --model MODEL_DIR --eval choice:questions.json

A line of questions.jsonl is an object: {"context": "The sky is", "choices": [" blue", " green"], "answer": 0}.
A choice is put behind the context as it is, so it begins with a blank where one is wanted; --delimiter " " puts
one between them, as most tasks of lm-evaluation-harness do. As there, context and choice are tokenized together,
and the tokens behind those of the context alone are the choice's; blanks at the end of the context count as the
choice's. Several files are put one behind the other. The same input gives the same bytes. An item may have a
"subject"; all do, or none. Needs numpy, and tokenizers unless --tokenizer is bytes.

--style reads the lines of a data set, and makes the prompts that lm-evaluation-harness (0.4.13) makes of them:

    mmlu       {"question": .., "subject": .., "choices": [4 texts], "answer": 0 to 3}; with --shots 5 --examples
               dev.jsonl the first 5 questions of the same subject in dev.jsonl come first, with their answers
    hellaswag  {"activity_label": .., "ctx_a": .., "ctx_b": .., "endings": [texts], "label": "0"}
    arc        {"question": .., "choices": {"text": [..], "label": [..]}, "answerKey": "A"}
"""
import argparse
import contextlib
import json
import os
import re
import sys

import prepare
from prepare import DataError


def read_lines(paths):
    """(place for messages, object) of each line that is not blank."""
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
    return item


def take(place, item, key, kind):
    """A value of the kind: str, list (of texts) or dict."""
    value = item.get(key)
    if not isinstance(value, kind) or (kind is list and not all(isinstance(c, str) for c in value)):
        name = {str: "a text", list: "a list of texts", dict: "an object"}[kind]
        raise DataError(f"{place}: {key} is {repr(value)[:60]}: give {name}")
    return value


# ---- styles: an object to (context, choices, answer, subject), as lm-evaluation-harness does ----

def plain(place, item, _):
    return take(place, item, "context", str), item.get("choices"), item.get("answer"), item.get("subject", "")


def mmlu_question(place, item):
    choices = take(place, item, "choices", list)
    if len(choices) != 4 or item.get("answer") not in (0, 1, 2, 3):
        raise DataError(f"{place}: give 4 choices, and the answer as 0 to 3")
    lines = [f"{letter}. {choice}" for letter, choice in zip("ABCD", choices)]
    return "\n".join([take(place, item, "question", str).strip(), *lines, "Answer:"])


def mmlu(place, item, examples):
    subject = take(place, item, "subject", str)
    if examples is not None and subject not in examples:
        raise DataError(f"{place}: --examples has no questions of the subject {subject}")
    shots = [f"{mmlu_question(*example)} {'ABCD'[example[1]['answer']]}\n\n" for example in (examples or {}).get(subject, [])]
    about = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
    return about + "".join(shots) + mmlu_question(place, item), list("ABCD"), item["answer"], subject


def without_brackets(text):
    return re.sub("\\[.*?\\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def hellaswag(place, item, _):
    label, scene = item.get("label"), f"{take(place, item, 'ctx_a', str)} {take(place, item, 'ctx_b', str).capitalize()}"
    return (without_brackets(f"{take(place, item, 'activity_label', str)}: {scene}"),
            [without_brackets(text) for text in take(place, item, "endings", list)],
            int(label) if isinstance(label, str) and label.isdecimal() else label, "")


def arc(place, item, _):
    of = take(place, item, "choices", dict)
    labels, key = take(place, of, "label", list), item.get("answerKey")
    if key not in labels:
        raise DataError(f"{place}: answerKey is {key!r}: give one of {', '.join(labels)}")
    return f"Question: {take(place, item, 'question', str)}\nAnswer:", take(place, of, "text", list), labels.index(key), ""


STYLES = {"plain": plain, "mmlu": mmlu, "hellaswag": hellaswag, "arc": arc}


def read_examples(path, shots):
    """The first questions of each subject, or None."""
    if not shots:
        return None
    found = {}
    for place, item in read_lines([path]):
        of = found.setdefault(take(place, item, "subject", str), [])
        if len(of) < shots:
            of.append((place, item))
    for subject, of in found.items():
        if len(of) < shots:
            raise DataError(f"{path}: has {len(of)} questions of the subject {subject}, --shots is {shots}")
    return found


def read_items(a):
    examples = read_examples(a.examples, a.shots)
    for place, item in read_lines(a.text):
        context, choices, answer, subject = STYLES[a.style](place, item, examples)
        if not isinstance(choices, list) or not 2 <= len(choices) <= 26 or not all(isinstance(c, str) for c in choices):
            raise DataError(f"{place}: choices is {str(choices)[:60]}: give a list of 2 to 26 texts")
        if type(answer) is not int or not 0 <= answer < len(choices):
            raise DataError(f"{place}: answer is {answer!r}: give the number of the right choice, 0 to {len(choices) - 1}")
        if not isinstance(subject, str) or len(subject.encode("utf-8")) > 63:
            raise DataError(f"{place}: subject is {subject!r}: give a text of at most 63 bytes")
        yield place, (context, choices, answer, subject)


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
    context, choices, answer, subject = item
    parts = [split(encode, context, delimiter + choice) for choice in choices]
    ids = front + parts[0][0]
    if not ids:
        raise DataError(f"{place}: context {context!r} gives no tokens: give a context, or --bos yes")
    for number, (_, own) in enumerate(parts):
        if not own:
            raise DataError(f"{place}: choice {number}, {choices[number]!r}, gives no tokens of its own: give a text")
    lengths = {"characters": [len(c) for c in choices], "bytes": [len(c.encode("utf-8")) for c in choices]}
    return {"context": ids, "choices": [own for _, own in parts], "answer": answer,
            **({"subject": subject} if subject else {}), **lengths}


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
    delimiter = a.delimiter if a.style == "plain" else " "
    items = [tokenize(place, item, encode, front, delimiter) for place, item in read_items(a)]
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
    p.add_argument("--style", choices=STYLES, default="plain", help="what a line is (plain: as above)")
    p.add_argument("--shots", metavar="N", type=int, default=0, help="questions with answers in front, of mmlu (0)")
    p.add_argument("--examples", metavar="FILE.jsonl", help="where these are taken from")
    p.add_argument("--delimiter", metavar="TEXT", default="",
                   help="text between context and choice (none; the other styles have a blank there)")
    p.add_argument("--bos", choices=["auto", "yes", "no"], default="auto",
                   help="put one BOS in front of each context: as the tokenizer does by itself (default), "
                        "always, never")
    a = p.parse_args(argv)
    if a.shots < 0 or (a.shots and a.style != "mmlu"):
        p.error("--shots is for --style mmlu")
    if bool(a.shots) != bool(a.examples):
        p.error("--shots and --examples belong together")
    try:
        choices(a)
    except (DataError, OSError) as e:
        print(f"choices: {e}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
