"""Would a test notice a wrong constant or a missing call in a core?  `python tools/mutate_cores.py bsd.pyx`.

One change at a time goes into a copy of the source tree: a constant or number that is one off, a byte order
left out, a statement left out, a condition turned round.  What no test of tests/elsewhere notices is printed.
The order is random, so that a run with a limit of time (--seconds) is a sample.
"""

import argparse
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LONGEST_RUN = 120  # seconds; a test that hangs has noticed, too


@dataclass
class Mutant:
    line: int
    before: str
    after: str


def code_lines(text: str) -> Iterator[tuple[int, str]]:
    """The statements and where they are: no declaration of what is elsewhere, no comment, no docstring."""
    inside_string = False
    outer = None  # indentation of the declaration we are in
    in_import = False
    for number, line in enumerate(text.split("\n")):
        indentation = len(line) - len(line.lstrip())
        if outer is not None and line.strip() and indentation <= outer:
            outer = None
        is_string = inside_string or '"""' in line
        if line.count('"""') % 2:
            inside_string = not inside_string
        if outer is None and re.match(r"\s*cdef (extern|enum|struct)", line):
            outer = indentation
        was_import = in_import
        if re.search(r"\bcimport\b", line):
            was_import = True
            in_import = "(" in line
        if in_import and ")" in line:
            in_import = False
        if not (is_string or was_import or outer is not None or not line.split("#")[0].strip()):
            yield number, line


def mutants_of(text: str) -> Iterator[Mutant]:
    """Every change of one line."""
    for number, line in code_lines(text):
        code = line.split("#")[0]
        bare = re.sub(r'b?"[^"]*"', lambda match: " " * len(match[0]), code)
        is_definition = re.match(r"\s*(cdef .*\bnoexcept\b|cdef inline|cdef \w[\w ]*\**\w+\()", bare)
        if is_definition:
            continue
        for match in re.finditer(r"\b[A-Z][A-Z0-9_]{2,}\b", bare):
            if not match[0].startswith(("PATH_", "MEANS_", "NULL")):
                yield Mutant(number, line, f"{line[: match.start()]}({match[0]} + 1){line[match.end() :]}")
        for match in re.finditer(r"(?<![\w.])(0x[0-9a-fA-F]+|\d+)\b", bare):
            if "cdef" not in bare:
                yield Mutant(number, line, f"{line[: match.start()]}({match[0]} + 1){line[match.end() :]}")
        for match in re.finditer(r"\b(htonl|htons|ntohl|ntohs)\(", bare):
            yield Mutant(number, line, f"{line[: match.start()]}({line[match.end() :]}")
        condition = re.match(r"(\s*(?:if|elif|while) )(.*)(:\s*)$", bare)
        if condition:
            yield Mutant(number, line, f"{condition[1]}not ({code[condition.start(2) : condition.end(2)]}):")
        is_whole = bare.count("(") == bare.count(")") and bare.count("[") == bare.count("]")
        statement = re.match(r"(\s+)(\w[\w.\[\]+]*\(.*\)|[\w.\[\]]+ [|&]?= .*)\s*$", bare)
        if statement and is_whole and not bare.strip().startswith(("cdef", "return", "if", "for", "while")):
            yield Mutant(number, line, f"{statement[1]}pass")


def run(tree: Path, tests: str) -> str:
    """What became of the tests in a tree: "killed", "survived", or "refused" by a compiler."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", *shlex.split(tests)]
    try:
        done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=LONGEST_RUN)
    except subprocess.TimeoutExpired:
        return "killed"
    if done.returncode and re.search(r"CalledProcessError.*cython|ziglang cc", done.stdout):
        return "refused"
    return "killed" if done.returncode else "survived"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", help="of tuntap/_os")
    parser.add_argument("--tests", default="tests/elsewhere", help='arguments of pytest: "-k freebsd"')
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(10**6)
    jobs = []
    for name in options.files:
        text = (ROOT / "tuntap/_os" / name).read_text()
        jobs += [(name, mutant) for mutant in mutants_of(text)]
    random.Random(seed).shuffle(jobs)
    print(f"{len(jobs)} mutants, seed {seed}", flush=True)
    counts = {"killed": 0, "survived": 0, "refused": 0}
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for part in ("tuntap", "tests", "tools", "pyproject.toml"):
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, tree / part)
        if run(tree, options.tests) != "survived":
            sys.exit("the tests fail without a change")
        end = time.monotonic() + options.seconds
        for name, mutant in jobs:
            if time.monotonic() > end:
                break
            source = tree / "tuntap/_os" / name
            text = source.read_text()
            lines = text.split("\n")
            lines[mutant.line] = mutant.after
            source.write_text("\n".join(lines))
            outcome = run(tree, options.tests)
            source.write_text(text)
            counts[outcome] += 1
            if outcome == "survived":
                print(f"{name}:{mutant.line + 1}:\n  -{mutant.before}\n  +{mutant.after}", flush=True)
    print(f"{sum(counts.values())} of {len(jobs)} tried: {counts}")
    return 1 if counts["survived"] else 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
