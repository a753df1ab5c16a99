"""Would a test notice a wrong constant or a missing call in a core?  `python tools/mutate_cores.py bsd.pyx`.

All changes are built into one copy of the core, and a variable there says which of them is in force: a
constant or number that is one less (an index of 0, or a shift: one more), a statement left out, a condition
turned round.  (A byte order is a constant, too: its bytes are spelt out.)  The tests run once without a
change, which tells what changes each of them passes by, and then those alone, once for each change.  What
none of them notices is printed.
"""

import argparse
import contextlib
import ctypes
import gc
import json
import mmap
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 10  # seconds that tests may take longer than without a change; one that hangs has noticed, too
KINDS = ("constant", "condition", "statement")
SWITCH = """
#ifndef MUTANTS
#define MUTANTS
__attribute__((visibility("default"))) int mutant_in_force = -1;
__attribute__((visibility("default"))) unsigned char *mutants_reached;
static inline int mutated(int number) { mutants_reached[number] = 1; return number == mutant_in_force; }
#endif
"""


@dataclass
class Mutant:
    kind: str
    file: str
    line: int
    before: str
    after: str


def code_lines(text: str) -> Iterator[tuple[int, str, bool]]:
    """The statements, where they are, and whether they begin there.

    No declaration of what is elsewhere, no comment, no docstring.
    """
    inside_string = False
    outer = None  # indentation of the declaration we are in
    in_import = False
    depth = 0  # of brackets that are open
    for number, line in enumerate(text.split("\n")):
        indentation = len(line) - len(line.lstrip())
        if outer is not None and line.strip() and indentation <= outer:
            outer = None
        is_string = inside_string or '"""' in line
        if line.count('"""') % 2:
            inside_string = not inside_string
        if outer is None and re.match(r"\s*cdef (extern|enum|struct|union)", line):
            outer = indentation
        was_import = in_import
        if re.search(r"\bcimport\b", line):
            was_import = True
            in_import = "(" in line
        if in_import and ")" in line:
            in_import = False
        if not (is_string or was_import or outer is not None or not line.split("#")[0].strip()):
            yield number, line, depth == 0
            bare = without_strings(line.split("#")[0])
            depth += open_brackets(bare)


def without_strings(code: str) -> str:
    return re.sub(r'b?"[^"]*"', lambda match: " " * len(match[0]), code)


def open_brackets(code: str) -> int:
    return sum((character in "([") - (character in ")]") for character in code)


@dataclass
class Edit:
    """A change of a part of a line, and what is put around that part for it; @ switches it on."""

    kind: str
    start: int
    end: int
    changed: str
    before: str
    behind: str


def edits_of(code: str, begins: bool, variables: set[str]) -> Iterator[Edit]:
    """Every change of one line; what others are a part of comes behind them."""
    bare = without_strings(code)
    if re.match(r"\s*(cdef .*\bnoexcept\b|cdef inline|cdef \w[\w ]*\**\w+\()", bare):
        return
    declared = re.match(r"\s*cdef [^=]*=?", bare)  # numbers in a declaration are sizes
    for match in re.finditer(r"(?<![\w.])(?:[A-Z][A-Z0-9_]{2,}|0x[0-9a-fA-F]+|\d+)\b(?!\()", bare):
        if match.start() >= (declared.end() if declared else 0) and match[0] not in variables:
            # What is before an array, or a shift by less than nothing, may be anything.
            is_first = bare[match.start() - 1 : match.end() + 1] == "[0]"
            sign = "+" if is_first or bare[: match.start()].endswith("<< ") else "-"
            yield Edit("constant", *match.span(), f"({match[0]} {sign} 1)", "(", f" {sign} @)")
    if not begins or open_brackets(bare):
        return
    match = re.match(r"\s*(?:if|elif|while) (.*):\s*$", bare)
    if match:
        yield Edit("condition", *match.span(1), f"not ({code[slice(*match.span(1))]})", "(not (", ")) == @")
    call_or_assignment = r"(?!cdef|return|if|for|while)\w[\w.\[\]+]*\(.*\)|[\w.\[\]]+ [|&+]?= .*\S"
    match = re.match(rf"\s+({call_or_assignment})\s*$", bare)
    if match:
        yield Edit("statement", *match.span(1), "pass", "if not @: ", "")


def with_mutants(file: str, text: str, mutants: list[Mutant]) -> str:
    """A source with all changes in it, each behind its number; they are added to `mutants`."""
    switch = f"mutated_{re.sub(r'[^a-z]', '_', file)}"
    variables = {"NULL", *re.findall(r"^cdef [^(=]*\b([A-Z][A-Z0-9_]+) = ", text, re.MULTILINE)}
    lines = text.split("\n")
    for number, line, begins in code_lines(text):
        code = line.split("#")[0]
        before, behind = [""] * (len(code) + 1), [""] * (len(code) + 1)
        for edit in edits_of(code, begins, variables):
            call = f"{switch}({len(mutants)})"
            before[edit.start] = edit.before.replace("@", call) + before[edit.start]
            behind[edit.end] += edit.behind.replace("@", call)
            changed = line[: edit.start] + edit.changed + line[edit.end :]
            mutants.append(Mutant(edit.kind, file, number + 1, line, changed))
        lines[number] = "".join(f"{behind[i]}{before[i]}{code[i : i + 1]}" for i in range(len(code) + 1))
    first = next(i for i, line in enumerate(lines) if line.startswith("cdef "))
    lines[first:first] = [
        "cdef extern from *:",
        f'    """{SWITCH}    """',
        f'    int {switch} "mutated"(int number) nogil',
    ]
    return "\n".join(lines)


