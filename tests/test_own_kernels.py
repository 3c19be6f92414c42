"""Kernels of somebody's own in a network: what they are given, and how it is said what they did wrong."""

import warnings

import numpy as np
import pytest

import refnet
from refnet.arithmetic import ARITHMETICS, Kernel, core
from refnet.errors import DTypeError, KernelError, RefnetError, ShapeError
from refnet.ops import OPS
from tests.support import reals

X = np.array([[[[[1.0, -2.0, 3.0]]]]])
DY = {"second": np.ones((1, 1, 1, 1, 3))}


def chain():
    """Two rectifiers in a row, each a node of its own."""
    net = refnet.Net()
    x = net.input("data", X.shape)
    net.output(net.add("relu", "second", (net.add("relu", "first", (x,)),)))
    return net


def forward(x):
    return np.maximum(x, 0), x > 0


def backward(dy, positive, needs):
    return (dy * positive,)


def ran(kernel, given=X, **options):
    return refnet.forward(chain(), {"data": given}, core.replace(relu=kernel), **options)


def raises(*arguments):
    raise ValueError("no\nway")


def leaves(*arguments):
    raise SystemExit(3)


FORWARD = {
    "None": (lambda x: None, DTypeError, r"forward returned None: expected \(y, context\)"),
    "an array alone": (lambda x: x, DTypeError, r"forward returned an ndarray: expected \(y, context\)"),
    "y is None": (
        lambda x: (None, None),
        DTypeError,
        "forward: y is None: expected a NumPy array, float64 1x1x1x1x3",
    ),
    "a list": (lambda x: (x.tolist(), None), DTypeError, "forward: y is a list: expected a NumPy array"),
    "a mask": (
        lambda x: (np.ma.masked_array(x), None),
        DTypeError,
        "forward: y is a MaskedArray: expected a NumPy",
    ),
    "another shape": (
        lambda x: (x[0], 0),
        ShapeError,
        "forward: y is float64 1x1x1x3: expected float64 1x1x1x1x3",
    ),
    "another dtype": (
        lambda x: (x.astype("f4"), 0),
        ShapeError,
        "forward: y is float32 1x1x1x1x3: expected float64",
    ),
    "another byte order": (
        lambda x: (x.astype(">f8"), 0),
        ShapeError,
        "forward: y is >f8 1x1x1x1x3: expected float64",
    ),
    "an exception": (raises, KernelError, "forward raised ValueError: no way"),
    "an end": (leaves, KernelError, "forward raised SystemExit: 3"),
    "other arguments": (lambda: (X, None), KernelError, "forward raised TypeError: .*0 positional arguments"),
    "NaN": (
        lambda x: (x * np.nan, None),
        KernelError,
        "forward returned nothing but NaN, though all that it read",
    ),
}
BACKWARD = {
    "None": (
        lambda *a: None,
        ShapeError,
        "backward returned None: expected 1 gradients, one or None for each",
    ),
    "an array": (lambda dy, *a: dy, ShapeError, "backward returned an ndarray: expected 1 gradients"),
    "too many": (lambda dy, *a: (dy, dy), ShapeError, "backward returned 2: expected 1 gradients"),
    "no gradient": (
        lambda *a: (None,),
        DTypeError,
        "backward: gradient of x is None: expected a NumPy array",
    ),
    "another shape": (
        lambda dy, *a: (dy[0],),
        ShapeError,
        "gradient of x is float64 1x1x1x3: expected float64",
    ),
    "another dtype": (lambda dy, *a: (dy.astype("f4"),), ShapeError, "gradient of x is float32"),
    "an exception": (raises, KernelError, "backward raised ValueError: no way"),
    "an end": (leaves, KernelError, "backward raised SystemExit: 3"),
    "NaN": (
        lambda dy, *a: (dy * np.nan,),
        KernelError,
        "backward returned for the gradient of first nothing but NaN",
    ),
}


@pytest.mark.parametrize("name", FORWARD)
def test_what_forward_does_wrong_is_said_of_its_node_in_a_line(name):
    wrong, kind, said = FORWARD[name]
    with pytest.raises(kind, match=rf"^first \(relu\): core with relu replaced relu {said}") as caught:
        ran(Kernel(wrong, backward))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", ["all", "outputs"])
@pytest.mark.parametrize("name", BACKWARD)
def test_what_backward_does_wrong_is_said_of_its_node_in_a_line(name, keep):
    wrong, kind, said = BACKWARD[name]
    run = ran(Kernel(forward, wrong), keep=keep)
    with pytest.raises(kind, match=rf"^second \(relu\): core with relu replaced relu .*{said}") as caught:
        refnet.backward(run, DY)
    assert "\n" not in str(caught.value)


