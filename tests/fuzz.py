"""Drawn calls of operators and mutated files, for as long as one likes.

    python tests/fuzz.py [--only operators,clips] [--ops conv3d,relu] [--seed S]
                         [--minutes M | --draws N] [--found FOLDER]

Each part is given its share of the minutes, or so many draws. A draw is named by its seed alone, S, S + 1,
...: the same seeds draw the same calls and files. Of the first failure of each kind a reduced example is
written as a test, FOLDER/test_<hash>.py, and run, to see that it fails; copied into this folder, it is a test
as any other. Progress is on standard error; the exit code is 1 if something was found.
"""

import argparse
import hashlib
import runpy
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import fuzz_files
import fuzz_operators

from refnet.ops import OPS

PARTS = ("operators", *fuzz_files.SOURCES)
# Beyond so many failures of one part, nothing more is reduced.
MOST_FOUND = 20


@dataclass
class Effort:
    """When a part is done."""

    seed: int
    draws: int | None
    seconds: float

    def seeds(self):
        """Seeds, one after the other, while there is time."""
        start = time.monotonic()
        at = self.seed
        while (at - self.seed < self.draws) if self.draws else (time.monotonic() - start < self.seconds):
            yield at
            at += 1


class Found:
    """What failed: counts by kind, and of the first of each a test."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.kinds = Counter()
        self.tests = []

    def keep(self, kind, text):
        """Count a failure; write its test, and see that it fails, if it is the first of its kind."""
        self.kinds[kind] += 1
        if self.kinds[kind] > 1 or len(self.tests) >= MOST_FOUND:
            return
        content = text()
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"test_{hashlib.sha256(content.encode()).hexdigest()[:12]}.py"
        path.write_text(content)
        confirmed = fails_when_run(path)
        self.tests.append(path)
        say(f"found: {kind}; {path} {'fails' if confirmed else 'PASSES WHEN RUN ALONE'}")


def fails_when_run(path):
    """Whether a test of the file raises."""
    functions = [f for name, f in runpy.run_path(str(path)).items() if name.startswith("test_")]
    for function in functions:
        try:
            function()
        except Exception:
            return True
    return False


def say(line):
    print(line, file=sys.stderr, flush=True)


def operators(names, effort, found):
    counts = Counter()
    for seed in effort.seeds():
        call = fuzz_operators.draw(seed, names)
        counts[f"{call.op}"] += 1
        if message := fuzz_operators.fails(call):
            kind = f"{call.op}, {call.dy.dtype}, {message.split(':')[0]}"
            found.keep(kind, lambda call=call, seed=seed: written(call, seed))
        if sum(counts.values()) % 2000 == 0:
            say(f"operators: {sum(counts.values())} calls, {sum(found.kinds.values())} failures")
    return counts


def written(call, seed):
    small = fuzz_operators.reduced(call, seed)
    return fuzz_operators.test_of(small, seed, fuzz_operators.fails(small))


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, of {', '.join(PARTS)}")
    parser.add_argument("--ops", default=",".join(OPS), help="operators to draw, all if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=5, help="of all parts together")
    parser.add_argument("--draws", type=int, help="of each part, in place of minutes")
    parser.add_argument("--found", default="fuzz_found", help="the folder of tests of what fails")
    options = parser.parse_args(arguments)
    parts, names = options.only.split(","), options.ops.split(",")
    for chosen, known in ((parts, PARTS), (names, OPS)):
        if unknown := set(chosen) - set(known):
            parser.error(f"unknown: {', '.join(unknown)}; expected some of {', '.join(known)}")
    say(f"seed {options.seed}")
    failed = 0
    for part in parts:
        found = Found(options.found)
        effort = Effort(options.seed, options.draws, 60 * options.minutes / len(parts))
        if part == "operators":
            counts = operators(names, effort, found)
        else:
            counts = fuzz_files.fuzz(part, effort, found, say)
        each = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        say(f"{part}: {sum(counts.values())} tried ({each})")
        for kind, count in found.kinds.items():
            say(f"{part}: failed {count} times: {kind}")
        failed += sum(found.kinds.values())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
