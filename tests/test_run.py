"""Forward and backward walks: what is computed, what is kept, what is refused."""

import copy
import pickle
import threading
import weakref
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from support import assert_within, every_arithmetic, every_dtype, whole_numbers
from threadpoolctl import threadpool_limits

import refnet
from refnet import golden, memory
from refnet._core import add as add_kernels
from refnet.arithmetic import ARITHMETICS, Kernel, core
from refnet.errors import DTypeError, KernelError, RefnetError, TooLargeError, ValueRangeError
from refnet.inputs.candidate import Candidate

SMALL = {
    "input": (1, 3, 2, 32, 32),
    "block_counts": (2, 2, 2),
    "feat_dims": (4, 4, 8, 16),
    "width_per_group": 4,
}


def small(**options):
    net = refnet.networks.resnet3d.body(**SMALL | options)
    return net, refnet.fill.params(net) | refnet.fill.inputs(net)


def counting(calls):
    """The core arithmetic, writing down every backward call by the gradients it is asked for."""

    def counted(op, kernel):
        def backward(dy, context, needs):
            calls.append((op, needs))
            return kernel.backward(dy, context, needs)

        return Kernel(kernel.forward, backward)

    return core.replace(**{op: counted(op, kernel) for op, kernel in core.kernels.items()})


@pytest.mark.parametrize("freeze_at", [0, 2, 3, 4])
def test_nothing_is_computed_upstream_of_a_stop(freeze_at):
    calls = []
    net, given = small(freeze_at=freeze_at)
    run = refnet.forward(net, given, counting(calls))
    refnet.backward(run, refnet.fill.output_gradients(net))
    after = {node.name for node in net.nodes if stage(node.name) > freeze_at}
    assert len(calls) == len(after)
    convolutions = [needs for op, needs in calls if op == "conv3d"]
    assert len(convolutions) == sum(n.op == "conv3d" and n.name in after for n in net.nodes)
    # The first convolution behind a stop has nobody to hand an input gradient to.
    assert all(needs == (True, True) for needs in convolutions) == (freeze_at in (0, 4))


def stage(name):
    return int(name[3]) if name.startswith("res") and name[3].isdigit() else 1


def test_gradients_are_absent_not_zero():
    net, given = small()
    grads = refnet.backward(refnet.forward(net, given), refnet.fill.output_gradients(net))
    assert "conv1_w" not in grads and "data" not in grads
    assert {"conv1_w", "data", "res2_1_branch2c_bn_b"} <= grads.blocked
    assert not grads.blocked & set(grads)
    assert grads.blocked | set(grads) == {*net.params, *net.inputs}
    with pytest.raises(KeyError, match="blocked"):
        grads["conv1_w"]
    with pytest.raises(KeyError):
        grads["nothing of the kind"]


def test_a_computed_zero_is_there_and_the_unconnected_is_neither():
    net = refnet.Net()
    x = net.input("data", (1, 1, 1, 1, 2))
    s, b = net.param("a_s", (1,)), net.param("a_b", (1,))
    y = net.add("affine", "a", (x, s, b))
    net.output(net.add("relu", "a_relu", (y,)))
    net.param("alone_s", (1,))
    ones = np.ones(1)
    given = {"data": np.full((1, 1, 1, 1, 2), -1.0), "a_s": ones, "a_b": 0 * ones, "alone_s": ones}
    grads = refnet.backward(refnet.forward(net, given), {"a_relu": np.ones((1, 1, 1, 1, 2))})
    assert grads["a_s"].tolist() == [0.0]
    assert "alone_s" not in grads and "alone_s" not in grads.blocked


def test_contributions_add_up_without_touching_their_owners():
    """y = relu(x) + relu(x) + x, by two adds: dx = dy + 2 dy where x > 0."""
    net = refnet.Net()
    x = net.input("data", (1, 1, 1, 1, 3))
    r = net.add("relu", "r", (x,))
    net.output(net.add("add", "z", (net.add("add", "y", (r, r)), x)))
    data, dy = np.array([[[[[1.0, -1.0, 2.0]]]]]), np.array([[[[[1.0, 10.0, 100.0]]]]])
    kept = dy.copy()
    run = refnet.forward(net, {"data": data})
    assert run.blobs["z"].ravel().tolist() == [3.0, -1.0, 6.0]
    for _ in range(2):
        assert refnet.backward(run, {"z": dy})["data"].ravel().tolist() == [3.0, 10.0, 300.0]
    assert np.array_equal(dy, kept)


