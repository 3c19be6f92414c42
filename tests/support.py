"""What several test modules share: peers, layouts, values for an operator's cases, comparisons."""

import os
from fractions import Fraction
from importlib import import_module

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from refnet.arithmetic import ARITHMETICS
from refnet.ops import OPS

UNIT = {"float32": Fraction(1, 2**24), "float64": Fraction(1, 2**53)}
LAYOUTS = {
    "C": lambda a: a.copy(),
    "Fortran": lambda a: np.asfortranarray(a),
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "every other": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: np.flip(np.ascontiguousarray(np.flip(a))),
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "unaligned": lambda a: np.frombuffer(b"\0" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
}
CASES = [pytest.param(op, case, id=f"{op.name}: {case.name}") for op in OPS.values() for case in op.cases]
every_case = pytest.mark.parametrize(("op", "case"), CASES)
every_arithmetic = pytest.mark.parametrize("arithmetic", ARITHMETICS.values(), ids=ARITHMETICS)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def peer(name):
    """Import a package to compare with; where CI promises it, its absence is an error."""
    try:
        return import_module(name)
    except ImportError:
        if os.environ.get("REFNET_REQUIRE_PEERS"):
            raise
        pytest.skip(f"{name} is not installed; REFNET_REQUIRE_PEERS=1 makes that an error")


def fails(result, *words):
    """Assert that a command ended with exit code 2 and one line, which holds these words."""
    code, out, err = result
    assert code == 2 and out == ""
    assert err.startswith("refnet: ") and err.count("\n") == 1, err
    for word in words:
        assert word in err, err


def integers(op, case, seed=0):
    """Distinct values 4 apart and never 0, so that a step of 1 changes no sign and no winner."""
    rng = np.random.default_rng(seed)
    arrays = []
    for i, shape in enumerate(case.shapes):
        n = int(np.prod(shape))
        values = 4 * (rng.permutation(n) - n // 2) + 2
        free = values.reshape(shape).astype("float64") / (n if op.smooth else 1)
        arrays.append(legal(op, case, i, free, rng))
    return arrays


def reals(op, case, dtype="float64", seed=0):
    """Normal values, or what an input may hold."""
    rng = np.random.default_rng(seed)
    free = [rng.standard_normal(shape).astype(dtype) for shape in case.shapes]
    return [legal(op, case, i, a, rng) for i, a in enumerate(free)]


def legal(op, case, i, free, rng):
    """What an input may hold, where that is not just any number."""
    draw = op.domain(i).draw
    if draw is None:
        return free
    drawn = draw(rng.uniform(-1, 1, free.shape), *case.shapes, **case.attrs)
    return drawn if drawn.dtype == np.int64 else drawn.astype(free.dtype)


def shifted_sums(x, w, dy, stride=(1, 1, 1), pad=(0, 0, 0), dilation=(1, 1, 1), groups=1):
    """(y, dx, dw) of a convolution in int64, by padding x and slicing it once for each tap."""
    padded = np.pad(x, [(0, 0), (0, 0)] + [(p, p) for p in pad])
    y, dx, dw = np.zeros(dy.shape, int), np.zeros(padded.shape, int), np.zeros(w.shape, int)
    filters, depth = len(w) // groups, w.shape[1]
    for tap in np.ndindex(*w.shape[2:]):
        box = tuple(
            slice(k * d, k * d + s * (n - 1) + 1, s)
            for k, d, s, n in zip(tap, dilation, stride, dy.shape[2:], strict=True)
        )
        for g in range(groups):
            rows, channels = slice(g * filters, (g + 1) * filters), slice(g * depth, (g + 1) * depth)
            patch, weights = padded[:, channels][:, :, *box], w[rows][:, :, *tap]
            y[:, rows] += np.einsum("kc,ncthw->nkthw", weights, patch)
            dx[:, channels][:, :, *box] += np.einsum("kc,nkthw->ncthw", weights, dy[:, rows])
            dw[rows][:, :, *tap] = np.einsum("nkthw,ncthw->kc", dy[:, rows], patch)
    inner = tuple(slice(p, p + n) for p, n in zip(pad, x.shape[2:], strict=True))
    return y, dx[:, :, *inner], dw


def assert_same_bits(kernel, arrays, attrs):
    """Assert that the number of threads, of OpenMP and of the BLAS, changes no bit of y and the gradients."""
    bits = []
    for openmp, blas in ((1, 1), (2, 1), (2, 2), (3, 2)):
        with threadpool_limits(openmp, user_api="openmp"), threadpool_limits(blas, user_api="blas"):
            y, context = kernel.forward(*arrays, **attrs)
            dy = np.asarray(np.random.default_rng(8).standard_normal(y.shape)).astype(y.dtype)
            gradients = kernel.backward(dy, context)
            bits.append([a.tobytes() for a in (y, *gradients) if a is not None])
    assert bits[0] == bits[1] == bits[2] == bits[3]
