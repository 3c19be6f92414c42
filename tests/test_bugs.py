"""The planted bugs are where they say: all that comes before is as without the bug, bit by bit."""

import numpy as np
import pytest
from bugs import BUGS

every_bug = pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)


def in_order(net, candidate):
    """What a candidate dumps, values forward, then gradients backward, by the names of verdicts."""
    found = dict(candidate.blobs)
    gradients = {**candidate.blob_gradients, **candidate.gradients}
    for node in reversed(net.nodes):
        for name in (node.name, *(name for name in node.inputs if name in net.params)):
            if name in gradients:
                found[f"d {name}"] = gradients[name]
    return found | {f"d {name}": gradients[name] for name in net.inputs if name in gradients}


def same(a, b):
    return a is not None and a.dtype == b.dtype and np.array_equal(a, b)


@every_bug
def test_a_bug_is_where_it_says(bug):
    net, _, candidate = bug.arguments()
    found, right = (in_order(net, c) for c in (candidate, bug.without()[2]))
    assert next(name for name in found if not same(right.get(name), found[name])) == bug.verdict
    assert bug.node in {*net.inputs, *(node.name for node in net.nodes)}


@every_bug
def test_a_port_computes_in_float32(bug):
    _, given, candidate = bug.arguments()
    arrays = [*candidate.blobs.values(), *candidate.gradients.values(), *candidate.blob_gradients.values()]
    assert {a.dtype.name for a in arrays} == {"float32"}
    assert {a.dtype.name for a in given.values()} <= {"float32", "int64"}


def test_a_bug_has_a_name_of_its_own():
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 60