def fan_out():
    """y = relu(x) + x, and a value for x."""
    net = refnet.Net()
    x = net.input("data", (1, 1, 1, 1, 2))
    net.output(net.add("add", "y", (net.add("relu", "r", (x,)), x)))
    return net, {"data": np.array([[[[[1.0, -1.0]]]]])}


def test_the_definitions_add_gradients_without_the_kernels(monkeypatch):
    net, given = fan_out()
    monkeypatch.setattr(add_kernels, "forward", None)
    grads = refnet.backward(refnet.forward(net, given, "reference"), {"y": np.array([[[[[1.0, 10.0]]]]])})
    assert grads["data"].ravel().tolist() == [2.0, 10.0]
    with pytest.raises(KernelError, match="^y \\(add\\): core add forward raised TypeError: "):
        refnet.forward(net, given, "core")


def test_gradients_are_added_by_the_run_s_own_arithmetic():
    def forward(a, b):
        added.append((a.ravel().tolist(), b.ravel().tolist()))
        return a + b, None

    added = []
    net, given = fan_out()
    run = refnet.forward(net, given, core.replace(add=Kernel(forward, core.kernels["add"].backward)))
    assert added.pop() == ([1.0, 0.0], [1.0, -1.0])
    grads = refnet.backward(run, {"y": np.array([[[[[1.0, 10.0]]]]])})
    assert added == [([1.0, 10.0], [1.0, 0.0])], "the add's own gradient, then the rectifier's"
    assert grads["data"].ravel().tolist() == [2.0, 10.0]


def test_several_output_gradients_at_once_add_up():
    net, _ = small(freeze_at=0)
    run = refnet.forward(net, whole_numbers(net))
    rng = np.random.default_rng(0)
    dys = {
        name: rng.integers(-3, 4, run.blobs[name].shape).astype("float64")
        for name in ("res2_0_relu", "res4_1_relu")
    }
    together = refnet.backward(run, dys)
    apart = [refnet.backward(run, {name: dy}) for name, dy in dys.items()]
    assert_within(together["conv1_w"], apart[0]["conv1_w"] + apart[1]["conv1_w"], 0)
    assert "res4_0_branch2a_w" not in apart[0] and "res4_0_branch2a_w" not in apart[0].blocked


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("freeze_at", [0, 2, 4])
def test_keeping_only_outputs_changes_nothing_but_memory(arithmetic, freeze_at):
    net, given = small(freeze_at=freeze_at)
    every = refnet.forward(net, given, arithmetic)
    lean = refnet.forward(net, given, arithmetic, keep="outputs")
    assert set(every.blobs) == {node.name for node in net.nodes}
    assert set(lean.blobs) == set(net.outputs)
    dy = refnet.fill.output_gradients(net)
    ours, theirs = refnet.backward(lean, dy), refnet.backward(every, dy)
    assert set(ours) == set(theirs) and ours.blocked == theirs.blocked
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)
    with pytest.raises(RefnetError, match="keep"):
        refnet.interop.caffe2.blobs(lean)


def watching(alive):
    """The core arithmetic, with a weak reference to every blob that it makes, but for those of stops."""

    def watched(op, kernel):
        def forward(*arrays, **attrs):
            y, context = kernel.forward(*arrays, **attrs)
            if op != "stop_gradient":
                alive.append(weakref.ref(y))
            return y, context

        return Kernel(forward, kernel.backward)

    return core.replace(**{op: watched(op, kernel) for op, kernel in core.kernels.items()})


def living(alive):
    return sum(ref() is not None for ref in alive)


def test_blobs_are_freed_as_soon_as_nothing_needs_them():
    """Every blob before the stop is gone by the time that its last reader is done."""
    alive, most = [], []
    net, given = small(freeze_at=4)
    refnet.forward(
        net, given, watching(alive), keep="outputs", on_node=lambda node: most.append(living(alive))
    )
    assert max(most) <= 3, "a block needs its input, and a value of its branch while the next one is made"


