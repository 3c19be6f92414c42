"""Seeded values with the same bits on every machine.

Raw 64-bit words come from Philox (Salmon et al., SC 2011), whose stream NumPy guarantees; the top 24
bits of a word become an odd multiple of 2**-24 in (-1, 1), exact in float32 and float64 alike. What
follows uses only + - * / and sqrt, which IEEE 754 rounds correctly, in float64; float32 values are
the float64 values rounded once. Each tensor has a stream of its own, keyed by the seed and the
tensor's name, so it does not depend on what else is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from math import sqrt

import numpy as np
from numpy.typing import DTypeLike

from refnet import memory
from refnet.arrays import Array, dtype_name
from refnet.environment import in_default
from refnet.errors import UnknownNameError, ValueRangeError, brief, require_kind
from refnet.net import Net, require_net
from refnet.ops import OPS
from refnet.pieces import rows
from refnet.shapes import LARGEST_SIZE, Shape, not_a_shape, plain, size, whole

__all__ = ["gradients_of", "inputs", "normal", "output_gradients", "params", "uniform"]

# About the range of pixel values once their means are subtracted.
PIXEL_RANGE = 128.0


@in_default
def params(net: Net, seed: int = 0, dtype: DTypeLike = "float64") -> dict[str, Array]:
    """Draw every parameter of a net, by the last letter of its name.

    ``_w``: uniform with He's variance, sqrt(6 / fan_in) * U(-1, 1), where fan_in is the number of
    taps of an output element (He et al., arXiv:1502.01852); ``_s``: 1 + U(-1, 1) / 8; ``_b``:
    U(-1, 1) / 8. The weights of a fully connected layer whose scores a loss reads are divided by
    2 ** (9 + a / 2), with a the number of sums in the net, rounded up: each sum of a residual network
    about doubles the variance, and scores far apart would leave the loss nothing to say. What the
    operator that reads it restricts (statistics) is drawn as that operator says.

    Parameters
    ----------
    net : Net
    seed : int
        From 0 to 2**64 - 1.
    dtype : {"float64", "float32"}
        Or whatever else NumPy takes for one of these: ``np.float32``, ``"f4"``, ``float``.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    UnknownNameError, ValueRangeError
        If the dtype, the seed or a parameter's ending is not one of these.
    """
    require_net(net)
    quiet = _read_by_a_loss(net)

    def value(name: str, shape: Shape) -> Array:
        return _legal(net, name, uniform(name, shape, seed), _param) / quiet.get(name, 1.0)

    return _draw(net.params, value, dtype)


@in_default
def inputs(net: Net, seed: int = 0, dtype: DTypeLike = "float64") -> dict[str, Array]:
    """Draw every input of a net: 128 * U(-1, 1), about the range of pixels less their means.

    What the operator that reads it restricts (labels, boxes, masks) is drawn as that operator says.

    Parameters, returns and errors are those of `params`.
    """
    require_net(net)
    return _draw(
        net.inputs, lambda name, shape: _legal(net, name, uniform(name, shape, seed), _pixels), dtype
    )


@in_default
def output_gradients(net: Net, seed: int = 0, dtype: DTypeLike = "float64") -> dict[str, Array]:
    """Draw a gradient for every output of a net: U(-1, 1).

    A net with a loss, an output that is one number, is differentiated from its losses alone, with
    dy = 1: a training step's gradients.

    Parameters, returns and errors are those of `params`.
    """
    require_net(net)
    return gradients_of(net.outputs, seed, dtype)


@in_default
def gradients_of(
    shapes: Mapping[str, Shape], seed: int = 0, dtype: DTypeLike = "float64"
) -> dict[str, Array]:
    """Draw the gradients of outputs by their shapes, as `output_gradients` does.

    Parameters
    ----------
    shapes : mapping of str to shape
    seed, dtype
        As for `params`; so are the errors.

    Returns
    -------
    dict of str to ndarray
        Of all outputs, or of those alone that are one number.
    """
    require_kind("shapes", shapes, Mapping, "of names to shapes")
    for name, shape in shapes.items():
        _require_sizes(name, shape)
    losses = {name: shape for name, shape in shapes.items() if shape == ()}
    if losses:
        return _draw(losses, lambda name, shape: np.ones(shape), dtype)
    return _draw(shapes, lambda name, shape: uniform(f"gradient of {name}", shape, seed), dtype)


def require_seed(seed: object) -> None:
    """Refuse what is no seed.

    Raises
    ------
    ValueRangeError
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise ValueRangeError(f"seed is {brief(seed)}: expected a whole number from 0 to 2**64 - 1")