def test_the_exception_of_a_kernel_is_kept_as_the_cause():
    with pytest.raises(KernelError) as caught:
        ran(Kernel(raises, backward))
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_kernel_that_is_interrupted_is_not_blamed():
    def interrupted(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ran(Kernel(interrupted, backward))


def test_where_gradients_meet_the_sum_is_named():
    net = refnet.Net()
    x = net.input("data", X.shape)
    net.output(net.add("add", "sum", (x, x)))
    own = core.replace(add=Kernel(core.kernels["add"].forward, core.kernels["add"].backward))
    run = refnet.forward(net, {"data": X}, own)
    own._doors["add"]._kernel = Kernel(raises, raises)
    with pytest.raises(KernelError, match=r"^sum \(add\): core with add replaced add backward raised"):
        refnet.backward(run, {"sum": X})
    own._doors["add"]._kernel = Kernel(raises, core.kernels["add"].backward)
    with pytest.raises(KernelError, match="^gradient of data: core with add replaced add raised ValueError"):
        refnet.backward(run, {"sum": X})


def test_nan_that_was_given_is_no_kernel_s():
    given = np.full(X.shape, np.nan)
    run = ran(Kernel(forward, backward), given, allow_nonfinite=True)
    assert np.isnan(run.blobs["second"]).all()
    nothing = Kernel(lambda x: (x, x), lambda dy, x, needs: (dy * x,))
    grads = refnet.backward(ran(nothing, given, allow_nonfinite=True), DY)
    assert np.isnan(grads["data"]).all()
    grads = refnet.backward(ran(Kernel(forward, backward)), {"second": given}, allow_nonfinite=True)
    assert np.isnan(grads["data"][..., ::2]).all()


def test_some_nan_and_overflow_can_be_let_pass():
    some = Kernel(lambda x: (np.where(x > 2, np.nan, x), x), backward)
    assert np.isnan(ran(some).blobs["first"]).sum() == 1
    empty = Kernel(lambda x: (x * np.nan, x), lambda dy, x, needs: (dy * np.nan,))
    run = ran(empty, allow_nonfinite=True)
    assert np.isnan(refnet.backward(run, DY, allow_nonfinite=True)["data"]).all()


def test_sums_that_overflow_are_said_to_be_nothing_but_nan():
    """inf - inf, of finite numbers, a chain of 256 each: nobody's mistake, and of no use either."""
    shape = (1, 512, 1, 1, 1)
    net = refnet.Net()
    x, w = net.input("data", shape), net.param("a_w", shape)
    net.output(net.add("conv3d", "a", (x, w)))
    given = {"data": np.full(shape, 1e200), "a_w": np.repeat([1e200, -1e200], 256).reshape(shape)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(
            KernelError, match=r"^a \(conv3d\): core conv3d forward .* where sums may overflow"
        ):
            refnet.forward(net, given)
        assert np.isnan(refnet.forward(net, given, allow_nonfinite=True).blobs["a"]).all()


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_every_attribute_is_passed_defaults_too(op):
    case = op.cases[0]
    taken = []

    def noting(*arrays, **attrs):
        taken.append(attrs)
        return core.kernels[op.name].forward(*arrays, **attrs)

    own = core.replace(**{op.name: Kernel(noting, core.kernels[op.name].backward)})
    arrays = reals(op, case)
    own[op.name].forward(*arrays, **case.attrs)
    defaults = {name: p.default for name, p in op.signature.parameters.items() if name in op.attributes}
    assert taken == [defaults | case.attrs]
    net = refnet.Net()
    names = [net.input(f"i{i}", a.shape) for i, a in enumerate(arrays)]
    net.add(op.name, "node", names, **case.attrs)
    assert net.nodes[0].attrs == case.attrs, "a node has what it was given"
    refnet.forward(net, dict(zip(names, arrays, strict=True)), own)
    assert taken[1] == taken[0]


def test_lists_reach_a_kernel_as_tuples():
    def pool(x, *, kernel, stride, pad):
        assert (kernel, stride, pad) == ((1, 1, 2), (1, 1, 1), (0, 0, 0))
        return x[..., :-1], None

    own = core.replace(max_pool3d=Kernel(pool, backward))
    y, _ = own.max_pool3d.forward(X, kernel=[1, 1, 2])
    assert y.shape == (1, 1, 1, 1, 2)


@pytest.mark.parametrize("arithmetic", ARITHMETICS.values(), ids=lambda a: a.name)
def test_operands_go_by_name_and_may_be_none_where_they_may_be_left_out(arithmetic):
    x, w, b = X, np.full((1, 1, 1, 1, 1), 2.0), np.array([0.5])
    expected = 2 * x + 0.5
    for y, _ in (
        arithmetic.conv3d.forward(x, w, b),
        arithmetic.conv3d.forward(x, w=w, b=b),
        arithmetic.conv3d.forward(b=b, w=w, x=x),
    ):
        assert np.array_equal(y, expected)
    y, context = arithmetic.conv3d.forward(x, w, None, groups=1)
    assert np.array_equal(y, 2 * x)
    assert len(arithmetic.conv3d.backward(y, context)) == 2
    with pytest.raises(DTypeError, match="relu x is None"):
        arithmetic.relu.forward(None)
    with pytest.raises(
        ShapeError, match=r"multiple values for argument 'w': expected conv3d\(x, w, b=None, \*,"
    ):
        arithmetic.conv3d.forward(x, w, w=w)


def test_a_kernel_is_two_functions():
    with pytest.raises(DTypeError, match="backward of a Kernel is None: expected a function"):
        Kernel(forward, None)
    with pytest.raises(
        DTypeError, match="the relu of core with relu replaced is a function: expected Kernel"
    ):
        core.replace(relu=forward)
    with pytest.raises(RefnetError, match="unknown operator 'conv2d': did you mean conv3d"):
        core.replace(conv2d=Kernel(forward, backward))