def test_a_lean_run_keeps_the_convolutions_and_every_other_sum_and_frees_what_backward_has_used():
    """y = relu(s x + b) is computed again; so is relu(s x + b + z), unless z is."""
    alive, left = [], []
    net, given = small(freeze_at=2)
    run = refnet.forward(net, given, watching(alive), keep="outputs")
    after = [node for node in net.nodes if node.name.startswith(("res3", "res4"))]
    convolutions = [node for node in after if node.op == "conv3d"]
    # res3 and res4 begin with a shortcut of convolution and affine, so their second blocks' outputs are kept.
    kept = len(convolutions) + len({"res3_1_relu", "res4_1_relu"})
    assert living(alive) == kept + 1  # what the stop reads
    made = len(alive)
    gradients = refnet.backward(
        run, refnet.fill.output_gradients(net), on_node=lambda node: left.append(living(alive))
    )
    readers = Counter(name for node in after for name in node.inputs)
    added = sum(readers[node.name] - 1 for node in after if node.name in readers)  # gradients of fan-outs
    again = len(alive) - made - added
    rectified = [node for node in after if node.op == "relu"]
    assert again == 3 * 2 + 2 * (len(rectified) - 4) + 2  # sums of two affines, relus of one, two of none
    assert left[-1] <= 4 < max(left) and living(alive) <= 2  # the output, and what the stop reads
    every = refnet.backward(refnet.forward(net, given), refnet.fill.output_gradients(net))
    assert all(gradients[name].tobytes() == every[name].tobytes() for name in every)


def test_a_lean_run_is_walked_backward_once():
    net, given = small(freeze_at=2)
    dy = refnet.fill.output_gradients(net)
    run = refnet.forward(net, given, keep="outputs")
    with pytest.raises(RefnetError, match="unknown node"):
        refnet.backward(run, {"nowhere": next(iter(dy.values()))})
    refnet.backward(run, dy)
    with pytest.raises(RefnetError, match="has freed what it used: expected a run that is new"):
        refnet.backward(run, dy)
    twice = refnet.forward(net, given)
    assert refnet.backward(twice, dy).keys() == refnet.backward(twice, dy).keys()


def test_a_net_is_planned_once_and_anew_when_it_has_grown(monkeypatch):
    planned = []
    flow = refnet.Net.gradient_flow
    monkeypatch.setattr(refnet.Net, "gradient_flow", lambda net: planned.append(net) or flow(net))
    net, given = small(freeze_at=0)
    for keep in ("outputs", "outputs", "all"):
        run = refnet.forward(net, given, keep=keep)
        refnet.backward(run, refnet.fill.output_gradients(net))
    assert planned == [net]
    x = net.add("relu", "again", ("res4_1_relu",))
    grown = refnet.forward(net, given, keep="outputs")
    assert set(grown.blobs) == {"res4_1_relu"} and planned == [net] * 2
    net.output(x)
    grown = refnet.forward(net, given, keep="outputs")
    assert set(grown.blobs) == {"res4_1_relu", "again"} and planned == [net] * 3
    dy = {"again": refnet.fill.output_gradients(net)["again"]}
    ours, theirs = refnet.backward(grown, dy), refnet.backward(refnet.forward(net, given), dy)
    assert "conv1_w" in ours and all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)
    net.outputs.clear()
    assert not refnet.forward(net, given, keep="outputs").blobs and planned == [net] * 4


def test_original_arrays_are_left_alone():
    net, given = small()
    before = {name: value.copy() for name, value in given.items()}
    for value in given.values():
        value.flags.writeable = False
    run = refnet.forward(net, given)
    refnet.backward(run, refnet.fill.output_gradients(net))
    assert all(np.array_equal(before[name], given[name]) for name in given)


@pytest.mark.parametrize("keep", ["all", "outputs"])
@every_arithmetic
def test_nobody_writes_into_what_backward_reads(arithmetic, keep):
    net, given = small()
    run = refnet.forward(net, given, arithmetic, keep=keep)
    for name, value in run.items():
        with pytest.raises(ValueError, match="read-only"):
            value[...] = 0
        assert not value.flags.writeable, name


