"""The kernel of `refnet.ops.cross_entropy`, in steps, each correctly rounded in the dtype of x.

Forward, with d, e and S of each row as in `softmax`::

    l    = RN(log(S))
    loss = RN(l - d[label])
    y    = RN((sum of losses) / N)

Backward::

    q  = RN(e / S)
    g  = RN(q - 1) at the label, q elsewhere
    dx = RN(g dy / N)
"""

from typing import Any

import numpy as np

from refnet.arithmetic.exact import channels, weighted
from refnet.arithmetic.exact.door import require_finite
from refnet.arithmetic.exact.elementary import logarithms
from refnet.arithmetic.exact.rational import rational
from refnet.arithmetic.exact.softmax import as_channels, exponentials_of
from refnet.arithmetic.exact.weighted import Entries
from refnet.arithmetic.table import Kernel
from refnet.arrays import Array
from refnet.environment import errstate
from refnet.op import InputGradients, Needs


def forward(x: Array, labels: Array) -> tuple[Array, Any]:
    """RN((sum of losses) / N)."""
    d, e, total = exponentials_of(x)
    with errstate(over="ignore"):
        losses = logarithms(total) - d[np.arange(len(x)), labels]
    require_finite("cross_entropy losses", losses)
    y = channels.sums("y", as_channels(losses[None]), len(x))
    return y.reshape(()), (e, total, labels)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """RN(g dy / N); labels have no gradient."""
    e, total, labels = context
    if not needs[0]:
        return None, None
    with errstate(under="ignore"):
        g = e / total[:, None]
    g[np.arange(len(g)), labels] -= 1
    # One row of g, weighed by dy.
    factor = rational(dy)
    one = np.zeros(1, np.intp)
    entries = Entries(one, one, np.array([[float(dy), 0.0, 0.0]]), lambda _: factor)
    dx = weighted.sums("dx", g.reshape(1, -1), entries, 1, len(g))
    return dx.reshape(g.shape), None


KERNEL = Kernel(forward, backward)
