"""Exponentials and logarithms of core, and what softmax and cross-entropy make of them: errors and bits."""

from decimal import Decimal, localcontext
from hashlib import sha256
from math import frexp, inf, log, nan

import numpy as np
import pytest
from support import every_dtype, unit

from refnet._core import softmax as kernels
from refnet.arithmetic import core

# What elementary.h and softmax.h state: units in the last place; of the smallest number, where that is more;
# u of softmax and of the loss's gradient, where they are not computed in more than their own precision.
EXP = {"float64": ("0.68", "0.84"), "float32": ("0.55", "0.55")}
LOG = "0.6"
STEPS = {"float64": 10, "float32": "1.2"}


def exponential(x):
    y = np.empty_like(x)
    kernels.exponential(x, y)
    return y


def logarithm(x):
    y = np.empty_like(x)
    kernels.logarithm(x, y)
    return y


def arguments(dtype):
    """Numbers of all sizes that are not above 0, and those around which the result becomes subnormal or 0."""
    rng = np.random.default_rng(11)
    smallest, zero = (-709, -746) if dtype == "float64" else (-88, -104)
    near = [np.linspace(at - 1, at + 1, 200) for at in (smallest, zero)]
    halves = -np.arange(1, 300) / 2 * np.log(2)  # where k changes
    sizes = -np.exp2(rng.uniform(-60, np.log2(-zero), 2000))
    return np.concatenate(
        [rng.uniform(zero, 0, 2000), rng.uniform(-1, 0, 1000), sizes, halves, *near]
    ).astype(dtype)


def positives():
    """Numbers of all sizes above 0: subnormal ones, powers of two, and many around 1."""
    rng = np.random.default_rng(12)
    around = 1 + rng.choice([-1, 1], 2000) * np.exp2(rng.uniform(-53, -2, 2000))
    powers = np.ldexp(1.0, np.arange(-1074, 1024))
    edges = np.array([1 - 2.0**-53, 1 + 2.0**-52, np.sqrt(0.5), np.sqrt(2), np.finfo(float).max])
    edges = np.concatenate([edges, np.nextafter(edges[2:4], 0), np.nextafter(edges[2:4], 2)])
    any_size = np.ldexp(rng.uniform(1, 2, 2000), rng.integers(-1074, 1024, 2000))
    found = np.concatenate(
        [around, powers, edges, any_size, rng.uniform(1, 1e5, 1000), rng.uniform(0.6, 1.5, 1000)]
    )
    return found[found != 1]


def last_place(exact, dtype):
    """The distance of numbers of a dtype around an exact one, and whether it is the smallest number."""
    info = np.finfo(dtype)
    # float() may round up to the next power of two, and underflow.
    exponent = frexp(float(exact))[1] - 1 if float(exact) else -2000
    exponent -= Decimal(2) ** exponent > abs(exact)
    least = int(info.minexp) - info.nmant
    return Decimal(2) ** max(exponent - info.nmant, least), exponent < info.minexp


@every_dtype
def test_exponentials_are_within_their_stated_error(dtype):
    x = arguments(dtype)
    normal, subnormal = map(Decimal, EXP[dtype])
    with localcontext(prec=50):
        for argument, y in zip(x, exponential(x), strict=True):
            exact = Decimal(float(argument)).exp()
            place, is_subnormal = last_place(exact, dtype)
            assert abs(Decimal(float(y)) - exact) <= place * (subnormal if is_subnormal else normal), argument


def test_logarithms_are_within_their_stated_error():
    x = positives()
    with localcontext(prec=50):
        for argument, y in zip(x, logarithm(x), strict=True):
            exact = Decimal(float(argument)).ln()
            assert abs(Decimal(float(y)) - exact) <= last_place(exact, "float64")[0] * Decimal(LOG), argument


@every_dtype
def test_special_values(dtype):
    x = np.array([0.0, -0.0, -inf, -1e30, nan], dtype)
    assert exponential(x)[:4].tolist() == [1, 1, 0, 0] and np.isnan(exponential(x)[4])
    y = logarithm(np.array([0.0, -0.0, inf, 1.0, -1.0, -inf, nan]))
    assert y[:4].tolist() == [-inf, -inf, inf, 0] and np.isnan(y[4:]).all()


def test_a_nan_stays_one_whatever_it_carries():
    carried = (np.uint32(0x7FC00000) + np.arange(1, 1 << 22, 997, dtype=np.uint32)).view(np.float32)
    assert np.isnan(exponential(carried)).all()
    carried = (np.uint64(0x7FF8000000000000) + np.arange(4096, dtype=np.uint64)).view(np.float64)
    assert np.isnan(exponential(carried)).all() and np.isnan(logarithm(carried)).all()


# These bits are those of every machine and compiler; a change of what is computed changes them.
BITS = {
    "exponential float32": "827d5701e5b39bf3",
    "exponential float64": "1a943bbc79a77786",
    "logarithm": "6c1bf352f6c54450",
    "softmax float32": "a05754347d9c5b96",
    "softmax float64": "44dcceae27627a37",
}


def dyadic(dtype, rows, columns):
    """Numbers from -32 to 32, by integers alone: the same on every machine."""
    raw = np.random.Generator(np.random.Philox(key=3)).bit_generator.random_raw(rows * columns)
    return np.ldexp((raw >> np.uint64(44)).astype(dtype), -14).reshape(rows, columns) - 32


