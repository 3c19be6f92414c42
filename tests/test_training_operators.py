"""What classifiers and training add: literal values, worked out by hand or taken from the standard."""

from math import inf, log, nan

import numpy as np
import pytest
from support import assert_within, every_arithmetic, of_formulas, rounding_bound, unit

import refnet
from refnet.errors import DTypeError, ShapeError, ValueRangeError
from refnet.ops import OPS


@of_formulas
def test_softmax_literally(arithmetic):
    """The example of ONNX's `Softmax`, printed from float32, and a row whose exponentials would overflow."""
    y, context = arithmetic.softmax.forward(np.array([[-1.0, 0, 1], [1000, 1000, -inf]]))
    assert np.abs(y[0] - [0.09003058, 0.24472848, 0.66524094]).max() <= 2**-24
    assert y[1].tolist() == [0.5, 0.5, 0.0]
    (dx,) = arithmetic.softmax.backward(np.array([[0.0, 0, 0], [8, 4, 100]]), context)
    assert dx.tolist() == [[0, 0, 0], [1.0, -1.0, 0]]
    y, _ = arithmetic.softmax.forward(np.array([[0, nan], [0, 0]]))
    assert np.isnan(y[0]).all() and y[1].tolist() == [0.5, 0.5]


@every_arithmetic
def test_cross_entropy_literally(arithmetic):
    """Scores log 1, log 2, log 5 have the softmax 1/8, 2/8, 5/8."""
    x = np.log([[1.0, 2, 5], [1, 1, 2]])
    y, context = arithmetic.cross_entropy.forward(x, np.array([1, 2]))
    # Scores are rounded, and enter once as they are and once by their softmax; so is what is expected.
    u, softmax = unit("float64"), np.array([[1, 2, 5], [2, 2, 4]]) / 8
    rounding = rounding_bound(OPS["cross_entropy"], (x, np.array([1, 2])), {})
    assert y.shape == ()
    assert_within(y, (log(4) + log(2)) / 2, rounding + 2 * u * np.abs(x).max() + 3 * u * log(4))
    dx, nothing = arithmetic.cross_entropy.backward(np.array(16.0), context)
    assert nothing is None
    # 16 / 2 times the softmax, of relative error 2 u |x| for what scores are off, and 1, subtracted.
    off = rounding_bound(OPS["softmax"], (x,), {}) + 2 * u * np.abs(x).max() * softmax
    assert_within(dx, [[1, -6, 5], [2, 2, -4]], 8 * (off + 2 * u))
    y, _ = arithmetic.cross_entropy.forward(np.array([[0.0, 1000]]), np.array([0], np.int32))
    assert y == 1000, "no infinity on the way"


@every_arithmetic
@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.array([0, 3]), ValueRangeError, "label 3 of sample 1: expected one from 0 to 2"),
        (np.array([-1, 0]), ValueRangeError, "label -1 of sample 0"),
        (np.array([0]), ShapeError, "labels have shape 1: expected 2, one for each row of x"),
        (np.array([0.0, 1.0]), DTypeError, "cross_entropy labels is float64: expected integers"),
        (np.array([True, False]), DTypeError, "is bool: expected integers"),
        (np.array([0, 1], np.uint64), DTypeError, "is uint64: expected integers"),
    ],
)
def test_labels_that_are_none_are_refused(arithmetic, labels, error, message):
    with pytest.raises(error, match=message):
        arithmetic.cross_entropy.forward(np.zeros((2, 3)), labels)


def column(*values):
    return np.array(values, "float64").reshape(1, 1, 1, 1, -1)


@every_arithmetic
def test_batch_norm_literally(arithmetic):
    """The deviation is sqrt(3.75 + 0.25) = 2."""
    parts = [np.array([v]) for v in (4.0, 10.0, 1.0, 3.75)]
    y, context = arithmetic.batch_norm.forward(column(1, 3, -5), *parts, epsilon=0.25)
    assert y.ravel().tolist() == [10.0, 14.0, -2.0]
    dx, ds, db, *statistics = arithmetic.batch_norm.backward(column(1, 2, 4), context)
    assert dx.ravel().tolist() == [2.0, 4.0, 8.0]
    assert ds.tolist() == [(0 + 4 - 24) / 2] and db.tolist() == [7.0]
    assert statistics == [None, None]


