"""Drawn problems: legal, small, and as various as they claim."""

import numpy as np
import pytest
from support import reals

from refnet.arithmetic import reference
from refnet.op import MOST_DRAWN, MOST_MULTIPLY_ADDS
from refnet.ops import OPS
from refnet.shapes import size

DRAWS = 200


def drawn(name):
    rng = np.random.default_rng(0)
    return [OPS[name].drawn(rng) for _ in range(DRAWS)]


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_what_is_drawn_is_legal_small_and_can_be_run(op):
    for case in drawn(op.name):
        arrays = reals(op, case)
        y, context = reference[op.name].forward(*arrays, **case.attrs)
        reference[op.name].backward(y, context)
        assert sum(map(size, case.shapes)) + y.size <= MOST_DRAWN
        assert op.cost(*case.shapes, itemsize=8, **case.attrs).multiply_adds <= MOST_MULTIPLY_ADDS


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_drawing_is_repeatable_and_names_tell_problems_apart(op):
    cases = drawn(op.name)
    assert [(c.name, c.shapes, c.attrs) for c in cases] == [
        (c.name, c.shapes, c.attrs) for c in drawn(op.name)
    ]
    assert len({c.name for c in cases}) == len({str((c.shapes, c.attrs)) for c in cases}) > DRAWS / 8


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_sizes_are_odd_even_one_prime_and_above_a_vector(op):
    for axis in range(len(op.cases[0].shapes[0])):
        sizes = {case.shapes[0][axis] for case in drawn(op.name) if axis < len(case.shapes[0])}
        if op.name in ("batch_to_time", "channels_to_time") and axis == 2:
            assert sizes == {1}
            continue
        assert 1 in sizes and any(n % 2 for n in sizes - {1}) and any(n % 2 == 0 for n in sizes), axis
    channels = {case.shapes[0][1] for case in drawn(op.name)}
    assert channels & {3, 5, 7, 11} and max(channels) > 16


@pytest.mark.parametrize("name", ["conv3d", "max_pool3d", "average_pool3d"])
def test_every_axis_is_strided_padded_and_has_any_kernel(name):
    windows = [OPS[name].window(*case.shapes, **case.attrs) for case in drawn(name)]
    for axis in range(3):
        assert {w.stride[axis] for w in windows} == {1, 2, 3}
        assert {w.pad[axis] for w in windows} == {0, 1, 2}
        assert {w.kernel[axis] for w in windows} == {1, 2, 3, 4}
    for kind in ("kernel", "stride", "pad"):
        assert any(len(set(getattr(w, kind))) == 3 for w in windows), f"{kind} is the same along two axes"
    if name == "conv3d":
        assert all({w.dilation[axis] for w in windows} == {1, 2, 3} for axis in range(3))


def test_convolutions_are_grouped_depthwise_and_biased_or_not():
    cases = drawn("conv3d")
    groups = {case.attrs["groups"] for case in cases}
    assert {1, 2, 3, 5} <= groups
    assert any(case.shapes[0][1] == case.attrs["groups"] > 1 for case in cases), "depthwise"
    assert {len(case.shapes) for case in cases} == {2, 3}
    square = [w[0] == w[1] > 1 for _, w, *_ in (case.shapes for case in cases)]
    assert DRAWS / 10 < sum(square) < DRAWS / 2, "transposed weights fit"
    assert any(
        (n + 2 * p - d * (k - 1) - 1) % s != 0
        for case in cases
        for n, k, s, p, d in zip(
            case.shapes[0][2:],
            case.shapes[1][2:],
            *(case.attrs[a] for a in ("stride", "pad", "dilation")),
            strict=True,
        )
    ), "a stride that leaves the last inputs unread"


def test_options_of_other_operators_all_occur():
    def values(name, attr):
        return {case.attrs[attr] for case in drawn(name)}

    assert {len(case.shapes[0]) for case in drawn("linear")} == {2, 5}
    assert {len(case.shapes) for case in drawn("linear")} == {2, 3}
    assert {len(case.shapes[0]) for case in drawn("dropout")} == {2, 5}
    assert values("global_average_pool", "over_time") == values("roi_align", "aligned") == {True, False}
    assert values("upsample_nearest", "scale") == {1, 2, 3, 4}
    assert values("roi_align", "sampling_ratio") == {0, 1, 2, 3}
    assert {case.shapes[1][0] for case in drawn("roi_align")} == {1, 2, 3, 4}
    assert values("batch_to_time", "frames") == values("channels_to_time", "frames") == {1, 2, 3, 4, 5}
