"""The kernel of `refnet.ops.add`, and the sum of any number of arrays; its gradients are dy itself."""

from collections.abc import Sequence
from typing import Any

from refnet._core import exact_sums
from refnet.arithmetic.core.buffers import empty
from refnet.arithmetic.exact import fallback
from refnet.arithmetic.exact.door import require_finite
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.ops.add import backward


def forward(x1: Array, x2: Array) -> tuple[Array, Any]:
    """Compute RN(x1 + x2)."""
    return total("y", [x1, x2]), None


def gradient(arrays: Sequence[Array]) -> Array:
    """RN(sum of all arrays), each a gradient of one value."""
    for array in arrays:
        require_finite("one of several gradients", array, -1)
    return total("sum", arrays)


def total(what: str, arrays: Sequence[Array]) -> Array:
    """RN(sum of all arrays), element by element; all are C-contiguous, finite, of one shape and dtype."""
    y = empty(arrays[0].shape, arrays[0].dtype)
    undecided = exact_sums.array_sums([a.reshape(-1) for a in arrays], y.reshape(-1))
    fallback.note(what, y.size, undecided)
    return y


KERNEL = Kernel(forward, backward)