@in_default
def uniform(name: str, shape: Shape, seed: int) -> Array:
    """Draw U(-1, 1): (2 k + 1 - 2**24) / 2**24 with k the top 24 bits of the words of a Philox stream.

    Parameters
    ----------
    name : str
        The first 8 bytes of its SHA-256, little-endian, are the second word of the Philox key.
    shape : tuple of int
    seed : int
        The first word of the key, from 0 to 2**64 - 1.

    Returns
    -------
    ndarray of float64

    Raises
    ------
    ValueRangeError, ShapeError, DTypeError
        If the seed is no whole number in that range, or the name or the shape is none.
    """
    require_seed(seed)
    require_kind("name", name, str, "that of a stream")
    _require_sizes(name, shape)
    key = np.array([seed, int.from_bytes(sha256(name.encode()).digest()[:8], "little")], np.uint64)
    stream, drawn = np.random.Philox(key=key), np.empty(size(shape))
    for some in rows(drawn.shape):
        words = stream.random_raw(some.stop - some.start)
        odd = (words >> np.uint64(40)).astype(np.float64) * 2 + (1 - 2**24)
        drawn[some] = odd / 2**24
    return drawn.reshape(shape)


@in_default
def normal(name: str, shape: Shape, seed: int) -> Array:
    """Draw about N(0, 1): half the sum of twelve draws of U(-1, 1), whose variance is 1 (Irwin-Hall).

    Sums of dyadic numbers of 24 bits are exact, so the bits are the same everywhere.

    Parameters and errors are those of `uniform`.

    Returns
    -------
    ndarray of float64
        Within [-6, 6].
    """
    require_kind("name", name, str, "that of a stream")
    total = uniform(f"normal 0 of {name}", shape, seed)
    for draw in range(1, 12):
        total += uniform(f"normal {draw} of {name}", shape, seed)
    return total / 2


def _require_sizes(name: str, shape: object) -> None:
    sizes = plain(shape)
    if not isinstance(sizes, tuple):
        raise not_a_shape(name, shape)
    for n in sizes:
        whole(f"size of {name}", n, 0, LARGEST_SIZE)


def _draw(
    shapes: Mapping[str, Shape], values: Callable[[str, Shape], Array], dtype: DTypeLike
) -> dict[str, Array]:
    """Draw each tensor in float64 and round it once; refuse first what would not fit into memory."""
    dtype = dtype_name(dtype)
    sizes = [size(shape) for shape in shapes.values()]
    memory.require(sum(sizes) * np.dtype(dtype).itemsize + 3 * max(sizes, default=0) * 8, "a fill")
    drawn = ((name, values(name, shape)) for name, shape in shapes.items())
    return {name: v if v.dtype == np.int64 else v.astype(dtype) for name, v in drawn}


def _legal(net: Net, name: str, values: Array, anything: Callable[[str, Array], Array]) -> Array:
    """Make draws of U(-1, 1) what the operator that reads them says; `anything` where it says nothing."""
    make, reader = net.domain(name).draw, net.first_reader(name)
    if make is None or reader is None:
        return anything(name, values)
    node, _ = reader
    return make(values, *map(net.shape, node.inputs), **node.attrs)


def _read_by_a_loss(net: Net) -> dict[str, float]:
    """The weights of the scores that a loss reads, and the power of two that they are divided by."""
    sums = sum(OPS[node.op].family == "sum" for node in net.nodes)
    scores = {node.inputs[0] for node in net.nodes if node.shape == ()}
    layers = [node for node in net.nodes if node.name in scores and OPS[node.op].family == "product"]
    return {node.inputs[1]: 2.0 ** (9 + (sums + 1) // 2) for node in layers}


def _pixels(name: str, values: Array) -> Array:
    return PIXEL_RANGE * values


def _param(name: str, values: Array) -> Array:
    match name.rpartition("_")[2]:
        case "w":
            return values * sqrt(6 / size(values.shape[1:]))
        case "s":
            return 1 + values / 8
        case "b":
            return values / 8
        case _:
            raise UnknownNameError("ending of a parameter's name", name, ("_w", "_s", "_b"))
