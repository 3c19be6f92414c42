"""Exact arithmetic on drawn problems, element by element against two independent oracles: hours, if asked.

    python tests/exact_draws.py --elements 1e8 --seed 0 --minutes 60

Convolutions, layers, affines, sums and means, with all their gradients, are compared with whole numbers in
digits (digits.py), which have no bound that could be wrong; every operator but products with `Fraction` and
the definitions of exact_operators.py. The first difference ends it with 1, and the arguments that draw that
problem again; the end of the time before all elements are compared is no failure.
"""

import argparse
import sys
import time
from collections import Counter

import numpy as np
from digits import added, convolved, multiplied, rounded, shaped, summed, whole
from exact_operators import DEFINITIONS, compare_drawn
from exact_operators import KINDS as OF_OPERATORS
from exact_products import DTYPES, arrays, largest, outlier, wide
from exact_products import KINDS as OF_PRODUCTS
from rounding import same_bits

from refnet.arithmetic.exact import add, conv3d, exact, fallback
from refnet.ops import OPS

# Numbers of many digits: problems of these are small.
LONG = (wide, outlier, largest)
AXES = (0, 2, 3, 4)
# Elements of a problem of sums, about.
SIZE = 60_000


def convolutions(rng, dtype):
    """y, dx, dw and db."""
    kind = OF_PRODUCTS[rng.integers(len(OF_PRODUCTS))]
    shapes, attrs = window(rng, small=kind in LONG)
    output = OPS["conv3d"].output_shape(shapes, attrs)
    filters = shapes[1][0]
    x, w = arrays(kind, dtype, shapes, rng)
    b, dy = (arrays(kind, dtype, [shape], rng)[0] for shape in ((filters,), output))
    has_bias = rng.random() < 0.5
    y, context = conv3d.forward(x, w, b if has_bias else None, **attrs)
    found = [y, *conv3d.backward(dy, context, (True, True) + (True,) * has_bias)]
    terms = max(w[0].size, filters * w[0, 0].size, dy.size // filters)
    expected = convolved(*map(whole, (x, w, dy)), terms, **attrs)
    if has_bias:
        expected[0] = added(expected[0], shaped(whole(b), (filters, 1, 1, 1)))
        expected.append(summed(whole(dy), AXES))
    names = (f"conv3d {what}" for what in ("y", "dx", "dw", "db"))
    yield from zip(names, found, (rounded(sums, dtype) for sums in expected), strict=False)


def window(rng, small):
    """Shapes of x and w, and attributes, of a convolution."""
    groups = int(rng.choice([1, 1, 1, 2, 3]))
    depth, filters = rng.integers(1, 5 if small else 13, 2) * (1, groups)
    kernel, stride, dilation = rng.integers(1, 4, 3), rng.integers(1, 3, 3), rng.integers(1, 3, 3)
    pad = rng.integers(0, kernel + 2)
    least = np.maximum(dilation * (kernel - 1) + 1 - 2 * pad, 1)
    space = least + rng.integers(0, (2, 7, 7) if small else (5, 26, 26))
    x = (int(rng.integers(1, 3)), int(depth * groups), *map(int, space))
    attrs = {"stride": stride, "pad": pad, "dilation": dilation}
    attrs = {name: tuple(map(int, values)) for name, values in attrs.items()}
    return (x, (int(filters), int(depth), *map(int, kernel))), attrs | {"groups": groups}


def layers(rng, dtype):
    """y, dx, dw and db of a layer: a convolution of one tap at one place."""
    kind = OF_PRODUCTS[rng.integers(len(OF_PRODUCTS))]
    most = (4, 40, 12) if kind in LONG else (40, 300, 200)
    n, d, k = (int(rng.integers(1, size)) for size in most)
    x, w = arrays(kind, dtype, [(n, d), (k, d)], rng)
    b, dy = (arrays(kind, dtype, [shape], rng)[0] for shape in ((k,), (n, k)))
    y, context = exact["linear"].forward(x, w, b)
    found = [y, *exact["linear"].backward(dy, context)]
    volumes = (whole(a.reshape(*a.shape, 1, 1, 1)) for a in (x, w, dy))
    sums, *others = convolved(*volumes, max(n, d, k))
    bias = shaped(whole(b), (k, 1, 1, 1))
    expected = (rounded(of, dtype) for of in (added(sums, bias), *others, summed(whole(dy), (0,))))
    for what, one, other in zip(("y", "dx", "dw", "db"), found, expected, strict=True):
        yield f"linear {what}", one, other.reshape(one.shape)


def of_kind(rng, dtype, *shapes):
    """Arrays of one kind, finite."""
    kind = OF_OPERATORS[rng.integers(len(OF_OPERATORS))]
    return [np.asarray(kind(rng, shape, dtype)).astype(dtype) for shape in shapes]


def volume(rng):
    """Any shape of about that size."""
    n, c, t = rng.integers(1, (4, 40, 6))
    h, w = rng.integers(1, 40, 2)
    return int(n), int(c), int(t), int(h), max(1, min(int(w), SIZE // int(n * c * t * h)))


def affines(rng, dtype):
    """y, dx, ds and db."""
    shape = volume(rng)
    x, s, b, dy = of_kind(rng, dtype, shape, shape[1:2], shape[1:2], shape)
    y, context = exact["affine"].forward(x, s, b)
    found = [y, *exact["affine"].backward(dy, context)]
    wide_x, wide_dy = whole(x), whole(dy)
    scale, shift = (shaped(whole(of), (of.size, 1, 1, 1)) for of in (s, b))
    expected = (
        *(added(multiplied(wide_x, scale), shift), multiplied(wide_dy, scale)),
        *(summed(multiplied(wide_dy, wide_x), AXES), summed(wide_dy, AXES)),
    )
    names = (f"affine {what}" for what in ("y", "dx", "ds", "db"))
    yield from zip(names, found, (rounded(of, dtype) for of in expected), strict=True)


def sums(rng, dtype):
    """Two to seven arrays, added up."""
    given = of_kind(rng, dtype, *[volume(rng)] * int(rng.integers(2, 8)))
    yield f"sum of {len(given)}", add.total("y", given), rounded(added(*map(whole, given)), dtype)


def means(rng, dtype):
    """y and dx of an average over all of a plane, or of a volume."""
    n, c, t, h, w = volume(rng)
    attrs = {"over_time": bool(rng.random() < 0.5)}
    shape = n, c, 1 if attrs["over_time"] else t, 1, 1
    x, dy = of_kind(rng, dtype, (n, c, t, h, w), shape)
    y, context = exact["global_average_pool"].forward(x, **attrs)
    (dx,) = exact["global_average_pool"].backward(dy, context)
    count, axes = x.size // dy.size, (2, 3, 4) if attrs["over_time"] else (3, 4)
    yield "global_average_pool y", y, rounded(summed(whole(x), axes), dtype, count).reshape(shape)
    yield "global_average_pool dx", dx, np.broadcast_to(rounded(whole(dy), dtype, count), x.shape).copy()


FAMILIES = (convolutions, affines, convolutions, sums, layers, convolutions, means)


def compare(seed, index):
    """Compare one problem; elements, and those that needed integers, by what they are."""
    rng = np.random.default_rng([seed, index])
    family, again = index % (len(FAMILIES) + 1), index // (len(FAMILIES) + 1)
    dtype = DTYPES[again % 2]
    with np.errstate(all="ignore"):
        if family == len(FAMILIES):
            name = list(DEFINITIONS)[again // 2 % len(DEFINITIONS)]
            kind = OF_OPERATORS[rng.integers(len(OF_OPERATORS))]
            return Counter({f"{name}, by Fraction": compare_drawn(name, kind, dtype, [seed, index])}), 0
        elements = Counter()
        with fallback.counted() as counts:
            for what, found, expected in FAMILIES[family](rng, dtype):
                assert same_bits(found, expected), f"{what}, {dtype}: {different(found, expected)}"
                elements[f"{what}, {dtype}"] += found.size
    return elements, sum(count.undecided for count in counts.of.values())


def different(found, expected):
    """How many elements are other ones, and the first of them."""
    at = np.argwhere(found.view(f"u{found.itemsize}") != expected.view(f"u{found.itemsize}"))
    first = tuple(map(int, at[0]))
    return f"{len(at)} elements, the first at {first}: {found[first]!r}, expected {expected[first]!r}"


def main():
    parser = argparse.ArgumentParser(description="Exact arithmetic on drawn problems.")
    parser.add_argument("--elements", type=float, default=1e8, help="how many are compared")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="the longest it takes")
    parser.add_argument("--first", type=int, default=0, help="number of the first problem")
    options = parser.parse_args()
    end, index = time.monotonic() + 60 * options.minutes, options.first
    elements, in_integers = Counter(), 0
    while elements.total() < options.elements and time.monotonic() < end:
        try:
            found, undecided = compare(options.seed, index)
        except AssertionError as error:
            print(f"{error}\nagain: --seed {options.seed} --first {index} --elements 1")
            return 1
        elements.update(found)
        in_integers += undecided
        index += 1
    for what, count in sorted(elements.items()):
        print(f"{count:>13,}  {what}")
    print(f"{elements.total():,} elements of {index - options.first} problems: no difference.")
    print(f"{in_integers:,} of those that are compared with digits needed integers.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
