#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tokenize text into tokens.h5, the file that blockq calibrates and evaluates on.

    prepare.py wiki.test.raw -o test.h5 --tokenizer MODEL_DIR              # the file's bytes as they are
    prepare.py wiki.test.raw -o test.h5 --tokenizer MODEL_DIR --join rows  # as papers on WikiText-2 do it
    prepare.py book.txt -o book.h5 --tokenizer bytes                       # token = byte, needs no tokenizer

The whole text is tokenized by one call. Several files are put one behind the other first. The HDF5 file
holds /tokens (int32) and, as attributes, what made it: hashes of text and tokenizer, joiner, BOS.
Perplexities compare only between files made alike. The same input gives the same bytes. Needs numpy, h5py and
tokenizers.
"""
import argparse
import contextlib
import hashlib
import json
import os
import sys

try:
    import numpy as np
except ImportError:
    print("prepare: the Python package numpy is missing: pip install numpy", file=sys.stderr)
    sys.exit(3)


class DataError(Exception):
    """The input cannot be used; the text names file, value and remedy."""


def read_text(paths, utf8):
    parts = []
    for path in paths:
        try:
            with open(path, "rb") as f:
                raw = f.read()
            if utf8:
                raw.decode("utf-8")
        except OSError as e:
            raise DataError(f"{path}: cannot be read: {e.strerror}") from None
        except UnicodeDecodeError as e:
            raise DataError(f"{path}: byte {e.start} (0x{raw[e.start]:02x}) is not UTF-8: convert the file "
                            "with iconv, or use --tokenizer bytes") from None
        parts.append(raw)
    return b"".join(parts)


def join_rows(raw):
    """The rows of the wikitext data set, joined by two newlines: a line with its newline, '' if blank."""
    lines = raw.decode("utf-8").split("\n")
    last = lines.pop()
    rows = [line + "\n" if line.strip() else "" for line in lines]
    if last:
        rows.append(last if last.strip() else "")
    return "\n\n".join(rows).encode("utf-8")


def load_tokenizer(path):
    """(tokenizer, sha256 of tokenizer.json, settings of tokenizer_config.json beside it or {})."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise DataError("the Python package tokenizers is missing: pip install tokenizers") from None
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    path = os.path.join(path, "tokenizer.json") if os.path.isdir(path) else path
    try:
        with open(path, "rb") as f:
            raw = f.read()
        tok = Tokenizer.from_str(raw.decode("utf-8"))
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror}: --tokenizer wants a model folder with "
                        "tokenizer.json, that file, or 'bytes'") from None
    except Exception as e:  # tokenizers raises plain Exception
        raise DataError(f"{path}: is no tokenizer of Hugging Face tokenizers: {e}") from None
    tok.no_truncation()
    tok.no_padding()
    config, beside = {}, os.path.join(folder, "tokenizer_config.json")
    if os.path.exists(beside):
        try:
            with open(beside, encoding="utf-8") as f:
                config = json.load(f)
        except ValueError as e:
            raise DataError(f"{beside}: is no JSON: {e}") from None
    return tok, hashlib.sha256(raw).hexdigest(), config


def find_bos(tok, config, rule):
    """The id to put once in front of the text, or -1. 'auto': what the tokenizer does by itself."""
    if rule == "no":
        return -1
    plain = tok.encode("a", add_special_tokens=False).ids
    full = tok.encode("a", add_special_tokens=True).ids
    own = full[0] if len(full) > len(plain) and full[1:1 + len(plain)] == plain else -1
    name = config.get("bos_token")
    name = name.get("content") if isinstance(name, dict) else name
    named = tok.token_to_id(name) if isinstance(name, str) else None
    wanted = config.get("add_bos_token")
    if rule == "auto" and not (own >= 0 if wanted is None else wanted):
        return -1
    bos = named if named is not None else own
    if bos < 0:
        raise DataError(f"the tokenizer names no BOS token (bos_token in tokenizer_config.json is {name!r}): "
                        "use --bos no, or give the folder that holds both files")
    return bos