def test_a_kernel_may_write_again_into_what_it_returned():
    held = np.empty((1, 1, 1, 1, 2))

    def forward(x):
        return np.maximum(x, 0, out=held), None

    net = refnet.Net()
    net.output(net.add("relu", "y", (net.input("data", held.shape),)))
    own = core.replace(relu=Kernel(forward, lambda dy, context, needs: (dy,)))
    for sign in (1, -1):
        x = sign * np.array([3.0, -2.0]).reshape(held.shape)
        assert refnet.forward(net, {"data": x}, own)["y"].tolist() == np.maximum(x, 0).tolist()


def test_a_run_is_a_mapping_that_equals_itself_alone():
    net, given = small()
    run, other = refnet.forward(net, given), refnet.forward(net, given)
    values = run.given | run.blobs
    assert isinstance(run, Mapping) and len(run) == len(values) == len({**run})
    assert [*run.keys()] == [*values] and all(dict(run)[name] is value for name, value in values.items())
    assert repr(run.keys()) == repr(values.keys())
    assert "conv1" in run and "conv_1" not in run and run.get("conv_1") is None
    dy = refnet.fill.output_gradients(net)
    for one, another in (
        (run, other),
        (refnet.backward(run, dy), refnet.backward(run, dy)),
        (core.replace(), core.replace()),
        (Candidate(blobs=run), Candidate(blobs=run)),
    ):
        assert one == one and one != another and len({one, another, one}) == 2


def own_forward(x):
    return np.maximum(x, 0), x > 0


def own_backward(dy, positive, needs):
    return (dy * positive,)


@pytest.mark.parametrize("keep", ["all", "outputs"])
@pytest.mark.parametrize(
    "arithmetic",
    [*ARITHMETICS.values(), core.replace(relu=Kernel(own_forward, own_backward))],
    ids=lambda it: it.name,
)
@pytest.mark.parametrize("twin", [lambda it: pickle.loads(pickle.dumps(it)), copy.deepcopy, copy.copy])
def test_a_run_can_be_pickled_and_copied(arithmetic, keep, twin):
    net, given = small()
    run = twin(refnet.forward(net, given, arithmetic, keep=keep))
    assert run.arithmetic.name == arithmetic.name and set(run.arithmetic) == set(arithmetic)
    assert (run.arithmetic is arithmetic) or arithmetic.name not in ARITHMETICS
    right = refnet.forward(net, given, arithmetic)
    for name, value in run.items():
        assert value.tobytes() == right[name].tobytes() and not value.flags.writeable
    dy = refnet.fill.output_gradients(net)
    found, expected = refnet.backward(run, dy), refnet.backward(right, dy)
    assert {n: g.tobytes() for n, g in found.items()} == {n: g.tobytes() for n, g in expected.items()}


def test_what_is_no_arithmetic_is_said_in_words_that_users_know(tmp_path):
    net, given = small()
    recipe = golden.Recipe("resnet18_conv4", (1, 3, 1, 32, 32), {"width_per_group": 4})
    own = replace(recipe, arithmetic=core.replace(relu=core.kernels["relu"]))
    golden.make(tmp_path / "own", own)
    calls = (
        lambda value: refnet.forward(net, given, value),
        lambda value: refnet.gradcheck.check_op("relu", arithmetic=value),
        lambda value: golden.make(tmp_path / "never", replace(recipe, arithmetic=value)),
        lambda value: golden.verify(tmp_path / "own", value),
    )
    said = "expected a name .reference, core, exact., or an Arithmetic, as core.replace.relu=Kernel"
    for value, found in ((core.conv3d, "conv3d of core"), (len, "a builtin_function"), (5, "5")):
        for call in calls:
            with pytest.raises(DTypeError, match=f"^arithmetic is {found}.*: {said}"):
                call(value)


@every_dtype
def test_layout_and_byte_order_of_what_is_given_do_not_matter(dtype):
    net, _ = small()
    given = refnet.fill.params(net, dtype=dtype) | refnet.fill.inputs(net, dtype=dtype)
    odd = {k: np.asfortranarray(v).astype(v.dtype.newbyteorder()) for k, v in given.items()}
    (output,) = net.outputs
    plain, other = (refnet.forward(net, g).blobs[output] for g in (given, odd))
    assert plain.dtype == other.dtype == dtype
    assert plain.tobytes() == other.tobytes()


