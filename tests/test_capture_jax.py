"""`capture` of functions of JAX's arrays: what `jax.grad` makes of the same function without taps."""

import numpy as np
import pytest
from support import peer

import refnet
from refnet.check import Report
from refnet.errors import DTypeError, ShapeError, UnknownNameError, ValueRangeError
from refnet.interop import jax as interop
from refnet.interop.jax import capture, compare
from refnet.net import Net


@pytest.fixture(scope="module")
def jax():
    return peer("jax")


def small(jax, stop=False, bias=True):
    """Two convolutions, channels last; the first value is read twice."""
    lax, np_ = jax.lax, jax.numpy
    layout = ("NDHWC", "DHWIO", "NDHWC")

    def conv(x, w):
        return lax.conv_general_dilated(x, w, (1, 1, 1), "SAME", dimension_numbers=layout)

    def function(given, tap):
        y = tap("conv1", conv(given["data"], given["conv1_w"]))
        if stop:
            y = tap("stop1", lax.stop_gradient(y))
        y = tap("relu1", np_.maximum(y, 0))
        z = conv(y, given["conv2_w"])
        z = tap("conv2", z + given["conv2_b"] if bias else z)
        return tap("sum", y + z)

    return function


def drawn(dtype="float32"):
    rng = np.random.default_rng(0)
    shapes = {
        "data": (2, 2, 5, 5, 3),
        "conv1_w": (3, 3, 3, 3, 4),
        "conv2_w": (1, 3, 3, 4, 4),
        "conv2_b": (4,),
    }
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_values_and_gradients_are_those_of_jax(jax, jit, dtype):
    function = small(jax)
    given = {name: jax.numpy.asarray(value, dtype) for name, value in drawn().items()}
    found = capture(function, given, jit=jit)
    assert list(found.blobs) == ["conv1", "relu1", "conv2", "sum"]
    tapped = {}
    if not jit:
        function(given, lambda name, value: tapped.setdefault(name, value))
    dy = refnet.fill.uniform("gradient of sum", (2, 2, 5, 5, 4), 0)
    dy = jax.numpy.asarray(dy, dtype)

    def loss(g, added):
        return (function(g, lambda n, v: v + added[n] if n in added else v) * dy).sum()

    zeros = {name: jax.numpy.zeros(value.shape, dtype) for name, value in found.blobs.items()}
    gradients, arrived = jax.grad(loss, (0, 1))(given, zeros)
    scale = 2**-7 if dtype == "bfloat16" else 1e-5
    assert set(found.gradients) == set(given) and set(found.blob_gradients) == set(found.blobs)
    for ours, theirs in ((found.gradients, gradients), (found.blob_gradients, arrived), (found.given, given)):
        for name, value in theirs.items():
            assert ours[name].dtype == np.float32
            wanted = np.asarray(value, "float32")
            np.testing.assert_allclose(ours[name], wanted, rtol=0, atol=2 * scale * abs(wanted).max())
    for name, value in tapped.items():
        assert (found.blobs[name] == np.asarray(value, "float32")).all(), name
    assert (found.output_gradients["sum"] == np.asarray(dy, "float32")).all()


def test_what_a_stop_is_in_front_of_has_no_gradient(jax):
    """Not zeros: a gradient that is absent and one that is zero are told apart."""
    found = capture(small(jax, stop=True), drawn())
    assert set(found.gradients) == {"conv2_w", "conv2_b"}
    assert set(found.blob_gradients) == {"conv2", "sum"} and "relu1" in found.blobs
    dead = drawn()
    dead["conv1_w"] = -abs(dead["conv1_w"])
    dead["data"] = abs(dead["data"])
    found = capture(small(jax), dead)
    assert not found.gradients["conv1_w"].any() and set(found.gradients) == set(dead)


def test_taps_change_no_bit(jax):
    """Zeros keep their signs, and NaN goes through."""
    found = capture(lambda g, tap: tap("y", -tap("x2", g["x"] * 1)), {"x": np.float32([0.0, -0.0, np.nan])})
    assert np.signbit(found.blobs["y"][:2]).tolist() == [True, False] and np.isnan(found.blobs["y"][2])


def test_losses_integers_and_parts_that_are_compiled(jax):
    """The gradient starts from the loss alone; labels have none."""
    np_, nn = jax.numpy, jax.nn

    def function(given, tap):
        scores = tap("fc", jax.jit(np_.matmul)(given["x"], given["fc_w"].T))
        tap("argmax", scores.argmax(1))
        chance = tap("prob", nn.softmax(scores))
        rows = np_.arange(len(given["labels"]))
        return {"prob": chance, "loss": tap("loss", -np_.log(chance)[rows, given["labels"]].mean())}

    rng = np.random.default_rng(0)
    given = {"x": rng.random((3, 4), "float32"), "fc_w": rng.random((5, 4), "float32")}
    given["labels"] = np.array([0, 4, 2])
    found = capture(function, given)
    assert found.output_gradients == {"loss": 1} and set(found.gradients) == {"x", "fc_w"}
    one = np.eye(5)[given["labels"]]
    np.testing.assert_allclose(found.blob_gradients["fc"], (found.blobs["prob"] - one) / 3, atol=1e-6)
    assert found.given["labels"].dtype == np.int64 and found.blobs["argmax"].dtype == np.int64