def tokenize(raw, tokenizer, rule):
    """(ids as int32, number of ids, name of the tokenizer, BOS id or -1)."""
    if tokenizer == "bytes":
        if rule == "yes":
            raise DataError("--tokenizer bytes has no BOS token: use --bos auto or no")
        return np.frombuffer(raw, np.uint8).astype("<i4"), 256, "bytes", -1
    tok, digest, config = load_tokenizer(tokenizer)
    bos = find_bos(tok, config, rule)
    ids = tok.encode(raw.decode("utf-8"), add_special_tokens=False).ids
    vocab = max(tok.get_vocab(with_added_tokens=True).values()) + 1
    return np.array(([bos] if bos >= 0 else []) + ids, "<i4"), vocab, digest, bos


def put_string(h5py, f, name, text):
    """A fixed-length, null-terminated ASCII attribute: a C program reads it into a char array."""
    raw = text.encode("ascii")
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(len(raw) + 1)
    attr = h5py.h5a.create(f.id, name.encode(), kind, h5py.h5s.create(h5py.h5s.SCALAR))
    attr.write(np.array(raw, f"S{len(raw) + 1}"))


def write_tokens(path, ids, vocab, tokenizer, text, joiner, bos):
    """Write the file under another name first, so that it is complete or absent. No link is followed.
    blockq reads the earliest of HDF5's formats."""
    import h5py
    temp = f"{path}.{os.getpid()}.tmp"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temp)
    with h5py.File(temp, "x", libver="earliest") as f:
        put_string(h5py, f, "format", "blockq tokens")
        f.attrs.create("version", 1, (), "<i4")
        f.attrs.create("vocab", vocab, (), "<i8")
        put_string(h5py, f, "tokenizer", tokenizer)
        put_string(h5py, f, "text", text)
        put_string(h5py, f, "joiner", joiner)
        f.attrs.create("bos", bos, (), "<i4")
        f.create_dataset("tokens", data=np.ascontiguousarray(ids, "<i4"), track_times=False)
    os.replace(temp, path)


def check_place(a):
    """What is at -o is replaced: it has to be a file, and none of the texts, by whatever name."""
    if not os.path.exists(a.output):
        return
    if not os.path.isfile(a.output):
        raise DataError(f"{a.output}: is not a regular file: give another -o")
    for text in a.text:
        if os.path.exists(text) and os.path.samefile(text, a.output):
            raise DataError(f"{a.output}: is the text {text}: give another -o")


def prepare(a):
    check_place(a)
    raw = read_text(a.text, utf8=a.tokenizer != "bytes" or a.join == "rows")
    raw = join_rows(raw) if a.join == "rows" else raw
    ids, vocab, name, bos = tokenize(raw, a.tokenizer, a.bos)
    if not len(ids):
        raise DataError(f"{', '.join(a.text)}: gives no tokens at all: is the text empty?")
    if ids.min() < 0 or ids.max() >= vocab:
        raise DataError(f"{a.tokenizer}: gives ids {ids.min()} to {ids.max()}, outside of its {vocab}")
    write_tokens(a.output, ids, vocab, name, hashlib.sha256(raw).hexdigest(), a.join, bos)
    print(f"{a.output}: {len(ids)} tokens of {vocab} ids, {len(raw)} bytes of text, joiner {a.join}, "
          + (f"BOS {bos} in front" if bos >= 0 else "no BOS"))


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                epilog="Exit status: 0 done, 2 usage, 3 bad or missing data.")
    p.add_argument("text", metavar="TEXT", nargs="+", help="UTF-8 text file")
    p.add_argument("-o", "--output", metavar="tokens.h5", required=True, help="file to write")
    p.add_argument("--tokenizer", metavar="PATH", required=True,
                   help="a model's folder (its tokenizer_config.json then decides on BOS), a tokenizer.json, "
                        "or the word bytes (./bytes for a folder of that name)")
    p.add_argument("--join", choices=["raw", "rows"], default="raw",
                   help="raw (default): the text as it is. rows: the rows of the wikitext data set, rebuilt "
                        "from the raw file (blank lines become empty rows) and joined by two newlines")
    p.add_argument("--bos", choices=["auto", "yes", "no"], default="auto",
                   help="put one BOS in front of the whole text: as the tokenizer does by itself (default), "
                        "always, never")
    a = p.parse_args(argv)
    try:
        prepare(a)
    except ImportError as e:
        print(f"prepare: the Python package {e.name} is missing: pip install {e.name}", file=sys.stderr)
        return 3
    except (DataError, OSError) as e:
        print(f"prepare: {e}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