class Mutation:
    """A plugin of pytest that runs the tests without a change, and then for each."""

    def __init__(self, mutants: list[Mutant], only: str | None, verbose: bool) -> None:
        self.mutants = mutants
        self.only = only
        self.verbose = verbose
        self.marks = mmap.mmap(-1, len(mutants))  # of what was reached, in a child of a test's, too
        self.failed = ""
        self.counts: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = f"{report.nodeid}\n{report.longrepr}"

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        with built_once() as self.built:
            for package in self.built:
                marks = ctypes.c_ubyte.from_buffer(self.marks)
                ctypes.c_void_p.in_dll(package.library, "mutants_reached").value = ctypes.addressof(marks)
            passed_by, failure = in_child(lambda: self.passed_by(list(items.values())), 600)
            if failure is not None:
                sys.exit(f"the tests fail without a change: {failure}")
            names = sorted(passed_by, key=lambda name: passed_by[name][0])
            _, failure = in_child(lambda: self.run([items[name] for name in names]), 600)
            if failure is not None:
                sys.exit(f"the tests fail in another order: {failure}")
            for number, mutant in enumerate(self.mutants):
                if self.only not in (None, mutant.kind):
                    continue
                these = [name for name in names if number in passed_by[name][1]]
                limit = PATIENCE + sum(passed_by[name][0] for name in these)
                failure = None
                if these:
                    chosen = [items[name] for name in these]
                    _, failure = in_child(lambda chosen=chosen, n=number: self.run(chosen, n), limit)
                outcome = "not reached" if not these else "survived" if failure is None else "killed"
                self.counts[outcome] += 1
                killer = (failure or "").partition("\n")[0]
                if killer in names:  # what noticed one change is likely to notice the next
                    names.remove(killer)
                    names.insert(0, killer)
                if outcome != "killed" or self.verbose:
                    print(f"{mutant.file}:{mutant.line}: {outcome} ({len(these)} tests) {killer}")
                    print(f"  -{mutant.before}\n  +{mutant.after}", flush=True)
        return True

    def passed_by(self, items: list[pytest.Item]) -> Any:  # noqa: ANN401 - for json
        """How long each test took, and what it passed by; all do what an import does."""
        for package in self.built:
            with package.imported():
                pass
        at_import = self.reached()
        return {name: (seconds, [*reached, *at_import]) for name, seconds, reached in self.run(items)}

    def run(self, items: list[pytest.Item], active: int = -1) -> list[tuple[str, float, list[int]]]:
        """What each test is called, how long it took and what it passed by, if none fails."""
        for package in self.built:
            ctypes.c_int.in_dll(package.library, "mutant_in_force").value = active
        told = []
        for item, following in zip(items, [*items[1:], *items[:1]], strict=True):
            begin = time.monotonic()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            told.append((item.nodeid, time.monotonic() - begin, self.reached()))
            if self.failed:
                raise AssertionError(self.failed)
        return told

    def reached(self) -> list[int]:
        """The changes that were passed by since the last time."""
        found = [number for number, mark in enumerate(self.marks[:]) if mark]
        self.marks[:] = bytes(len(self.marks))
        return found


def in_child(work: Callable[[], Any], limit: float) -> tuple[Any, str | None]:
    """What a function returns in a process of its own, and why it failed if it did."""
    with tempfile.TemporaryFile("w+") as file:
        child = os.fork()
        if child == 0:
            signal.alarm(round(limit) + 1)
            gc.freeze()  # or each collection goes through all of it
            silence = os.open(os.devnull, os.O_RDWR)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            status = 1
            try:
                json.dump(work(), file)
                status = 0
            except BaseException as failure:
                file.write(str(failure))
            finally:
                with contextlib.suppress(BaseException):
                    file.flush()
                os._exit(status)
        _, status = os.waitpid(child, 0)
        file.seek(0)
        if status == 0:
            return json.load(file), None
        return None, file.read() or signal.strsignal(os.WTERMSIG(status)) or ""


@contextlib.contextmanager
def built_once() -> Iterator[list[Any]]:
    """The package of each system, before a test runs; those that have changes in them."""
    crossbuild, systems = sys.modules["crossbuild"], sys.modules["systems"]
    with tempfile.TemporaryDirectory() as folder:
        built = {}
        for system, kernel in systems.SYSTEMS.items():
            (Path(folder) / system).mkdir()
            cache = Path(folder) / "cache"
            cache.mkdir(exist_ok=True)
            built[system] = crossbuild.Elsewhere(system, kernel, Path(folder) / system, cache)
        crossbuild.Elsewhere = lambda system, *_: built[system]
        yield [package for package in built.values() if hasattr(package.library, "mutant_in_force")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", help="of tuntap/_os")
    parser.add_argument("--tests", default="tests/elsewhere", help="arguments of pytest")
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--verbose", action="store_true", help="print also what a test noticed, and which")
    options = parser.parse_args()
    mutants: list[Mutant] = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for part in ("tuntap", "tests", "tools", "pyproject.toml", "setup.py"):
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, tree / part)
        for name in options.files:
            source = tree / "tuntap/_os" / name
            source.write_text(with_mutants(name, source.read_text(), mutants))
        os.chdir(tree)
        mutation = Mutation(mutants, options.only, options.verbose)
        pytest.main(["-q", "-s", "-p", "no:faulthandler", *shlex.split(options.tests)], plugins=[mutation])
    print(f"{len(mutants)} mutants: {dict(mutation.counts)}")
    return 0 if set(mutation.counts) == {"killed"} else 1


if __name__ == "__main__":
    sys.exit(main())
