"""Which indices are wrong, in words: planted masks."""

import numpy as np
import pytest

from refnet.check.locate import axes_of, structure
from refnet.op import OUTPUT
from refnet.ops import OPS

BLOB = ("sample", "channel", "frame", "line", "column")
KERNEL = ("filter", "channel", "tap T", "tap H", "tap W")
SHAPE = (3, 8, 4, 6, 10)
ANY = slice(None)


def mask(*places, shape=SHAPE):
    wrong = np.zeros(shape, bool)
    for place in places:
        wrong[place] = True
    return wrong


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ([...], "all 5760 elements"),
        ([], "none"),
        ([(1, 2, 3, 4, 5)], "one element: sample 1, channel 2, frame 3, line 4, column 5"),
        ([(ANY, 3), (ANY, 7)], "channels 3 and 7"),
        ([(ANY, 2), (ANY, 5), (ANY, 6)], "channels 2, 5 and 6"),
        ([(ANY, slice(0, None, 2))], "every second channel"),
        ([(ANY, slice(1, None, 2))], "every second channel from 1 on"),
        ([(ANY, slice(2, 6))], "channels 2 to 5"),
        ([(1,)], "sample 1 of 3"),
        ([(..., -1)], "the last column"),
        ([(..., 0, ANY)], "the first line"),
        ([(ANY, ANY, 0)], "the first frame"),
        ([(ANY, ANY, slice(1, 3))], "frames 1 and 2"),
        ([(..., 0), (..., -1)], "the first and the last column"),
        ([(..., [0, 1, 8, 9])], "the first 2 and the last 2 columns"),
        ([(..., 0), (..., -1), (..., 0, ANY), (..., -1, ANY)], "the borders along H and W"),
        (
            [(..., [0, 1, 8, 9]), (..., [0, 1, 4, 5], ANY), (ANY, ANY, [0, 3])],
            "the borders along T, H and W",
        ),
        ([(..., -1), (..., -1, ANY)], "the last line and the last column"),
        ([(..., 0, 0)], "the corner of the first line and the first column"),
        ([(..., 0, [0, 9])], "the corners of the first line and the first and the last column"),
        ([(ANY, 3, ANY, ANY, -1)], "channel 3, the last column"),
        ([(ANY, 3, ..., -1), (ANY, 3, ANY, -1)], "the last line and the last column, in channel 3"),
        ([(..., slice(0, None, 2), slice(0, None, 2))], "every second line, every second column"),
        (
            [(..., slice(1, None, 2), ANY), (..., slice(1, None, 2))],
            "every second line from 1 on and every second column from 1 on",
        ),
        ([(ANY, slice(0, 2))], "channels 0 and 1"),
    ],
    ids=str,
)
def test_a_planted_mask_is_described(places, said):
    assert structure(mask(*places), BLOB) == said


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ([(ANY, ANY, 0)], "taps (0, *, *)"),
        ([(ANY, ANY, 1, 0, 2)], "tap (1, 0, 2)"),
        ([(ANY, ANY, ANY, [0, 2])], "taps (*, 0|2, *)"),
        ([(3, ANY, ANY, ANY, 2)], "filter 3, taps (*, *, 2)"),
        ([slice(1, 3)], "filters 1 and 2"),
    ],
    ids=str,
)
def test_taps_of_a_kernel(places, said):
    assert structure(mask(*places, shape=(8, 4, 3, 3, 3)), KERNEL) == said


def test_groups():
    wrong = mask((ANY, slice(4, 8)), shape=(2, 16, 1, 2, 2))
    assert structure(wrong, BLOB, groups=4) == "group 1 of 4, 4 channels each"
    assert structure(wrong, BLOB) == "channels 4 to 7"
    wrong[:, 12:] = True
    assert structure(wrong, BLOB, groups=4) == "groups 1 and 3 of 4, 4 channels each"


def test_many_indices_are_counted():
    assert structure(mask([1, 2, 3, 5, 8, 9, 13, 17], shape=(40,)), ("channel",)) == "8 of 40 channels"


def test_scattered():
    rng = np.random.default_rng(0)
    wrong = np.zeros(SHAPE, bool)
    wrong.reshape(-1)[rng.choice(wrong.size, 17, replace=False)] = True
    assert "scattered (17 of" in structure(wrong, BLOB)


@pytest.mark.parametrize(
    ("place", "said"),
    [((ANY, 3), "channel 3"), ((..., -1), "the last column"), (..., "almost all")],
    ids=str,
)
def test_elements_that_are_right_by_chance_hide_no_structure(place, said):
    wrong = mask(place)
    wrong &= np.random.default_rng(1).random(SHAPE) < 0.9
    assert structure(wrong, BLOB).startswith(f"{said} ({np.count_nonzero(wrong)} of ")
    border = mask((..., 0), (..., -1), (..., 0, ANY), (..., -1, ANY))
    border &= np.random.default_rng(1).random(SHAPE) < 0.95
    assert structure(border, BLOB).startswith("the borders along H and W (")


def test_axes():
    conv, linear = OPS["conv3d"], OPS["linear"]
    assert axes_of(conv, 0, 5) == axes_of(conv, OUTPUT, 5) == BLOB
    assert axes_of(conv, 1, 5) == KERNEL
    assert axes_of(conv, 2, 1) == ("channel",)
    assert axes_of(linear, 0, 2) == ("sample", "feature")
    assert axes_of(linear, 1, 2) == ("filter", "feature")
    assert axes_of(OPS["cross_entropy"], OUTPUT, 0) == ()


def test_a_scalar():
    assert structure(np.array(True), ()) == "the only element"
