"""Who is right about candidates: `certify`, and the rules by which others accept an array.

    python benchmarks/certify_scoreboard.py [--only PATTERN] [--json FILE]

print the tables of docs/certify.md. They need a clone: the bugs are those of tests/bugs.py, the honest
candidates those of tests/honest.py, the rules those of tests/rules.py. A peer that is not installed is left
out. Others' rules are applied twice: *end to end*, to the arrays of a float64 run on what the net is given,
as their users do; and *node by node*, to what the operator makes in float64 of the candidate's own dump, as
`certify` does. A bug counts as told apart only if the same port without the bug is accepted.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from refnet.certify import certify

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from bugs import BUGS
from honest import HONEST
from rules import RULES, compared, first_rejected

SEED = 0
CERTIFY = "certify", "node by node"
MODES = {"end to end": True, "node by node": False}
PACKAGES = {"PyTorch": ("torch",), "JAX": ("jax",), "ONNX Runtime": ("onnx", "onnxruntime")}
# Who judges how: a rule's name and a mode.
JUDGES = (CERTIFY, *((rule.name, mode) for rule in RULES for mode in MODES))


@dataclass(frozen=True)
class Answer:
    """What a judge made of a candidate.

    Attributes
    ----------
    accepted : bool
    node : str
        Of the first failure.
    word, hypothesis : str
        Of its verdict, where `certify` judged; of a candidate that is accepted, the worst word.
    """

    accepted: bool
    node: str = ""
    word: str = ""
    hypothesis: str = ""


@dataclass(frozen=True)
class Finding:
    """What a judge made of a port with a bug, and of the one without.

    Attributes
    ----------
    wrong, right : Answer
    node : str
        Where the bug is.
    """

    wrong: Answer
    right: Answer
    node: str

    @property
    def apart(self) -> bool:
        """Whether the judge tells the two apart."""
        return self.right.accepted and not self.wrong.accepted

    @property
    def named(self) -> bool:
        """Whether the first failure is where the bug is."""
        return self.apart and self.wrong.node == self.node

    @property
    def says(self) -> str:
        """The finding in a table."""
        if not self.right.accepted:
            return "rejects the right one" + (" alone" if self.wrong.accepted else " too")
        if self.wrong.accepted:
            return "missed"
        return "**found**" if self.named else f"found, at {self.wrong.node}"


def answers(net, given, candidate, claims) -> dict[tuple[str, str], Answer]:
    """Everybody's answers about a candidate."""
    found = {CERTIFY: of_report(certify(net, given, candidate, **claims))}
    for mode, end_to_end in MODES.items():
        rows = compared(net, given, candidate, end_to_end=end_to_end)
        for rule in RULES:
            rejected = first_rejected(rule, rows, claims)
            found[rule.name, mode] = Answer(rejected is None, "" if rejected is None else rejected.node)
    return found


def of_report(report) -> Answer:
    """What `certify` says: a candidate is accepted if no verdict is worse than consistent."""
    failed = [verdict for verdict in report.verdicts.values() if not verdict.passes]
    if not failed:
        return Answer(True, word=report.worst.verdict if report.worst else "")
    first = next((v for v in failed if v.node == report.first_failure), failed[0])
    return Answer(False, report.first_failure or "", first.verdict, first.hypothesis or "")


def of_bugs(chosen) -> Iterator[tuple[Any, dict[tuple[str, str], Finding]]]:
    """Everybody's findings of the bugs that are chosen."""
    of_right: dict[Any, dict[tuple[str, str], Answer]] = {}
    for bug in BUGS:
        if chosen.search(bug.name):
            # Ports without their bugs are alike where they compute the same.
            same = bug.net, bug.given, bug.seed, bug.forward_alone, bug.dumped, bug.port.ends_before
            if same not in of_right:
                of_right[same] = answers(*bug.without(), {})
            wrong, right = answers(*bug.arguments(), {}), of_right[same]
            yield bug, {judge: Finding(wrong[judge], right[judge], bug.node) for judge in JUDGES}


def of_honest(chosen) -> Iterator[tuple[Any, str, dict[tuple[str, str], Answer]]]:
    """Everybody's answers about the honest candidates that are chosen, net by net."""
    for honest in HONEST:
        package = next((p for name, p in PACKAGES.items() if name in honest.name), ())
        if not chosen.search(honest.name) or not all(map(find_spec, package)):
            continue
        for make in honest.nets:
            arguments = honest.arguments(make, SEED if honest.seed is None else honest.seed)
            yield honest, make.__name__, answers(*arguments, honest.claims)


# Tables.


def table(heads, rows) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def share(some) -> str:
    """How many of how many."""
    some = list(some)
    return f"{sum(some)} of {len(some)}"


def who_is_right(bugs, honest) -> str:
    """Each judge, in counts; only `certify` names causes."""
    rows = []
    for judge in JUDGES:
        findings = [found[judge] for _, found in bugs]
        causes = share(found[judge].wrong.hypothesis == bug.hypothesis for bug, found in bugs)
        rows.append(
            (
                *judge,
                share(found[judge].accepted for _, _, found in honest),
                share(not finding.wrong.accepted for finding in findings),
                share(finding.apart for finding in findings),
                share(finding.named for finding in findings),
                causes if judge == CERTIFY else "-",
            )
        )
    heads = ("rule", "applied", "honest accepted", "bugs rejected", "told apart", "at the right node")
    return table((*heads, "cause named"), rows)


def bug_by_bug(bugs) -> str:
    """Each bug: what `certify` says, and others, node by node."""
    rows = []
    for bug, found in bugs:
        own = found[CERTIFY]
        others = (found[rule.name, "node by node"].says for rule in RULES)
        rows.append((bug.name, own.says, own.wrong.word, own.wrong.hypothesis or "-", *others))
    return table(("bug", "certify", "verdict", "cause", *(rule.name for rule in RULES)), rows)


def one_by_one(honest) -> str:
    """Each honest implementation: on how many nets it is accepted, others' rules node by node."""
    names = dict.fromkeys(candidate.name for candidate, _, _ in honest)
    judges = (CERTIFY, *((rule.name, "node by node") for rule in RULES))
    rows = [
        (
            name,
            *(
                share(found[judge].accepted for one, _, found in honest if one.name == name)
                for judge in judges
            ),
        )
        for name in names
    ]
    return table(("honest candidate", *(name for name, _ in judges)), rows)


def record(bugs, honest) -> dict[str, Any]:
    """All answers as JSON."""
    return {
        "bugs": {
            bug.name: {
                " ".join(judge): {"wrong": vars(one.wrong), "right": vars(one.right)}
                for judge, one in found.items()
            }
            for bug, found in bugs
        },
        "honest": [
            {"name": one.name, "net": net, **{" ".join(judge): vars(a) for judge, a in found.items()}}
            for one, net, found in honest
        ],
    }


def main() -> None:
    """Ask everybody, and print what they say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="PATTERN", help="bugs and candidates whose names match")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the answers, too")
    options = parser.parse_args()
    chosen = re.compile(options.only)
    bugs, honest = list(of_bugs(chosen)), list(of_honest(chosen))
    print(f"{who_is_right(bugs, honest)}\n\n{bug_by_bug(bugs)}\n\n{one_by_one(honest)}\n")
    print("\n".join(f"- {rule.name}: {rule.source}." for rule in RULES))
    if options.json is not None:
        options.json.write_text(json.dumps(record(bugs, honest), indent=1) + "\n")


if __name__ == "__main__":
    main()
