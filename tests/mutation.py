"""Plant each mutant of tests/mutants.py in a copy of the sources, and run the tests that should find it.

Unchanged sources must pass all of these tests first. The exit code is 1 if a mutant survives, 2 if one cannot
be planted, built or tested.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from mutants import FEW, MUTANTS, ROOT, Mutant
from rich.console import Console
from rich.table import Column, Table

# What a copy holds: compiled modules and objects too, so that only what is changed is built again.
COPIED = (
    "_core",
    "build",
    "docs",
    "refnet",
    "tests",
    "setup.py",
    "noxfile.py",
    "pyproject.toml",
    "README.md",
)
NOT_COPIED = shutil.ignore_patterns("__pycache__", ".hypothesis")
# Seconds after which tests that do not end have found something.
ENDLESS = 900
# How pytest's summary names a test that has failed.
FAILED = re.compile(r"^(?:FAILED|ERROR) (?:tests/)?(\S+)", re.MULTILINE)
Outcome = Literal["killed", "survived", "broken", "left out"]


@dataclass(frozen=True)
class Result:
    """What has become of a mutant: the test that killed it, or why nothing can be said."""

    name: str
    outcome: Outcome
    by: str
    seconds: float


def main() -> int:
    """Run the mutants that are asked for; return the exit code."""
    parser = argparse.ArgumentParser(description="Plant changes that some test must find.")
    some = parser.add_mutually_exclusive_group()
    some.add_argument(
        "--only", action="append", default=[], help="mutants that have these words in their name"
    )
    some.add_argument("--few", action="store_true", help="one or two of each kind, in a few minutes")
    parser.add_argument("--list", action="store_true", help="name them, and plant none")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time")
    parser.add_argument("--json", type=Path, help="a file that gets the results")
    options = parser.parse_args()
    for words in options.only:
        if not any(words in mutant.name for mutant in MUTANTS):
            parser.error(f"no mutant has {words!r} in its name: --list names them")
    wanted = options.only or (FEW if options.few else [""])
    chosen = [mutant for mutant in MUTANTS if any(words in mutant.name for words in wanted)]
    console = Console()
    if options.list:
        for mutant in chosen:
            console.print(f"{mutant.name}  ({mutant.file})", highlight=False, markup=False)
        return 0
    try:
        for mutant in chosen:
            mutant.planted((ROOT / mutant.file).read_text())
    except ValueError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory() as temporary:
        unchanged = Path(temporary, "unchanged")
        for name in COPIED:
            copy(ROOT / name, unchanged / name)
        tests = dict.fromkeys(test for mutant in chosen for test in mutant.tests)
        control = timed("unchanged", lambda: tested(unchanged, tests, build=True))
        console.print(f"unchanged: {control.outcome} in {control.seconds:.0f} s {control.by}", markup=False)
        if control.outcome != "survived":
            return 2
        asked = "from refnet._core import micro_kernel; print(*micro_kernel.versions())"
        versions = python(unchanged, "-c", asked).stdout.split()
        with ThreadPoolExecutor(options.jobs) as pool:
            results = []
            for result in pool.map(partial(plant, unchanged, versions), chosen):
                results.append(result)
                console.print(f"{result.name}: {result.outcome} in {result.seconds:.0f} s", markup=False)
    show(console, results)
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    outcomes = {result.outcome for result in results}
    return 2 if "broken" in outcomes else int("survived" in outcomes)


def plant(unchanged: Path, versions: Iterable[str], mutant: Mutant) -> Result:
    """Plant a mutant in a copy of its own."""
    if mutant.version and mutant.version not in versions:
        return Result(mutant.name, "left out", f"this processor has no {mutant.version}", 0.0)
    with tempfile.TemporaryDirectory(dir=unchanged.parent) as temporary:
        tree = Path(temporary, "tree")
        copy(unchanged, tree)
        right = (tree / mutant.file).read_text()
        # Cython has copies of headers in build/, which compilers find first.
        for file in (tree / mutant.file, *(tree / "build").rglob(Path(mutant.file).name)):
            if file.read_text() == right:
                before = file.stat()
                file.write_text(mutant.planted(right))
                # The change is as old as what it replaces, and so nothing is built again but what is named.
                os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        for module in mutant.compiled:
            (tree / "_core" / f"{module}.pyx").touch()
        return timed(mutant.name, lambda: tested(tree, mutant.tests, build=bool(mutant.compiled)))


def timed(name: str, run: Callable[[], tuple[Outcome, str]]) -> Result:
    """What a run of tests says, and how long it took."""
    start = time.perf_counter()
    outcome, by = run()
    return Result(name, outcome, by, time.perf_counter() - start)


def tested(tree: Path, tests: Iterable[str], *, build: bool) -> tuple[Outcome, str]:
    """Build what is out of date, run tests up to the first that fails, and say which that is."""
    if build and (built := python(tree, "setup.py", "-q", "build_ext", "--inplace")).returncode:
        return "broken", f"it does not build: {built.stderr[-2000:]}"
    paths = (f"tests/{test}" for test in tests)
    try:
        run = python(tree, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *paths)
    except subprocess.TimeoutExpired:
        return "killed", f"tests that do not end in {ENDLESS} s"
    if run.returncode == 0:
        return "survived", ""
    if run.returncode < 0:
        return "killed", f"a crash, by signal {-run.returncode}"
    failed = FAILED.search(run.stdout)
    if run.returncode > 1 or failed is None:
        return "broken", f"pytest says nothing of it: {(run.stdout + run.stderr)[-2000:]}"
    return "killed", failed[1]


def python(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a copy, whose packages come first; what hypothesis draws is the same every time."""
    env = os.environ | {"PYTHONPATH": str(tree), "CI": "1", "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, timeout=ENDLESS)


def copy(source: Path, target: Path) -> None:
    """Copy a file or a folder, if there is one, with its times."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=NOT_COPIED)
    elif source.exists():
        target.parent.mkdir(exist_ok=True)
        shutil.copy2(source, target)


def show(console: Console, results: list[Result]) -> None:
    """A table of all, and the names of those that survived."""
    table = Table("mutant", "", Column("by", overflow="fold"), "s", title=f"{len(results)} mutants")
    for result in results:
        style = "" if result.outcome == "killed" else "bold red"
        table.add_row(result.name, result.outcome, result.by, f"{result.seconds:.0f}", style=style)
    console.print(table)
    for result in results:
        if result.outcome == "survived":
            console.print(f"survived: {result.name}", style="bold red", markup=False)


if __name__ == "__main__":
    sys.exit(main())
