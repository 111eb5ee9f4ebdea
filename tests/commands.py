#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""commands.py BLOCKQ: every command that the docs and help texts print can be given as printed.

Of blockq each option and value is parsed, and a recipe with its --set is read; of scripts the file is there, parses, and
knows the options.  A command of a program that is not listed here fails, so that somebody decides how to check it.
"""
import glob
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BLOCKQ = os.path.abspath(sys.argv[1])
# of others: they install, build packages or talk to a cluster
OTHERS = {"apt-get", "git", "module", "spack", "apptainer", "printf", "chmod", "scancel", "cd", "export", "cpack", "xargs", "echo", "touch", "cat",
          "awk", "srun", "salloc", "squeue", "rm", "mkdir", "sha256sum", "vllm", "cmp", "nsys", "compute-sanitizer", "valgrind", "pip"}
COMMANDS = "run plan sweep eval generate export import compare inspect tokens status report clean".split()
failures, count = [], {"blockq": 0, "recipe": 0, "script": 0, "other": 0}


def call(words, folder=ROOT):
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout + done.stderr


def options(words):
    return [w.split("=")[0] for w in words if re.match(r"--?[a-zA-Z]", w)]


def check_blockq(words, where):
    if any(w in ("...", "COMMAND") for w in words):
        return
    words = [w for i, w in enumerate(words)  # without redirections, with or without a blank behind the sign
             if not re.match(r"[0-9]?[<>]", w) and not (i and re.fullmatch(r"[0-9]?[<>]+", words[i - 1]))]
    count["blockq"] += 1
    command = words[0] if words else ""
    code, text = call([BLOCKQ, *words] if command in ("help", "--version", "--help") else [BLOCKQ, *words, "--help"])
    if code:
        failures.append(f"{where}: blockq {' '.join(words)}: {text.strip().splitlines()[0]}")
    elif command in ("run", "plan", "sweep"):
        check_recipe(words[1:], where)


def check_recipe(words, where):
    keep, takes = [], False
    for word in words:
        if takes or word.split("=")[0] in ("--set", "--preset") or word.endswith(".json"):
            keep.append(word)
        takes = word in ("--set", "--preset")
    recipes = [w for w in keep if w.endswith(".json") and "=" not in w]
    if any(not os.path.exists(os.path.join(ROOT, r)) for r in recipes) or not (recipes or "--preset" in keep):
        return  # a recipe of the reader's own, or a bare name
    for recipe in recipes or [None]:
        count["recipe"] += 1
        code, text = call([BLOCKQ, "plan", *(w for w in keep if w == recipe or w not in recipes)])
        if code not in (0, 3) and "memory" not in text and "model is missing" not in text:
            failures.append(f"{where}: the recipe is refused: {text.strip().splitlines()[0]}")


def check_script(words, where):
    script = next((w for w in words if re.search(r"\.(sh|py)$", w)), None)
    if not script:
        return failures.append(f"{where}: no script in: {' '.join(words)}")
    path = os.path.join(ROOT, script)
    if not os.path.exists(path):
        return failures.append(f"{where}: {script} does not exist")
    count["script"] += 1
    after = words[words.index(script) + 1:]
    after = after[:after.index("--")] if "--" in after else after
    with open(path, encoding="utf-8") as f:
        source = f.read()
    if script.endswith(".sh") and call(["bash", "-n", path])[0]:
        failures.append(f"{where}: {script} does not parse")
    for option in options(after):
        if option not in source:
            failures.append(f"{where}: {script} has no option {option}")


def check_cmake(words, where):
    with open(os.path.join(ROOT, "CMakePresets.json"), encoding="utf-8") as f:
        presets = [p["name"] for p in json.load(f)["configurePresets"]]
    with open(os.path.join(ROOT, "CMakeLists.txt"), encoding="utf-8") as f:
        known = f.read() + open(os.path.join(ROOT, "cmake/blas.cmake"), encoding="utf-8").read()
    count["other"] += 1
    if "--preset" in words and words[words.index("--preset") + 1] not in presets:
        failures.append(f"{where}: no such preset: {' '.join(words)}")
    for name in re.findall(r"-D(BQ_[A-Z0-9_]+)", " ".join(words)):
        if name not in known:
            failures.append(f"{where}: CMake has no option {name}")


def check(words, where):
    while words and re.match(r"[A-Z_a-z0-9]+=", words[0]):
        words = words[1:]
    if not words:
        return
    program = os.path.basename(words[0])
    if program in ("mpirun", "srun", "timeout", "nohup"):
        at = next((i for i, w in enumerate(words) if os.path.basename(w) == "blockq"), None)
        if at is not None:
            check_blockq(words[at + 1:], where)
    elif program == "blockq":
        check_blockq(words[1:], where)
    elif program in ("bash", "sh", "python3", "sbatch"):
        if words[1] != "-":
            check_script(words[1:], where)
    elif program == "cmake":
        check_cmake(words, where)
    elif program in OTHERS:
        count["other"] += 1
    else:
        failures.append(f"{where}: {program}: nothing here says how to check it")


def check_line(line, where):
    try:
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        lexer.whitespace_split = True
        lexer.commenters = "#"
        words = list(lexer)
    except ValueError as e:
        return failures.append(f"{where}: {e}: {line}")
    statement = []
    for word in [*words, "&&"]:
        if set(word) <= set("&|;"):
            check(statement, where)
            statement = []
        else:
            statement.append(word)


def lines_of(path):
    """Lines of code blocks of the shell, joined where they end with a backslash, without here-documents."""
    inside, text, end = None, "", None
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            line = line.rstrip("\n")
            fence = re.match(r"\s*```(\w*)", line)
            if fence:
                inside = None if inside is not None else fence.group(1)
            elif inside in ("sh", "bash"):
                if end:
                    end = None if line == end else end
                    continue
                text += line[:-1] if line.endswith("\\") else line
                if line.endswith("\\"):
                    continue
                here = re.search(r"<<'?(\w+)'?", text)
                end = here.group(1) if here else None
                yield number, re.sub(r"<<'?\w+'?", "", text)
                text = ""


def check_index():
    """Every recipe has a row in configs/README.md, and every row a recipe."""
    with open("configs/README.md", encoding="utf-8") as f:
        rows = set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in f if line.startswith("| `"))))
    files = {os.path.basename(path)[:-5] for path in glob.glob("configs/*.json")}
    failures.extend(f"configs/README.md: {name} has no row or no file" for name in sorted(rows ^ files))


def main():
    os.chdir(ROOT)
    check_index()
    pages = ["README.md", "CONTRIBUTING.md", "tools/README.md", *sorted(glob.glob("docs/*.md"))]
    for page in pages:
        for number, line in lines_of(page):
            check_line(line, f"{page}:{number}")
    for command in COMMANDS:
        text = call([BLOCKQ, command, "--help"])[1]
        examples = re.sub(r"\n(?! *(?:blockq|mpirun) )\s*", " ", text[text.index("Example:") + 8:])  # argp has wrapped them
        for line in examples.strip().splitlines():
            check_line(line.strip(), f"blockq {command} --help")
    code, text = call([BLOCKQ, "--help"])
    first = re.search(r"A first run: (.*)", text).group(1)
    with tempfile.TemporaryDirectory() as folder:
        small = "--set calibration.samples=2 --set phases.0.passes.0.iterations=2 --set eval.windows=2".split()
        code, text = call([BLOCKQ, *first.split()[1:], *small], folder)
    if code or "result: fp=" not in text:
        failures.append(f"blockq --help: {first}: {text}")
    print(", ".join(f"{n} {what}" for what, n in count.items()), "checked;", len(failures), "failed")
    print("\n".join(failures))
    return 1 if failures or count["blockq"] < 30 or count["script"] < 30 else 0


sys.exit(main())
