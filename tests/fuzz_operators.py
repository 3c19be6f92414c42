"""Drawn calls of every operator: `core` beside the definition, forward and backward.

A call is a geometry that the operator proposes, attributes that may be extreme, and values of one of the
kinds below. What `check` compares, and how far apart two right results can be, is said there.
"""

from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from support import LAYOUTS, legal, unit

from refnet._core import micro_kernel
from refnet.arithmetic import core, reference
from refnet.arrays import with_one_nan
from refnet.errors import RefnetError
from refnet.ops import OPS
from refnet.shapes import size

DTYPES = ("float32", "float64")
# Magnitudes between 2**-40 and 2**40, with which no step of an operator that divides leaves the normal range
# of float32: a product of three, or the square of a quotient.
MODERATE = 2.0**40
AVERAGES = ("average_pool3d", "global_average_pool")


@dataclass(frozen=True)
class Call:
    """One call, and how its arrays lie in memory."""

    op: str
    attrs: dict
    arrays: tuple
    dy: np.ndarray
    layouts: tuple
    kind: str


# Values.


def whole(rng, shape, dtype):
    return rng.integers(-4, 5, shape).astype(dtype)


def normal(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def uneven(rng, shape, dtype):
    """Of any magnitude that is moderate, of either sign."""
    return (rng.choice([-1.0, 1.0], shape) * 2.0 ** rng.uniform(-30, 30, shape)).astype(dtype)


def subnormal(rng, shape, dtype):
    least = np.finfo(dtype).smallest_subnormal
    return (rng.integers(-64, 65, shape) * least).astype(dtype)


def tiny(rng, shape, dtype):
    """Around the smallest normal number, and its root."""
    least = float(np.finfo(dtype).tiny)
    return (rng.standard_normal(shape) * rng.choice([least, 2 * least, least**0.5], shape)).astype(dtype)


def huge(rng, shape, dtype):
    """Up to the largest number, and its root."""
    most = float(np.finfo(dtype).max)
    return (rng.uniform(-1, 1, shape) * rng.choice([most, most / 64, most**0.5], shape)).astype(dtype)


def nonfinite(rng, shape, dtype):
    found = np.array(normal(rng, shape, dtype))
    if found.size:
        places = rng.integers(found.size, size=rng.integers(1, 4))
        found.reshape(-1)[places] = rng.choice([np.nan, np.inf, -np.inf], len(places))
    return found


def zeros(rng, shape, dtype):
    return rng.choice([0.0, -0.0], shape).astype(dtype)


def sparse(rng, shape, dtype):
    """Whole numbers, most of them zeros of either sign."""
    return np.where(rng.random(shape) < 0.8, zeros(rng, shape, dtype), whole(rng, shape, dtype)).astype(dtype)


def constant(rng, shape, dtype):
    return np.full(shape, rng.integers(-4, 5), dtype)


KINDS = {
    kind.__name__: kind
    for kind in (whole, normal, uneven, subnormal, tiny, huge, nonfinite, zeros, sparse, constant)
}
# Of whole numbers every sum is exact: 20,000 products of at most 16.
EXACT = {"whole", "zeros", "sparse", "constant"}
FINITE_SUMS = {*EXACT, "normal", "uneven", "subnormal", "tiny", "nonfinite"}


def extreme(rng, attrs):
    """Attributes at the ends of what they can be; some are no longer legal."""
    found = dict(attrs)
    for name, value in attrs.items():
        if rng.integers(3):
            continue
        if isinstance(value, bool):
            found[name] = not value
        elif isinstance(value, tuple):
            axis = int(rng.integers(len(value)))
            choices = (
                (1, 2, 7, 64, 2**31 - 1, 2**31, 2**62) if name in ("stride", "dilation") else (0, 1, 5, 40)
            )
            found[name] = tuple(
                int(choices[rng.integers(len(choices))]) if i == axis else v for i, v in enumerate(value)
            )
        elif isinstance(value, int):
            found[name] = int((0, 1, 2, 3, 7, 64)[rng.integers(6)])
        else:
            found[name] = float((0.0, 1e-300, 1e-30, 2.0**-20, 0.5, 1 - 2.0**-20, 1.0, 1e30)[rng.integers(8)])
    return found


def draw(seed, names=tuple(OPS)):
    """The call of a seed: any of the operators, any dtype, kind of values and layouts."""
    rng = np.random.default_rng(seed)
    op = OPS[names[rng.integers(len(names))]]
    case = op.drawn(rng)
    attrs = case.attrs
    if rng.integers(4) == 0:
        attrs = extreme(rng, attrs)
    kind = list(KINDS)[rng.integers(len(KINDS))]
    return filled(op, case.shapes, attrs, kind, DTYPES[rng.integers(2)], rng)


@np.errstate(all="ignore")
def filled(op, shapes, attrs, kind, dtype, rng):
    """A call with values of that kind, where an input may hold any."""
    arrays = []
    for i, shape in enumerate(shapes):
        if op.domain(i).draw is None:
            arrays.append(KINDS[kind](rng, shape, dtype))
        else:
            drawn = legal(op, Shaped(shapes, attrs), i, np.empty(shape, dtype), rng)
            arrays.append(drawn)
    with suppress(RefnetError, MemoryError):
        shape = op.output_shape(tuple(shapes), attrs)
        if size(shape) <= 1 << 16:
            layouts = tuple(list(LAYOUTS)[rng.integers(len(LAYOUTS))] for _ in range(len(shapes) + 1))
            dy = np.asarray(KINDS[kind](rng, shape, dtype), dtype)
            return Call(op.name, attrs, tuple(arrays), dy, layouts, kind)
    return Call(op.name, attrs, tuple(arrays), np.zeros((), dtype), ("C",) * (len(shapes) + 1), kind)


@dataclass(frozen=True)
class Shaped:
    """What `support.legal` wants of a case."""

    shapes: tuple
    attrs: dict


# Comparison.


def outcome(arithmetic, call, arrays, dy, needs=None):
    """Y and the gradients of its inputs; or, of what is refused, the line that says why."""
    try:
        y, context = arithmetic[call.op].forward(*arrays, **call.attrs)
        return (y, *arithmetic[call.op].backward(dy, context, needs))
    except RefnetError as error:
        return f"{type(error).__name__}: {error}"


def check(call):
    """Raise AssertionError where `core` is not what the definition is, or what it is itself.

    - Both refuse a call, in the same words, or none does.
    - The bits of y and of a gradient depend neither on how arrays lie in memory, nor on what else is needed,
      nor on the version of the kernels.
    - Of whole numbers, y and gradients of what does not divide are equal.
    - Infinities and NaN are at the same places, but where a sum of |terms| overflows or reaches infinity.
    - All else differs by no more than both can be off: (n + 1) u sum |terms| each, as the operator states
      (`Op.magnitude`, `Op.gradient_magnitude`), the definition being evaluated in float64; and, where a
      product or a quotient can be subnormal, half the smallest subnormal number for each term. Where an
      operator that divides is given values that are not moderate, numbers are not compared: some step
      of it may leave the range of normal numbers.
    """
    op = OPS[call.op]
    with np.errstate(all="ignore"):
        plain = [np.array(a) for a in call.arrays]
        ours = outcome(core, call, plain, call.dy)
        theirs = outcome(reference, call, plain, call.dy)
        if isinstance(ours, str) or isinstance(theirs, str):
            assert isinstance(ours, str) and isinstance(theirs, str) and ours == theirs, (
                f"core: {said(ours)}; definition: {said(theirs)}"
            )
            return
        assert [a is None for a in ours] == [a is None for a in theirs]
        _check_bits(op, call, ours)
        _check_values(op, call, ours, theirs)


def said(found):
    return found if isinstance(found, str) else "computed"


def _check_bits(op, call, ours):
    odd = [LAYOUTS[layout](np.array(a)) for layout, a in zip(call.layouts, call.arrays, strict=False)]
    dy = LAYOUTS[call.layouts[-1]](np.array(call.dy)).reshape(call.dy.shape)
    before = [a.tobytes() for a in (*odd, dy)]
    again = outcome(core, call, odd, dy)
    assert [a.tobytes() for a in (*odd, dy)] == before, "an input was changed"
    for name, mine, other in zip(names(op, call), ours, again, strict=True):
        assert same_bits(mine, other), f"{name} depends on the layouts {call.layouts}"
    usual = micro_kernel.name()
    for version in micro_kernel.versions():
        micro_kernel.use(version)
        try:
            found = outcome(core, call, list(call.arrays), call.dy)
        finally:
            micro_kernel.use(usual)
        for name, mine, other in zip(names(op, call), ours, found, strict=True):
            assert same_bits(mine, other), f"{name} depends on the version: {usual} and {version}"
    for i in range(len(call.arrays)):
        needs = tuple(i == j for j in range(len(call.arrays)))
        alone = outcome(core, call, list(call.arrays), call.dy, needs)[1 + i]
        assert same_bits(ours[1 + i], alone), f"{names(op, call)[1 + i]} depends on what else is needed"


def same_bits(a, b):
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and with_one_nan(a).tobytes() == with_one_nan(b).tobytes()


def names(op, call):
    return ["y", *(f"the gradient of input {i}" for i in range(len(call.arrays)))]


def _check_values(op, call, ours, theirs):
    dtype = call.dy.dtype
    exact = call.kind in EXACT and not op.divides and op.name not in AVERAGES
    wide = [a if a.dtype == np.int64 else a.astype("float64") for a in call.arrays]
    wide_dy = call.dy.astype("float64")
    right = outcome(reference, call, wide, wide_dy)
    needs = tuple(op.domain(i).gradient for i in range(len(call.arrays)))
    stated = [
        op.magnitude(*wide, **call.attrs),
        *op.gradient_magnitude(wide_dy, *wide, needs=needs, **call.attrs),
    ]
    comparable = not op.divides or moderate(call)
    lost = float(np.finfo(dtype).smallest_subnormal)
    if op.smooth:  # an exponential may underflow, by which dy is multiplied
        lost *= 1 + np.abs(wide_dy[np.isfinite(wide_dy)]).sum()
    for name, mine, other, exactly, magnitude in zip(
        names(op, call), ours, theirs, right, stated, strict=True
    ):
        if mine is None:
            continue
        assert mine.dtype == dtype and mine.shape == other.shape, name
        if exact:
            assert np.array_equal(mine, other), f"{name}: other numbers at {places(mine != other)}"
            continue
        if not comparable:
            continue
        sum_abs = np.broadcast_to(magnitude.sum_abs, mine.shape)
        n = np.broadcast_to(magnitude.terms, mine.shape).astype("float64") + 1
        within_range = sum_abs * (1 + n * unit(dtype)) < float(np.finfo(dtype).max) / 2
        same_kind = kinds(mine) == kinds(other)
        if call.kind in FINITE_SUMS:
            assert same_kind.all(), f"{name}: not finite elsewhere, at {places(~same_kind)}"
        assert same_kind[within_range].all(), f"{name}: not finite at {places(~same_kind & within_range)}"
        compared = np.isfinite(mine) & np.isfinite(exactly) & np.isfinite(sum_abs)
        bound = n * (unit(dtype) + 2 * unit("float64")) * sum_abs * (1 + n * unit("float64")) + 2 * n * lost
        off = np.zeros(mine.shape)
        np.subtract(mine, exactly, out=off, where=compared)
        wrong = ~(np.abs(off) <= bound) & compared
        assert not wrong.any(), f"{name}: off by {np.abs(off)[wrong].max()} at {places(wrong)}"


def moderate(call):
    """Whether nothing is so small or so large that a quotient or a product of some is not normal."""
    numbers = [*call.arrays, call.dy, *(v for v in call.attrs.values() if isinstance(v, float))]
    for a in numbers:
        found = np.abs(np.asarray(a, "float64"))
        found = found[np.isfinite(found) & (found != 0)]
        if found.size and not (found.min() >= 1 / MODERATE and found.max() <= MODERATE):
            return False
    return True


def kinds(array):
    """0 where a number is finite, 1 and -1 for the infinities, 2 for NaN."""
    return np.where(np.isnan(array), 2, np.isposinf(array) * 1 - np.isneginf(array))


def places(mask):
    return [tuple(map(int, at)) for at in np.argwhere(mask)[:3]]


# Reduction.


def fails(call):
    try:
        check(call)
    except AssertionError as error:
        return str(error) or "different"
    except Exception as error:  # no exception is right
        return f"{type(error).__name__}: {error}"
    return None


def reduced(call, seed, tries=300):
    """A smaller call that fails too: of fewer values, then of zeros wherever that does not matter."""
    rng = np.random.default_rng(seed)
    op, best = OPS[call.op], call
    for _ in range(tries):
        case = op.drawn(rng)
        attrs = call.attrs if rng.integers(2) and call.attrs.keys() == case.attrs.keys() else case.attrs
        with suppress(RefnetError, MemoryError):
            op.output_shape(case.shapes, attrs)
            other = filled(op, case.shapes, attrs, call.kind, call.dy.dtype.name, rng)
            if weight(other) < weight(best) and fails(other):
                best = other
    for part in range(len(best.arrays) + 1):
        best = with_zeros(best, part)
    plain = replace(best, layouts=("C",) * len(best.layouts))
    return plain if fails(plain) else best


def weight(call):
    return sum(a.size for a in call.arrays) + call.dy.size


def with_zeros(call, part, most=200):
    """Zeros in place of halves, quarters, ... of an array, as long as the call still fails."""
    array = call.dy if part == len(call.arrays) else call.arrays[part]
    if part < len(call.arrays) and OPS[call.op].domain(part).draw is not None:
        return call
    length = array.size
    while length >= 1 and most > 0:
        for start in range(0, array.size, length):
            most -= 1
            other = np.array(array)
            other.reshape(-1)[start : start + length] = 0
            trial = with_part(call, part, other)
            if other.tobytes() != array.tobytes() and fails(trial):
                call, array = trial, other
            if most == 0:
                break
        length //= 2
    return call


def with_part(call, part, array):
    if part == len(call.arrays):
        return replace(call, dy=array)
    return replace(call, arrays=(*call.arrays[:part], array, *call.arrays[part + 1 :]))


def literal(array):
    return f'numbers("{array.dtype}", {array.shape}, "{array.tobytes().hex()}")'


def numbers(dtype, shape, content):
    """An array by its bytes, in hexadecimal."""
    return np.frombuffer(bytes.fromhex(content), dtype).reshape(shape)


def test_of(call, seed, message):
    """The text of a test that fails as the call does."""
    arrays = "".join(f"            {literal(a)},\n" for a in call.arrays)
    return (
        f'"""Found by tests/fuzz.py, seed {seed}: {call.op}, {call.kind}."""\n\n'
        "from fuzz_operators import Call, check, numbers\n\n\n"
        f"def test_{call.op}():\n"
        f"    # {' '.join(message.split())}\n"
        "    call = Call(\n"
        f"        op={call.op!r},\n"
        f"        attrs={call.attrs!r},\n"
        f"        arrays=(\n{arrays}        ),\n"
        f"        dy={literal(call.dy)},\n"
        f"        layouts={call.layouts!r},\n"
        f"        kind={call.kind!r},\n"
        "    )\n"
        "    check(call)\n"
    )
