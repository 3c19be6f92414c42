"""Random small sizes, blobs and windows, of which operators propose problems to their checks."""

from collections.abc import Sequence

import numpy as np

from refnet.shapes import Geometry, Shape, Triple

Rng = np.random.Generator

BATCHES = (1, 1, 2, 3)
# One, powers of two, primes; more than a vector of 8 or 16 holds.
CHANNELS = (1, 2, 3, 4, 5, 7, 8, 11, 16, 17, 19, 33)
FRAMES = (1, 1, 2, 3, 4, 5)
SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 14)
KERNELS = (1, 1, 2, 3, 3, 4)
STRIDES = (1, 1, 2, 3)
PADS = (0, 0, 1, 2)
DILATIONS = (1, 1, 2, 3)


def pick(rng: Rng, choices: Sequence[int]) -> int:
    """Draw one of the choices; what is listed twice comes twice as often."""
    return int(choices[int(rng.integers(len(choices)))])


def chance(rng: Rng) -> bool:
    """Draw True or False."""
    return bool(rng.integers(2))


def blob(rng: Rng) -> Shape:
    """Draw a shape (N, C, T, H, W)."""
    return pick(rng, BATCHES), pick(rng, CHANNELS), pick(rng, FRAMES), pick(rng, SIZES), pick(rng, SIZES)


def window(rng: Rng) -> Geometry:
    """Draw a window, each axis for itself."""

    def triple(choices: Sequence[int]) -> Triple:
        return pick(rng, choices), pick(rng, choices), pick(rng, choices)

    return Geometry(triple(KERNELS), triple(STRIDES), triple(PADS), triple(DILATIONS))


def room(rng: Rng, window: Geometry) -> Triple:
    """Draw sizes of T, H and W that a window fits in."""
    t, h, w = (
        max(pick(rng, sizes), dilation * (k - 1) + 1 - 2 * pad)
        for sizes, k, pad, dilation in zip(
            (FRAMES, SIZES, SIZES), window.kernel, window.pad, window.dilation, strict=True
        )
    )
    return t, h, w


def pool(rng: Rng) -> tuple[Shape, dict[str, Triple]]:
    """Draw the shape that a pool is given, and its attributes: a pad is less than the kernel."""
    kernel, stride, pad, _ = window(rng)
    t, h, w = (min(p, k - 1) for p, k in zip(pad, kernel, strict=True))
    pads = (t, h, w)
    x = pick(rng, BATCHES), pick(rng, CHANNELS), *room(rng, Geometry(kernel, stride, pads))
    return x, {"kernel": kernel, "stride": stride, "pad": pads}