def test_gradients_start_where_they_are_given(jax):
    function, given = small(jax), drawn()
    dy = {"conv2": np.ones((2, 2, 5, 5, 4), "float32")}
    found = capture(function, given, output_gradients=dy)
    assert set(found.blob_gradients) == {"conv1", "relu1", "conv2"}
    np.testing.assert_allclose(found.gradients["conv2_b"], 100)
    forward = capture(function, given, output_gradients={})
    assert not forward.gradients and not forward.blob_gradients and not forward.output_gradients
    assert (forward.blobs["sum"] == found.blobs["sum"]).all()


def test_float64_needs_x64(jax):
    said = r"data is float64, of which JAX makes float32: .*jax_enable_x64"
    with jax.enable_x64(False), pytest.raises(DTypeError, match=said):
        capture(small(jax), drawn("float64"))
    with jax.enable_x64(True):
        found = capture(small(jax), drawn("float64"))
    assert found.blobs["sum"].dtype == found.gradients["data"].dtype == np.float64


def test_what_does_not_fit_is_said(jax):
    given, dy = drawn(), {"sum": np.ones((2, 2, 5, 5), "float32")}
    twice = lambda g, tap: tap("x", tap("x", g["data"]))  # noqa: E731
    cases = [
        (twice, given, {}, ValueRangeError, "x is tapped twice"),
        (
            lambda g, tap: tap("x", g["data"]) + 1,
            given,
            {},
            ValueRangeError,
            "output 0 .*2x2x5x5x3, is not tapped",
        ),
        (
            small(jax),
            given,
            {"output_gradients": dy},
            ShapeError,
            "gradient of sum .*2x2x5x5: expected 2x2x5x5x4",
        ),
        (small(jax), given, {"output_gradients": {"sun": 0}}, UnknownNameError, "sun"),
        (small(jax), list(given), {}, DTypeError, "given"),
        (small(jax), given | {"data": "pixels"}, {}, DTypeError, "data"),
    ]
    for function, arrays, options, error, words in cases:
        with pytest.raises(error, match=words) as caught:
            capture(function, arrays, **options)
        assert "\n" not in str(caught.value)


def test_compare_hands_on_what_is_claimed(jax, monkeypatch):
    calls = []

    def certify(net, given, candidate, **claims):
        calls.append((net, given, candidate, claims))
        return Report(title="", verdicts={})

    monkeypatch.setattr(interop, "certify", certify)
    net = Net()
    for name in ("conv1_w", "conv2_w", "conv2_b"):
        net.param(name, (1,))
    compare(small(jax), net, drawn(), axes="NTHWC", kernel_axes="THWCK", seed=1, delta=1e-3)
    ((of, given, candidate, claims),) = calls
    assert of is net and claims == {"axes": "NTHWC", "kernel_axes": "THWCK", "delta": 1e-3}
    assert set(candidate.blobs) == {"conv1", "relu1", "conv2", "sum"}
    assert given == {}  # the candidate has them, in its own axes
    assert all((candidate.given[name] == value).all() for name, value in drawn().items())
    expected = refnet.fill.uniform("gradient of sum", (2, 2, 5, 5, 4), 1).astype("float32")
    assert (candidate.output_gradients["sum"] == expected).all()


def net_of_two(bias=True):
    net = Net()
    x, w = net.input("data", (2, 3, 2, 5, 5)), net.param("conv1_w", (4, 3, 3, 3, 3))
    y = net.add("relu", "relu1", (net.add("conv3d", "conv1", (x, w), pad=(1, 1, 1)),))
    given = [net.param("conv2_w", (4, 4, 1, 3, 3)), *([net.param("conv2_b", (4,))] if bias else [])]
    net.output(net.add("add", "sum", (y, net.add("conv3d", "conv2", (y, *given), pad=(0, 1, 1)))))
    return net


LAYOUT = {"axes": "NTHWC", "kernel_axes": "THWCK"}


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_function_is_consistent(jax, jit, dtype):
    bias = dtype == "float32"  # added to what is rounded already, it makes a second rounding
    given = {name: jax.numpy.asarray(value, dtype) for name, value in drawn().items()}
    if not bias:
        del given["conv2_b"]
    report = compare(
        small(jax, bias=bias), net_of_two(bias), given, jit=jit, store=dtype, operands=dtype, **LAYOUT
    )
    assert report.ok and {"sum", "d relu1", "d conv1_w", "d data"} <= set(report.verdicts), report


def test_a_mistake_is_named_where_it_is(jax):
    right = small(jax)

    def wrong(given, tap):
        return right(given | {"conv2_w": given["conv2_w"][:, ::-1]}, tap)

    report = compare(wrong, net_of_two(), drawn(), **LAYOUT)
    assert report.first_failure == "conv2" and report.verdicts["conv2"].hypothesis == "kernel flipped H"