@every_dtype
def test_a_whole_network_has_the_same_bits_with_one_and_two_threads(dtype):
    net = refnet.build("resnet18_conv4", input=(1, 3, 4, 64, 96), freeze_at=0)
    given = refnet.fill.params(net, dtype=dtype) | refnet.fill.inputs(net, dtype=dtype)
    dy = refnet.fill.output_gradients(net, dtype=dtype)
    bits = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            run = refnet.forward(net, given)
            arrays = {**run.blobs, **refnet.backward(run, dy)}
        bits.append({name: array.tobytes() for name, array in arrays.items()})
    assert bits[0] == bits[1]


def test_two_python_threads_at_once_get_right_answers():
    net, given = small()
    expected = refnet.forward(net, given).blobs["res4_1_relu"].tobytes()
    found = []
    threads = [
        threading.Thread(
            target=lambda: found.extend(
                refnet.forward(net, given).blobs["res4_1_relu"].tobytes() for _ in range(10)
            )
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20 and set(found) == {expected}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.pop("conv1_w"), "no value is given for conv1_w: expected"),
        (lambda g: g.update(conv_w=g["conv1_w"]), "unknown input or parameter 'conv_w': did you"),
        (lambda g: g.update(conv1_w=g["conv1_w"][:2]), "conv1_w has shape 2x3x1x7x7: expected 4x3x1x7x7"),
        (lambda g: g.update(conv1_w=g["conv1_w"].astype("float32")), "conv1_w is float32: expected float64"),
        (lambda g: g.update(data=g["data"].astype("uint8")), "data is uint8: expected float32 or float64"),
        (
            lambda g: g["data"].__setitem__((0, 1, 0, 2, 3), np.nan),
            r"data has 1 non-finite value.*nan at \[0, 1, 0, 2, 3",
        ),
        (lambda g: g["conv1_w"].fill(np.inf), "conv1_w has 588 non-finite values"),
    ],
)
def test_bad_values_are_refused(change, message):
    net, given = small()
    change(given)
    with pytest.raises(RefnetError, match=message):
        refnet.forward(net, given)


def test_nonfinite_values_are_allowed_when_asked_for():
    net, given = small()
    given["data"][0, 0, 0, 0, 0] = np.inf
    with np.errstate(invalid="ignore"):
        run = refnet.forward(net, given, allow_nonfinite=True)
    assert np.isinf(run.blobs["conv1"]).any()


@pytest.mark.parametrize(
    ("gradients", "message"),
    [
        ({"res4_1_rel": np.ones(1)}, "unknown node to start backward from 'res4_1_rel'"),
        ({"data": np.ones(1)}, "unknown node"),
        ({"res4_1_relu": np.ones((1, 16, 2, 2))}, "has shape 1x16x2x2: expected 1x16x2x2x2"),
        ({"res4_1_relu": np.ones((1, 16, 2, 2, 2), "float32")}, "is float32: expected float64"),
        ({"res4_1_relu": np.full((1, 16, 2, 2, 2), np.nan)}, "128 non-finite values"),
    ],
)
def test_bad_output_gradients_are_refused(gradients, message):
    net, given = small()
    with pytest.raises(RefnetError, match=message):
        refnet.backward(refnet.forward(net, given), gradients)


def test_backward_from_a_blob_that_was_not_kept_is_refused():
    net, given = small()
    run = refnet.forward(net, given, keep="outputs")
    with pytest.raises(RefnetError, match='keep="all"'):
        refnet.backward(run, {"res2_0_relu": np.ones((1, 4, 2, 8, 8))})


def test_unknown_arithmetic_and_keep_are_refused():
    net, given = small()
    with pytest.raises(RefnetError, match="unknown arithmetic 'cor': did you mean core"):
        refnet.forward(net, given, "cor")
    with pytest.raises(RefnetError, match="unknown value of keep 'some'"):
        refnet.forward(net, given, keep="some")


def test_what_would_not_fit_is_refused_before_it_is_allocated(monkeypatch):
    net, given = small()
    needed = sum(int(np.prod(node.shape)) for node in net.nodes) * 8
    monkeypatch.setattr(memory, "available", lambda: needed - 1)
    with pytest.raises(TooLargeError, match="a forward run needs about .* is available"):
        refnet.forward(net, given)
    refnet.forward(net, given, keep="outputs")
    monkeypatch.setattr(memory, "available", lambda: needed)
    refnet.forward(net, given)


