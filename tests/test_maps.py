"""Where an array is wrong, as small pictures: counted here by loops."""

import numpy as np
import pytest

from refnet.check.maps import MOST_CELLS, maps
from refnet.check.report import Report, Verdict

AXES = ("sample", "channel", "frame", "line", "column")


@pytest.mark.parametrize(
    ("shape", "pairs"),
    [
        ((1, 3, 4, 5, 6), [("channel", "frame"), ("line", "column")]),
        ((2, 3, 4, 5, 6), [("sample",), ("channel", "frame"), ("line", "column")]),
        ((2, 3, 1, 5, 6), [("sample", "channel"), ("line", "column")]),
        ((2, 1, 1, 1, 150), [("sample", "column")]),
        ((1, 1, 1, 1, 129), [("column",)]),
        ((1, 1, 1, 1, 1), []),
        ((65, 7), [("sample", "channel")]),
        ((5,), [("sample",)]),
    ],
)
def test_every_wrong_element_is_counted_in_its_cell(shape, pairs):
    wrong = np.random.default_rng(0).random(shape) < 0.2
    wrong.flat[-1] = True
    found = maps(wrong, AXES[: len(shape)])
    assert [one.axes for one in found] == pairs
    for one in found:
        places = [AXES.index(name) for name in one.axes]
        expected = np.zeros([-(-size // step) for size, step in zip(one.shape, one.steps, strict=True)], int)
        for index in np.argwhere(wrong):
            expected[tuple(index[p] // step for p, step in zip(places, one.steps, strict=True))] += 1
        assert one.counts == tuple(map(tuple, np.atleast_2d(expected)))
        assert one.shape == tuple(shape[p] for p in places) and max(expected.shape) <= MOST_CELLS
        assert one.depth * np.prod(one.shape) == wrong.size


def test_a_record_leaves_pictures_out():
    verdict = Verdict(tensor="x", verdict="wrong", maps=maps(np.ones((2, 2), bool), AXES[:2]))
    record = Report(title="a", verdicts={"x": verdict}).record()
    assert "maps" not in record["verdicts"]["x"] and record["verdicts"]["x"]["verdict"] == "wrong"
