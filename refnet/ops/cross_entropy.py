"""Cross-entropy of scores and labels, the mean over the batch: one number.

y = (1 / N) sum over n of (log(sum over k of exp(x[n, k] - m[n])) - (x[n, label[n]] - m[n])), with m[n]
the largest score of sample n: minus the logarithm of the label's softmax. ONNX's
`SoftmaxCrossEntropyLoss` (opset 13, reduction mean); PyTorch's `cross_entropy`; Caffe2's `Softmax`,
`LabelCrossEntropy` and `AveragedLoss`. Step by step: m; d = x - m; e = exp(d); the sum of e; its
logarithm; less the label's d; the sum over samples; over N. The gradient at a label is its softmax less 1.

So a loss is off by roundings of 1 where it is small, and so is the gradient at the label. `core`, in double,
adds up the exponentials of the others by themselves: a loss is log(1 + others) where the label has the
largest score, the gradient at the label minus their share, and both have small relative errors (10 u of the
loss and of every dx; 0.6 units in the last place in float32). As in softmax, exp and log of `reference` are
NumPy's.
"""

from typing import Any

import numpy as np

from refnet import draws
from refnet.arrays import Array, rounded, wide
from refnet.errors import ShapeError, ValueRangeError
from refnet.op import (
    ANYTHING,
    Case,
    Cost,
    GradientMagnitudes,
    InputGradients,
    Magnitude,
    Needs,
    Op,
    benchmark,
    constant,
    drawn_case,
    everything,
    magnitudes,
    terms,
)
from refnet.ops import softmax
from refnet.pieces import rows
from refnet.shapes import Shape, size, text


def infer(x: Shape, labels: Shape) -> Shape:
    """Shape of y, (), for scores x (N, K) and labels (N,).

    Raises
    ------
    ShapeError
        If x is no matrix, or there is not one label for each of its rows.
    """
    x = softmax.infer(x)
    if tuple(labels) != x[:1]:
        raise ShapeError(f"labels have shape {text(labels)}: expected {x[0]}, one for each row of x")
    return ()


def forward(x: Array, labels: Array) -> tuple[Array, Any]:
    """Compute log(sum of exp(d)) - d[label], and its mean."""
    rows = np.arange(len(x))
    d = x - x.max(axis=1, keepdims=True)
    losses = np.log(np.exp(d).sum(axis=1)) - d[rows, labels]
    return np.asarray(rounded(wide(losses).sum() / len(x), x.dtype)), (x, labels)


def backward(dy: Array, context: Any, needs: Needs) -> InputGradients:
    """Dx = (softmax(x) - 1 at the label) dy / N; labels have no gradient."""
    x, labels = context
    if not needs[0]:
        return None, None
    dx, _ = softmax.forward(x)
    dx[np.arange(len(x)), labels] -= 1
    return dx * (dy / x.dtype.type(len(x))), None


# NumPy's logarithm is within 3.9 units in the last place in float32, so within 7.8 u; core's within 0.6.
LOG = 8


def magnitude(x: Array, labels: Array) -> Magnitude:
    """Mean of log(sum) + 1 + |d[label]| + sum of |d| softmax; K + N terms, the steps of softmax, log's."""
    d = x - x.max(axis=1, keepdims=True)
    y, _ = softmax.forward(x)
    of_label = np.abs(d[np.arange(len(x)), labels])
    sums = np.log(np.exp(d).sum(axis=1)) + 1 + of_label + (y * np.abs(d)).sum(axis=1)
    return Magnitude(np.asarray(sums.mean()), terms(sum(x.shape) + softmax.STEPS + LOG))


def gradient_magnitude(dy: Array, x: Array, labels: Array, *, needs: Needs) -> GradientMagnitudes:
    """(A y + 1 at the label) |dy| / N, A that of `softmax` and log(sum); K terms, the steps of y, three.

    By way of logarithms, y = exp(d - log(sum)), A has the latter's error, too; then come a difference, a
    quotient and a product.
    """
    if not needs[0]:
        return None, None
    y, _ = softmax.forward(x)
    d = x - x.max(axis=1, keepdims=True)
    of_x = y * (softmax.sensitivity(x, y) + np.log(np.exp(d).sum(axis=1, keepdims=True)))
    of_x[np.arange(len(x)), labels] += 1
    count = terms(x.shape[1] + softmax.STEPS + 3)
    return magnitudes((of_x * (np.abs(dy) / x.dtype.type(len(x))), None), count, terms(0))


def cost(x: Shape, labels: Shape, *, itemsize: int) -> Cost:
    """No multiply-adds; a label has eight bytes."""
    return Cost(0, (size(x) + 1) * itemsize + 8 * size(labels))


def check(x: Array, labels: Array) -> None:
    """Refuse labels that are no class.

    Raises
    ------
    ValueRangeError
        If one is negative, or not below K.
    """
    for some in rows(labels.shape):
        wrong = (labels[some] < 0) | (labels[some] >= x.shape[1])
        if wrong.any():
            n = some.start + int(np.argmax(wrong))
            raise ValueRangeError(f"label {labels[n]} of sample {n}: expected one from 0 to {x.shape[1] - 1}")


def draw_labels(uniform: Array, x: Shape, labels: Shape) -> Array:
    """Draw any of the K classes."""
    return ((uniform + 1) / 2 * x[1]).astype(np.int64)


def propose(rng: draws.Rng) -> Case:
    """Rows of a few scores."""
    n, k = draws.pick(rng, draws.SIZES), draws.pick(rng, draws.CHANNELS)
    return drawn_case((n, k), (n,))


OP = Op(
    name="cross_entropy",
    family="activation",
    infer=infer,
    forward=forward,
    backward=backward,
    magnitude=magnitude,
    gradient_magnitude=gradient_magnitude,
    propose=propose,
    cost=cost,
    cases=(
        Case("small", ((3, 5), (3,))),
        Case("one sample", ((1, 7), (1,))),
    ),
    benchmarks=(benchmark("cross-entropy", (32, 1000), (32,)),),
    domains=(ANYTHING, constant(draw_labels, integer=True)),
    check=check,
    smooth=True,
    divides=True,
    reach=everything,
    keeps=(0, 1),
)