def test_backward_too_is_refused_before_it_would_not_fit(monkeypatch):
    net, given = small()
    run, dy = refnet.forward(net, given), refnet.fill.output_gradients(net)
    monkeypatch.setattr(memory, "available", lambda: 1000)
    with pytest.raises(TooLargeError, match="a backward run needs about"):
        refnet.backward(run, dy)


def test_memory_is_counted_within_the_limits_of_the_container(tmp_path, monkeypatch):
    (tmp_path / "membership").write_text("0::/\n")
    monkeypatch.setattr(memory, "MOUNT", tmp_path)
    monkeypatch.setattr(memory, "MEMBERSHIP", tmp_path / "membership")
    free = memory.available()
    (tmp_path / "memory.max").write_text("max\n")
    assert abs(memory.available() - free) < 1 << 28
    (tmp_path / "memory.max").write_text(f"{1 << 30}\n")
    (tmp_path / "memory.current").write_text(f"{700 << 20}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {100 << 20}\n")
    assert memory.available() == (1024 - 700 + 100) << 20
    (tmp_path / "memory.max").write_text("1\n")
    assert memory.available() == 0


def test_the_callers_output_gradient_is_not_handed_out():
    net = refnet.Net()
    x = net.input("data", (1, 1, 1, 1, 1))
    z = net.input("more", (1, 1, 1, 1, 1))
    net.output(net.add("add", "y", (x, z)))
    ones = np.ones((1, 1, 1, 1, 1))
    run = refnet.forward(net, {"data": ones, "more": ones})
    dy = np.ones((1, 1, 1, 1, 1))
    grads = refnet.backward(run, {"y": dy})
    dy[:] = 7
    assert grads["data"].item() == 1.0


def test_a_kernel_under_test_runs_in_place_of_one_entry():
    calls = []

    def forward(x):
        calls.append(x.shape)
        return core.relu.forward(x)

    def backward(dy, context, needs):
        return core.relu.backward(dy, context, needs)

    net, given = small()
    run = refnet.forward(net, given, core.replace(relu=Kernel(forward, backward)))
    grads = refnet.backward(run, refnet.fill.output_gradients(net))
    plain = refnet.forward(net, given)
    assert len(calls) == sum(node.op == "relu" for node in net.nodes)
    assert run.blobs["res4_1_relu"].tobytes() == plain.blobs["res4_1_relu"].tobytes()
    assert len(grads) > 0


@every_arithmetic
def test_gradients_meet_in_values_of_any_rank(arithmetic):
    net = refnet.Net()
    w, b = net.param("w", (4, 4)), net.param("b", (4,))
    matrix = net.add("linear", "first", (net.input("data", (2, 4)), w, b))
    for name in ("left", "right"):
        net.output(net.add("linear", name, (matrix, w, b)))
    run = refnet.forward(net, whole_numbers(net), arithmetic)
    rng = np.random.default_rng(0)
    dy = {name: rng.integers(-4, 5, shape).astype("float64") for name, shape in net.outputs.items()}
    grads = refnet.backward(run, dy)
    # The gradients are linear in dy, and whole numbers.
    alone = [refnet.backward(run, {name: value}) for name, value in dy.items()]
    for name, shape in {**net.params, **net.inputs}.items():
        assert grads[name].shape == shape and grads[name].any()
        assert np.array_equal(grads[name], sum(g[name] for g in alone))
    # By hand: b is added in three places, and what it adds to the first goes through w in the others.
    total = dy["left"] + dy["right"]
    assert np.array_equal(grads["b"], (total + total @ run.given["w"]).sum(axis=0))


def test_backward_from_nothing_is_refused():
    net = refnet.Net()
    net.output(net.add("relu", "y", (net.input("x", (1, 1, 1, 2, 2)),)))
    run = refnet.forward(net, {"x": np.ones((1, 1, 1, 2, 2))})
    with pytest.raises(ValueRangeError, match="output_gradients is empty, .* expected the gradient of y, or"):
        refnet.backward(run, {})