def test_bits_are_those_of_every_machine():
    found = {"logarithm": logarithm(np.abs(dyadic("float64", 1, 30000)[0]))}
    for dtype in ("float32", "float64"):
        x = dyadic(dtype, 3, 10000)
        labels = np.array([0, 5000, 9999])
        found[f"exponential {dtype}"] = exponential(-3 * np.abs(x.ravel()))
        parts = [core.softmax.forward(x)[0]]
        loss, context = core.cross_entropy.forward(x, labels)
        parts += [loss, core.cross_entropy.backward(np.asarray(3, dtype), context)[0]]
        found[f"softmax {dtype}"] = np.concatenate([a.ravel() for a in parts])
    assert {name: sha256(value.tobytes()).hexdigest()[:16] for name, value in found.items()} == BITS


def exact_rows(x, labels):
    """Softmax, loss and the gradient of the loss of each row, by fifty digits."""
    for row, label in zip(x, labels, strict=True):
        row = [Decimal(float(value)) for value in row]
        largest = max(row)
        e = [(value - largest).exp() for value in row]
        others = sum(e) - e[label]
        gradient = [value / sum(e) for value in e]
        gradient[label] = -others / sum(e)
        loss = (1 + others).ln() if row[label] == largest else sum(e).ln() - (row[label] - largest)
        yield [value / sum(e) for value in e], loss, gradient


@every_dtype
@pytest.mark.parametrize("classes", [1, 2, 5, 63, 64, 65, 255, 257, 1000])
def test_rows_are_within_their_stated_error(classes, dtype):
    """Of y, of the loss and of dx, relative to each, though the label may have nearly all or nothing."""
    rng = np.random.default_rng(classes)
    x = rng.uniform(-9, 9, (3, classes)).astype(dtype)
    labels = rng.integers(0, classes, 3)
    x[0, labels[0]] += 60
    x[1, labels[1]] -= 60
    y, _ = core.softmax.forward(x)
    u = Decimal(unit(dtype))
    with localcontext(prec=50):
        for n, (softmax, loss, gradient) in enumerate(exact_rows(x, labels)):
            one, context = core.cross_entropy.forward(x[n : n + 1], labels[n : n + 1])
            (dx, _) = core.cross_entropy.backward(np.asarray(1, dtype), context)
            pairs = [*zip(y[n], softmax, strict=True), (one, loss), *zip(dx[0], gradient, strict=True)]
            for ours, exact in pairs:
                assert abs(Decimal(float(ours)) - exact) <= Decimal(STEPS[dtype]) * u * abs(exact)


@every_dtype
def test_a_sum_over_many_classes_is_as_good_as_over_few(dtype):
    """Equal scores: y = 1/K, loss log K; an error that grew with K would be thousands of u here."""
    K = 1 << 22
    x = np.full((1, K + 3), 0.7, dtype)
    x[0, K:] = -inf
    y, _ = core.softmax.forward(x)
    assert (y[0, :K] == 1 / K).all() and not y[0, K:].any()
    x = np.random.default_rng(1).uniform(-1, 0, (1, K)).astype(dtype)
    x[0, 0] = 0
    y, _ = core.softmax.forward(x)
    e = np.exp(x[0].astype(np.longdouble))  # 64 bits: its own errors are a thousandth of u
    exact = e / e.sum()
    assert (np.abs(y[0] - exact) <= float(STEPS[dtype]) * unit(dtype) * exact).all()


@every_dtype
def test_rows_that_cannot_be_said_are_nan_alone(dtype):
    x = np.array([[-inf, -inf, -inf], [0, inf, 1], [nan, 0, 1], [1, 0, nan], [1e30, -1e30, 1e30]], dtype)
    labels = np.array([0, 1, 1, 1, 1])
    y, _ = core.softmax.forward(x)
    assert np.isnan(y[:4]).all() and y[4].tolist() == [0.5, 0, 0.5]
    for n, label in enumerate(labels):
        loss, context = core.cross_entropy.forward(x[n : n + 1], np.array([label]))
        (dx, _) = core.cross_entropy.backward(np.asarray(2, dtype), context)
        assert np.isnan(loss) and np.isnan(dx).all() if n < 4 else dx[0].tolist() == [1, -2, 1]
    assert loss == np.array(2e30, dtype)
    most = np.finfo(dtype).max
    assert core.cross_entropy.forward(np.array([[most, -most]], dtype), np.array([1]))[0] == inf
    one = np.array([[7]], dtype)
    loss, context = core.cross_entropy.forward(one, np.array([0]))
    assert core.softmax.forward(one)[0] == 1 and loss == 0
    assert core.cross_entropy.backward(np.asarray(3, dtype), context)[0] == 0


def test_the_largest_row_of_float32_is_summed_in_more_than_its_precision():
    """16 million equal scores and one that is nothing beside each: float32 would stop at 2^24 terms."""
    K = (1 << 24) + 5
    loss, _ = core.cross_entropy.forward(np.zeros((1, K), np.float32), np.array([K - 1]))
    with localcontext(prec=50):
        assert abs(Decimal(float(loss)) - Decimal(K).ln()) <= last_place(Decimal(K).ln(), "float32")[
            0
        ] * Decimal("0.51")


def test_the_mean_of_a_large_batch_is_rounded_once():
    """Losses are log K each; in float32 their sum would be off by hundreds of u."""
    x, labels = np.zeros(((1 << 16) + 1, 3), np.float32), np.zeros((1 << 16) + 1, np.int64)
    assert core.cross_entropy.forward(x, labels)[0] == np.float32(log(3))
