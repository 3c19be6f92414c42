"""Certification's scoreboard: every bug is caught where it is, and nothing that is honest is accused."""

import sys
from functools import cache
from pathlib import Path

import pytest
from bugs import BUGS, basics, grouped, training_norms
from honest import HONEST

from refnet.certify import certify

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import certify_scoreboard as scoreboard  # noqa: E402

every_bug = pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)


def pairs(candidates):
    """An honest candidate and each of its nets."""
    return pytest.mark.parametrize(
        ("honest", "make"),
        [
            pytest.param(one, make, id=f"{one.name}: {make.__name__}")
            for one in candidates
            for make in one.nets
        ],
    )


@cache
def report_of(index):
    return certify(*BUGS[index].arguments())


@every_bug
def test_a_bug_is_caught_and_the_first_failure_is_where_it_is(bug):
    report = report_of(BUGS.index(bug))
    assert not report.ok
    assert report.first_failure == bug.node, report
    assert not report.verdicts[bug.verdict].passes, report


@every_bug
def test_no_other_cause_is_named(bug):
    """Right, or none: what nobody can know is not guessed."""
    assert report_of(BUGS.index(bug)).verdicts[bug.verdict].hypothesis in (bug.hypothesis, None)


def test_the_cause_is_named_for_three_bugs_of_four():
    named = [
        bug.name
        for index, bug in enumerate(BUGS)
        if bug.hypothesis is not None and report_of(index).verdicts[bug.verdict].hypothesis == bug.hypothesis
    ]
    assert len(named) >= 0.75 * len(BUGS), sorted({bug.name for bug in BUGS} - set(named))


def assert_honest(honest, make, seed):
    report = certify(*honest.arguments(make, seed), **honest.claims)
    assert report.ok, report


@pairs(HONEST)
def test_what_is_honest_is_not_accused(honest, make):
    assert_honest(honest, make, 1 if honest.seed is None else honest.seed)


@pytest.mark.parametrize(
    ("name", "make", "seed"),
    [
        ("PyTorch, float64", training_norms, 8),  # a channel is off by the error of its mean
        ("constant clip, sums one by one", grouped, 24),  # and by that of the one sum that all are
        ("constant clip and kernels, one by one", basics, 6),  # terms of few magnitudes
        ("constant clip and kernels, one by one", basics, 16),
    ],
)
def test_what_is_honest_and_was_accused_before(name, make, seed):
    assert_honest(next(honest for honest in HONEST if honest.name == name), make, seed)


@pytest.mark.seeds
@pytest.mark.parametrize("seed", range(2, 52))
@pairs([honest for honest in HONEST if honest.seed is None])
def test_what_is_honest_is_not_accused_with_any_seed(honest, make, seed):
    assert_honest(honest, make, seed)


def test_the_document_lists_every_bug_every_honest_candidate_and_every_judge():
    text = (ROOT / "docs" / "certify.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"]
    names = {row[0] for row in rows}
    assert names >= {bug.name for bug in BUGS} | {honest.name for honest in HONEST}
    assert {tuple(row[:2]) for row in rows} >= set(scoreboard.JUDGES)


@pytest.mark.parametrize(
    ("right", "wrong", "text"),
    [
        (True, (False, "a"), "**found**"),
        (True, (False, "b"), "found, at b"),
        (True, (True, ""), "missed"),
        (False, (False, "a"), "rejects the right one too"),
        (False, (True, ""), "rejects the right one alone"),
    ],
)
def test_what_counts_as_found(right, wrong, text):
    finding = scoreboard.Finding(scoreboard.Answer(*wrong), scoreboard.Answer(right), "a")
    assert finding.says == text
    assert finding.apart == ("found" in text) and finding.named == (text == "**found**")