@every_arithmetic
def test_batch_norm_in_training_literally(arithmetic):
    """Values of mean 8, and of variance 30 / 8 = 3.75: the deviation is 2 again."""
    z = np.array([1.0, -1, 1, -1, 2, -2, 3, -3])
    x = (z + 8).reshape(2, 1, 2, 2, 1)
    y, context = arithmetic.batch_norm_training.forward(x, np.array([4.0]), np.array([10.0]), epsilon=0.25)
    assert y.ravel().tolist() == (2 * z + 10).tolist()
    dy = np.array([8.0, 0, 0, 0, 0, 0, 0, 0])
    dx, ds, db = arithmetic.batch_norm_training.backward(dy.reshape(x.shape), context)
    assert ds.tolist() == [4.0] and db.tolist() == [8.0]
    # scale 2 times (dy - db / n - (z / 2) ds / n)
    assert dx.ravel().tolist() == (2 * (dy - 1 - z / 4)).tolist()


@every_arithmetic
def test_running_statistics_literally(arithmetic):
    x = column(7, 9)  # mean 8, unbiased variance 2
    y, context = arithmetic.running_mean.forward(x, np.array([4.0]), momentum=0.75)
    assert y.tolist() == [5.0]
    assert arithmetic.running_mean.backward(y, context) == (None, None)
    y, context = arithmetic.running_variance.forward(x, np.array([4.0]), momentum=0.75)
    assert y.tolist() == [3.5]
    assert arithmetic.running_variance.backward(y, context) == (None, None)


@every_arithmetic
def test_dropout_literally(arithmetic):
    y, context = arithmetic.dropout.forward(column(1, 2, 3, 4), column(1, 0, 1, 0), ratio=0.75)
    assert y.ravel().tolist() == [4.0, 0.0, 12.0, 0.0]
    dx, nothing = arithmetic.dropout.backward(column(1, 1, 2, 2), context)
    assert dx.ravel().tolist() == [4.0, 0.0, 8.0, 0.0] and nothing is None
    with pytest.raises(ValueRangeError, match=r"mask holds 0.5: expected 0 \(dropped\) and 1 \(kept\)"):
        arithmetic.dropout.forward(column(1, 2), column(1, 0.5))
    with pytest.raises(ShapeError, match="mask has shape 1x1x1x1x1: expected 1x1x1x1x2"):
        arithmetic.dropout.forward(column(1, 2), column(1))


@every_arithmetic
def test_statistics_and_options_that_cannot_be_are_refused(arithmetic):
    x, one = column(1, 2), np.ones(1)
    with pytest.raises(ValueRangeError, match=r"variance of channel 0 is -1.0: expected none below 0"):
        arithmetic.batch_norm.forward(x, one, one, one, -one)
    with pytest.raises(ShapeError, match="mean has shape 2: expected 1, one entry for each channel of x"):
        arithmetic.batch_norm.forward(x, one, one, np.ones(2), one)
    for wrong in (0, 1, -1, nan, "1", None, True):
        with pytest.raises(ValueRangeError, match="epsilon is .*: expected a number above 0 and below 1"):
            arithmetic.batch_norm_training.forward(x, one, one, epsilon=wrong)
        with pytest.raises(ValueRangeError, match="momentum is .*: expected a number above 0 and below 1"):
            arithmetic.running_mean.forward(x, one, momentum=wrong)
        with pytest.raises(ValueRangeError, match="ratio is .*: expected a number above 0 and below 1"):
            arithmetic.dropout.forward(x, x, ratio=wrong)
    with pytest.raises(ShapeError, match="x has one value a channel: expected at least two"):
        arithmetic.running_variance.forward(column(1), one)


def test_a_net_tells_labels_from_numbers():
    net = refnet.Net()
    x, labels = net.input("data", (2, 3)), net.input("labels", (2,))
    net.output(net.add("cross_entropy", "loss", (x, labels)))
    given = refnet.fill.inputs(net, dtype="float32")
    assert given["labels"].dtype == np.int64 and set(given["labels"]) <= {0, 1, 2}
    run = refnet.forward(net, given)
    assert run.blobs["loss"].dtype == np.float32
    dy = refnet.fill.output_gradients(net, dtype="float32")
    assert dy["loss"] == 1, "a loss is what is differentiated"
    grads = refnet.backward(run, dy)
    assert set(grads) == {"data"} and not grads.blocked, "labels are given, not blocked"
    with pytest.raises(DTypeError, match="labels is float64: expected integers"):
        refnet.forward(net, given | {"labels": np.zeros(2)})
    with pytest.raises(ValueRangeError, match=r"y \(dropout\) reads labels at input 0: expected real"):
        net.add("dropout", "y", ("labels", "labels"))
    with pytest.raises(ValueRangeError, match="reads other_b at input 1: expected an input of the net"):
        net.add("cross_entropy", "again", ("data", net.param("other_b", (2,))))
