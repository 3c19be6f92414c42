"""The published scoreboard: it lists every planted defect, and the peers are asked about the right thing."""

import sys
from pathlib import Path

import numpy as np
import pytest
from defects import DEFECTS
from support import peer

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import scoreboard  # noqa: E402

every_defect = pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)


def test_the_document_lists_every_defect():
    text = (ROOT / "docs" / "gradcheck.md").read_text()
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert set(rows) >= {defect.name for defect in DEFECTS}


@every_defect
def test_what_the_peers_are_given_shows_the_defect(defect):
    """The wrong function or its gradients differ from the right ones, on the same arrays."""
    right, wrong = (scoreboard.problem(defect, planted) for planted in (False, True))
    assert right.names == wrong.names
    results = []
    for asked in (right, wrong):
        y, context = asked.forward(*right.arrays)
        dy = np.random.default_rng(0).standard_normal(np.shape(y)).astype(y.dtype)
        results.append([y, *asked.backward(np.asarray(dy), context)])
    same = [
        (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b))
        for a, b in zip(*results, strict=True)
    ]
    assert not all(same)


@pytest.mark.parametrize("name", scoreboard.PEERS)
def test_a_peer_rejects_what_is_plainly_wrong(name):
    package, check = scoreboard.PEERS[name]
    peer(package)
    defect = next(d for d in DEFECTS if d.name == "dropout's gradient without its scale")
    assert scoreboard.timed(lambda: check(scoreboard.problem(defect, False))).word == "passed"
    found = scoreboard.timed(lambda: check(scoreboard.problem(defect, True)))
    assert found.word == "rejected" and found.tensor in ("pool", "")


@pytest.mark.parametrize(
    ("right", "wrong", "text"),
    [
        (("passed", ""), ("passed", ""), "missed"),
        (("passed", ""), ("rejected", "x"), "**found, named**"),
        (("passed", ""), ("rejected", "w"), "**found**"),
        (("rejected", ""), ("passed", ""), "rejects the right one alone"),
        (("rejected", ""), ("rejected", "x"), "rejects the right one too"),
        (("stopped", ""), ("stopped", ""), "stopped"),
    ],
)
def test_what_counts_as_found(right, wrong, text):
    answers = (scoreboard.Answer(*answer, seconds=0.5) for answer in (right, wrong))
    assert scoreboard.finding(*answers, ("x",)) == f"{text}, 0.5 s"
