"""The kernel of `refnet.ops.softmax`, in steps, each correctly rounded in the dtype of x.

Forward, row by row, m being the largest value::

    d = RN(x - m)           -infinity where that is beyond the largest number
    e = RN(exp(d))          0 there
    S = RN(sum of e)
    y = RN(e / S)

Backward::

    p  = RN(sum of dy y)
    g  = RN(dy - p)
    dx = RN(y g)
"""

from typing import Any

from refnet.arithmetic.exact import channels
from refnet.arithmetic.exact.door import require_finite
from refnet.arithmetic.exact.elementary import exponentials
from refnet.arithmetic.exact.rational import products
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.environment import errstate
from refnet.op import InputGradients, Needs


def forward(x: Array) -> tuple[Array, Any]:
    """RN(e / S)."""
    _, e, total = exponentials_of(x)
    with errstate(under="ignore"):
        y = e / total[:, None]
    return y, y


def exponentials_of(x: Array) -> tuple[Array, Array, Array]:
    """d, e and S."""
    with errstate(over="ignore"):
        d = x - x.max(axis=1, keepdims=True)
    e = exponentials(d)
    return d, e, channels.sums("sum of e", as_channels(e))


def as_channels(rows: Array) -> Array:
    """View (N, K) as (1, N, 1, 1, K): each row a channel."""
    return rows.reshape(1, len(rows), 1, 1, -1)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """RN(y g)."""
    y = context
    if not needs[0]:
        return (None,)
    p = channels.products("sum of dy y", as_channels(dy), as_channels(y))
    require_finite("softmax sum of dy y", p)
    with errstate(over="ignore"):
        g = dy - p[:, None]
    require_finite("softmax dy - sum of dy y", g)
    return (products(y, g),)


KERNEL = Kernel(forward, backward)
