"""One rule for infinity and NaN: core has them where the definition has them, forward and backward.

A tap in the padding contributes nothing, whatever it would be multiplied by; otherwise they go through the
formula as IEEE 754 has it. A NaN's sign and payload are promised by nobody.
"""

import numpy as np
import pytest
from support import every_case, every_dtype, reals

from refnet.arithmetic import core, reference
from refnet.errors import ValueRangeError

SEEDS = range(24)
NONFINITE = [np.nan, np.inf, -np.inf]


def plant(array, rng):
    """Put one to three values that are not finite somewhere into an array."""
    places = rng.integers(array.size, size=rng.integers(1, 4))
    array.reshape(-1)[places] = rng.choice(NONFINITE, len(places))


def kinds(array):
    """0 where a number is finite, 1 and -1 for the infinities, 2 for NaN."""
    return np.where(np.isnan(array), 2, np.isposinf(array) * 1 - np.isneginf(array))


def outcome(kernel, arrays, dy, attrs):
    """The kinds of y and of each gradient, or the refusal."""
    try:
        y, context = kernel.forward(*arrays, **attrs)
    except ValueRangeError as error:
        return str(error)
    return [kinds(a).tolist() for a in (y, *kernel.backward(dy, context)) if a is not None]


@every_dtype
@every_case
def test_core_has_them_where_the_definition_has_them(op, case, dtype):
    met = 0
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        arrays = reals(op, case, dtype, seed=seed)
        shape = op.output_shape(tuple(a.shape for a in arrays), case.attrs)
        dy = np.asarray(rng.standard_normal(shape)).astype(dtype)
        real = [a for a in (*arrays, dy) if a.dtype != np.int64]
        for array in real if seed % 3 == 0 else [real[seed % len(real)]]:
            plant(array, rng)
        with np.errstate(invalid="ignore", over="ignore"):
            theirs = outcome(reference[op.name], arrays, dy, case.attrs)
            ours = outcome(core[op.name], arrays, dy, case.attrs)
        assert ours == theirs, f"seed {seed}"
        met += any(np.any(kind) for kind in theirs if not isinstance(theirs, str))
    assert met > len(SEEDS) / 8, "hardly anything that is not finite came out"


def test_the_test_tells_them_apart():
    assert kinds(np.array([1.0, np.inf, -np.inf, np.nan, -np.nan, 1e300])).tolist() == [0, 1, -1, 2, 2, 0]


@every_dtype
@pytest.mark.parametrize(
    ("name", "shapes", "attrs"),
    [
        ("relu", [(1, 3, 5, 67, 61)], {}),
        ("add", [(1, 3, 5, 67, 61)] * 2, {}),
        ("softmax", [(5, 5000)], {}),
        ("max_pool3d", [(1, 3, 5, 67, 61)], {"kernel": (3, 3, 3), "stride": (1, 2, 2), "pad": (1, 1, 1)}),
    ],
)
def test_so_do_sizes_that_take_vectors_and_several_pieces(name, shapes, attrs, dtype):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
        dy = rng.standard_normal(core[name].forward(*arrays, **attrs)[0].shape).astype(dtype)
        for array in (*arrays, dy):
            plant(array, rng)
        with np.errstate(invalid="ignore"):
            theirs = outcome(reference[name], arrays, dy, attrs)
            assert outcome(core[name], arrays, dy, attrs) == theirs
