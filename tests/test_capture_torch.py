"""`capture` of PyTorch modules: what autograd itself returns, by name; the module left as it was."""

import numpy as np
import pytest

import refnet
from refnet.check import Report
from refnet.errors import DTypeError, ShapeError, UnknownNameError, ValueRangeError
from refnet.interop import torch_capture
from refnet.interop.torch import capture, compare, load_weights
from refnet.interop.torch_capture import names_in


@pytest.fixture(scope="module")
def small(torch):
    """Two convolutions with one rectifier between and behind them, in place or not."""
    nn = torch.nn

    class Small(nn.Module):
        def __init__(self, inplace=False):
            super().__init__()
            self.conv1 = nn.Conv3d(3, 4, 3, padding=1)
            self.bn = nn.BatchNorm3d(4)
            self.conv2 = nn.Conv3d(4, 4, 3, padding=1, bias=False)
            self.relu = nn.ReLU(inplace=inplace)

        def forward(self, x):
            y = self.relu(self.bn(self.conv1(x)))
            return self.relu(self.conv2(y) + y)

    def make(inplace=False, dtype=torch.float32):
        torch.manual_seed(0)
        return Small(inplace).to(dtype)

    return make


NAMES = {"conv1": "conv1", "bn": "bn1", "conv2": "conv2", "relu": ["relu1", "relu2"]}


def numbers(tensor):
    return tensor.detach().to("cpu").double().numpy()


def steps(torch, module, x):
    """The same network in functions, each value with a name, differentiated by `torch.autograd.grad`."""
    f = torch.nn.functional
    v = {"conv1": f.conv3d(x, module.conv1.weight, module.conv1.bias, padding=1)}
    mean, variance = (None, None) if module.training else (module.bn.running_mean, module.bn.running_var)
    v["bn1"] = f.batch_norm(v["conv1"], mean, variance, module.bn.weight, module.bn.bias, module.training)
    v["relu1"] = f.relu(v["bn1"])
    v["conv2"] = f.conv3d(v["relu1"], module.conv2.weight, padding=1)
    v["relu2"] = f.relu(v["conv2"] + v["relu1"])
    return v


PARAMS = {
    "conv1_w": "conv1.weight",
    "conv1_b": "conv1.bias",
    "bn1_s": "bn.weight",
    "bn1_b": "bn.bias",
    "conv2_w": "conv2.weight",
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_values_and_gradients_are_those_of_autograd(torch, small, dtype, inplace, training):
    """Also where rectifiers write in place, and where one value has two readers."""
    module = small(inplace, getattr(torch, dtype)).train(training)
    x = torch.randn(2, 3, 2, 6, 6, dtype=getattr(torch, dtype), requires_grad=True)
    found = capture(module, x, NAMES)
    expected = steps(torch, module, x)
    assert list(found.blobs) == list(expected)
    for name, value in expected.items():
        assert (found.blobs[name] == numbers(value)).all(), name
        assert found.blobs[name].dtype == ("float64" if dtype == "float64" else "float32")
    drawn = refnet.fill.uniform("gradient of relu2", (2, 4, 2, 6, 6), 0)
    dy = torch.from_numpy(drawn).to(x.dtype)
    assert (found.output_gradients["relu2"] == numbers(dy)).all()
    tensors = {name: module.get_parameter(path) for name, path in PARAMS.items()} | {"data": x} | expected
    gradients = dict(
        zip(tensors, torch.autograd.grad(expected["relu2"], list(tensors.values()), dy), strict=True)
    )
    assert set(found.gradients) == {*PARAMS, "data"} and set(found.blob_gradients) == set(expected)
    for name, value in {**found.gradients, **found.blob_gradients}.items():
        assert (value == numbers(gradients[name])).all(), name
    for name, path in PARAMS.items():
        assert (found.given[name] == numbers(module.get_parameter(path))).all()
    assert (found.given["data"] == numbers(x)).all()
    assert (found.given["bn1_rm"] == numbers(module.bn.running_mean)).all()
    assert (found.given["bn1_riv"] == numbers(module.bn.running_var)).all()


def test_an_input_without_a_gradient_and_no_backward_pass(torch, small):
    module, x = small(), torch.randn(1, 3, 2, 4, 4)
    assert set(capture(module, x, NAMES).gradients) == set(PARAMS)
    found = capture(module, {"clip": x}, NAMES, output_gradients={})
    assert not found.gradients and not found.blob_gradients and not found.output_gradients
    assert (found.given["clip"] == x.numpy()).all() and set(found.blobs) == {*steps(torch, module, x)}


def test_gradients_start_where_they_are_given(torch, small):
    module, x = small(dtype=torch.float64).eval(), torch.randn(1, 3, 2, 4, 4, dtype=torch.float64)
    dy = {name: np.random.default_rng(0).random((1, 4, 2, 4, 4)) for name in ("conv2", "relu2")}
    found = capture(module, x, NAMES, output_gradients=dy)
    v = steps(torch, module, x)
    starts = [torch.from_numpy(value) for value in dy.values()]
    ours, conv2 = torch.autograd.grad([v[name] for name in dy], [v["relu1"], v["conv2"]], starts)
    assert (found.blob_gradients["relu1"] == ours.numpy()).all()
    assert (found.blob_gradients["conv2"] == conv2.numpy()).all()
    with pytest.raises(ShapeError, match=r"gradient of conv2 has shape 1x4x2x4: expected 1x4x2x4x4"):
        capture(module, x, NAMES, output_gradients={"conv2": dy["conv2"][..., 0]})
    with pytest.raises(UnknownNameError, match="conv3"):
        capture(module, x, NAMES, output_gradients={"conv3": dy["conv2"]})


def test_what_is_written_over_cannot_be_started_from(torch, small):
    module, x = small(inplace=True).eval(), torch.randn(1, 3, 2, 4, 4)
    with pytest.raises(ValueRangeError, match="bn1 is written over in place"):
        capture(module, x, NAMES, output_gradients={"bn1": np.ones((1, 4, 2, 4, 4), "float32")})


def test_formats_of_memory_and_autocast(torch, small):
    """Axes are N, C, T, H, W in whatever order memory has them; autocast is the caller's."""
    module, x = small().eval(), torch.randn(2, 3, 2, 6, 6)
    plain = capture(module, x, NAMES)
    last = {"memory_format": torch.channels_last_3d}
    found = capture(small().eval().to(**last), x.to(**last), NAMES)
    for name, value in plain.blobs.items():
        assert found.blobs[name].shape == value.shape and found.blobs[name].flags.c_contiguous
        np.testing.assert_allclose(found.blobs[name], value, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        found = capture(module, x, NAMES)
        expected = steps(torch, module, x)
    for name, value in expected.items():
        assert (found.blobs[name] == numbers(value)).all(), name
    assert not (found.blobs["conv1"] == plain.blobs["conv1"]).all()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("mode", ["no_grad", "inference_mode", "enable_grad"])
def test_state_is_left_as_it_was(torch, small, fails, mode):
    module, x = small(), torch.randn(1, 3, 2, 4, 4)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 7)
    module.conv1.eval()
    seen = []
    handle = module.conv2.register_forward_hook(lambda *_: seen.append(1))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with getattr(torch, mode)():
        if fails:
            with pytest.raises(ValueRangeError, match="called more often"):
                capture(module, x, NAMES | {"relu": "relu1"})
        else:
            assert capture(module, x, NAMES).blob_gradients
    assert seen and not x.requires_grad and x.grad is None
    assert not module.conv1.training and module.training
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all((p.grad == 7).all() for p in module.parameters())
    hooks = [h for part in module.modules() for h in part._forward_hooks]
    assert hooks == [handle.id] and not any(part._forward_pre_hooks for part in module.modules())


def test_what_a_module_returns_without_a_module(torch, small):
    """Its own value; of several, those that no submodule returned."""

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = small()

        def forward(self, x):
            y = self.body(x)
            return {"kept": y, "mean": y.mean((2, 3, 4)), "loss": y.square().mean()}

    module, x = Two().eval(), torch.randn(1, 3, 2, 4, 4)
    names = {f"body.{path}": name for path, name in NAMES.items()} | {"": ["mean", "loss"]}
    found = capture(module, x, names)
    assert list(found.blobs)[-3:] == ["relu2", "mean", "loss"] and list(found.output_gradients) == ["loss"]
    assert (found.blobs["mean"] == module(x)["mean"].detach().numpy()).all()
    y = module.body(x)
    (expected,) = torch.autograd.grad(y.square().mean(), y)
    np.testing.assert_array_equal(found.blob_gradients["relu2"], expected.numpy())
    with pytest.raises(ValueRangeError, match="output 2 of the module, ().*name the module itself"):
        capture(module, x, names | {"": "mean"})


def test_a_value_that_is_written_over_is_not_what_is_returned(torch):
    class Body(torch.nn.Sequential):
        def forward(self, x):
            return super().forward(x).relu_()

    module, x = Body(torch.nn.Conv3d(3, 4, 1)), torch.randn(1, 3, 1, 2, 2)
    with pytest.raises(ValueRangeError, match="output 0"):
        capture(module, x, {"0": "conv1"})
    found = capture(module, x, {"0": "conv1", "": "relu1"})
    assert (found.blobs["conv1"] < 0).any() and (
        found.blobs["relu1"] == np.maximum(found.blobs["conv1"], 0)
    ).all()
    mask = found.blobs["conv1"] > 0
    assert (found.blob_gradients["conv1"] == found.output_gradients["relu1"] * mask).all()


def test_what_does_not_fit_is_said(torch, small):
    module, x = small(), torch.randn(1, 3, 2, 4, 4)
    cases = [
        (module, x, {"conv3": "conv1"}, UnknownNameError, "conv3"),
        (module, x, {"conv1": "conv1", "conv2": "conv1"}, ValueRangeError, "conv1 and conv2 are conv1"),
        (module, x, NAMES | {"conv2": ["a", "b"]}, ValueRangeError, "conv2 was called 1 times: expected 2"),
        (module, x.numpy(), NAMES, DTypeError, "inputs is an ndarray"),
        (module, {"data": x.numpy()}, NAMES, DTypeError, "inputs"),
        (type(module), x, NAMES, DTypeError, r"torch.nn.Module"),
        (module, x, ["conv1"], DTypeError, "names"),
        (module, [x, x], NAMES, ValueRangeError, "2 inputs"),
    ]
    for subject, inputs, names, error, words in cases:
        with pytest.raises(error, match=words) as caught:
            capture(subject, inputs, names)
        assert "\n" not in str(caught.value)


# Compiled. The backend decides how graphs are computed, not what hooks see; this one needs no C++ compiler.


@pytest.fixture
def compiled(torch):
    yield lambda part: torch.compile(part, backend="aot_eager")
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # which dynamo asks for
@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("way", ["whole", "in place", "submodules"])
def test_compiled_modules(torch, small, compiled, way, called):
    """Also where they have been called without hooks, and the same again afterwards."""
    module, x = small().eval(), torch.randn(1, 3, 2, 4, 4)
    expected = capture(module, x, NAMES)
    if way == "whole":
        module = compiled(module)
    elif way == "in place":
        module.compile(backend="aot_eager")
    else:
        module.conv1, module.relu = compiled(module.conv1), compiled(module.relu)
    if called:
        module(x).sum().backward()
    before = module(x)
    for _ in range(2):
        found = capture(module, x, NAMES)
        for section in ("blobs", "gradients", "blob_gradients", "given"):
            ours, theirs = getattr(found, section), getattr(expected, section)
            assert set(ours) == set(theirs), section
            for name, value in theirs.items():
                np.testing.assert_allclose(ours[name], value, rtol=1e-4, atol=1e-5)
    assert torch.equal(module(x), before)
    assert not any(part._forward_hooks for part in module.modules())


def test_a_compiled_module_that_returns_its_blobs(torch, small, compiled):
    module, x = small().eval(), torch.randn(1, 3, 2, 4, 4)

    class Blobs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = module

        def forward(self, x):
            v = steps(torch, self.body, x)
            return tuple(v.values())

    names = {f"body.{path}": name for name, path in PARAMS.items()} | {"": list(steps(torch, module, x))}
    dy = {"relu2": torch.ones(1, 4, 2, 4, 4)}
    expected = capture(module, x, NAMES, output_gradients=dy)
    found = capture(compiled(Blobs()), x, names, output_gradients=dy)
    assert list(found.blobs) == list(expected.blobs) and set(found.gradients) == set(expected.gradients)
    for section in ("blobs", "gradients"):
        for name, value in getattr(expected, section).items():
            np.testing.assert_allclose(getattr(found, section)[name], value, rtol=1e-4, atol=1e-5)
    assert set(found.blob_gradients) <= {"relu2"}


# Weights.


def test_weights_are_loaded_by_a_map(torch, porters):
    net, module = porters.net(), porters.Body()
    names = names_in(module, net, {})
    params = refnet.fill.params(net, dtype="float32")
    load_weights(module, params, names)
    run = refnet.forward(net, params | refnet.fill.inputs(net, dtype="float32"))
    found = capture(module, porters.data(net, dtype="float32")[0], names)
    for name, value in params.items():
        assert (found.given[name] == value).all()
    (output,) = net.outputs
    scale = abs(run.blobs[output]).max()
    np.testing.assert_allclose(found.blobs[output], run.blobs[output], rtol=0, atol=1e-4 * scale)


def test_weights_that_do_not_fit_change_nothing(torch, small):
    module = small()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    right = {name: numbers(tensor) for name, tensor in (("conv2_w", module.conv2.weight + 1),)}
    names = {"conv2": "conv2"}
    cases = [
        (right | {"conv3_w": right["conv2_w"]}, UnknownNameError, "conv3_w"),
        ({}, UnknownNameError, "conv2_w"),
        ({"conv2_w": right["conv2_w"][:3]}, ShapeError, "conv2_w has shape 3x4x3x3x3: expected 4x4x3x3x3"),
        ({"conv2_w": [["x"]]}, DTypeError, "conv2_w"),
    ]
    for params, error, words in cases:
        with pytest.raises(error, match=words):
            load_weights(module, params, names)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    load_weights(module, right, names)
    assert torch.equal(module.conv2.weight, before["conv2.weight"] + 1)
    half = small(dtype=torch.bfloat16)
    load_weights(half, right, {"conv2.weight": "conv2_w"})
    assert torch.equal(half.conv2.weight, torch.from_numpy(right["conv2_w"]).to(torch.bfloat16))


# Compared.


@pytest.fixture
def certified(monkeypatch):
    """What `compare` hands to `certify`."""
    calls = []

    def certify(net, given, candidate, **claims):
        calls.append((net, given, candidate, claims))
        return Report(title="", verdicts={})

    monkeypatch.setattr(torch_capture, "certify", certify)
    return calls


@pytest.mark.parametrize("freeze_at", [0, 2])
def test_a_module_is_compared_as_it_is(torch, porters, certified, freeze_at):
    """Names, weights and draws are found; a gradient of data is asked for where the net has one."""
    net = porters.net(freeze_at=freeze_at)
    module = porters.fill(porters.Body(stop=freeze_at), dtype=torch.float32)
    inputs = porters.data(net, dtype="float32")
    compare(module, net, inputs, store="bfloat16", delta=1e-3)
    ((of, given, candidate, claims),) = certified
    assert of is net and claims == {"store": "bfloat16", "delta": 1e-3}
    assert set(given) == {*net.params, "data"}
    assert (given["conv1_w"] == module.stem.weight.detach().numpy()).all()
    learnt = [node.name for node in net.nodes if node.op in ("conv3d", "affine")]
    assert set(candidate.blobs) == {*learnt, *net.outputs}
    dy = refnet.fill.output_gradients(net, dtype="float32")
    assert all((candidate.output_gradients[name] == value).all() for name, value in dy.items())
    run = refnet.forward(net, given)
    gradients = refnet.backward(run, dy)
    assert set(candidate.gradients) == set(gradients) and ("data" in gradients) == (freeze_at == 0)
    for ours, theirs in ((candidate.blobs, run.blobs), (candidate.gradients, gradients)):
        for name, value in ours.items():
            np.testing.assert_allclose(value, theirs[name], rtol=0, atol=1e-3 * abs(theirs[name]).max())


def test_a_network_in_2d_has_one_frame(torch, porters, certified):
    net = porters.classes(bottleneck=True)
    module = porters.fill(porters.flat(porters.Classifier(norm=porters.nn.BatchNorm3d)), dtype=torch.float32)
    x, labels = porters.data(net, dtype="float32")
    compare(module.eval(), net, [x[:, :, 0], labels])
    ((_, given, candidate, _),) = certified
    for found in (given, candidate.blobs, candidate.gradients, candidate.blob_gradients):
        for name, value in found.items():
            assert value.shape == net.shape(name), name
    assert {"prob", "loss"} <= set(candidate.blobs) and list(candidate.output_gradients) == ["loss"]
    assert given["labels"].dtype == np.int64 and "data" in candidate.gradients


def test_names_are_completed(torch, porters, certified):
    """Of rectifiers that are called several times; the rest is found."""
    net, module = porters.net(), porters.fill(porters.Body(), dtype=torch.float32)
    block = [f"res4_1_{name}" for name in ("branch2a_relu", "branch2b_relu", "relu")]
    (x,) = porters.data(net, dtype="float32")
    compare(module, net, {"data": x}, names={"stages.2.1.relu": block, "stages.2.1.sum": "res4_1_sum"})
    found = certified[0][2].blobs
    assert {*block, "res4_1_sum", "conv1"} <= set(found)
    assert (found["res4_1_relu"] == np.maximum(found["res4_1_sum"], 0)).all()
    assert (certified[0][2].blob_gradients["res4_1_sum"] != 0).any()
    with pytest.raises(ShapeError, match="stages.2.0.conv3"):
        compare(porters.Body(dims=(4, 8, 12)), net, x)


def test_equal_names_of_a_net_of_modules(torch, porters, certified):
    net = porters.net()
    module = porters.Nodes(net, refnet.fill.params(net, dtype="float32"))
    for node in net.nodes:
        if node.op == "relu":
            module.add_module(node.name, torch.nn.ReLU())
    compare(module, net, porters.data(net, dtype="float32"))
    named = {node.name for node in net.nodes if node.op in ("conv3d", "affine", "relu")}
    assert set(certified[0][2].blobs) == named | {*net.outputs}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # which dynamo asks for
def test_a_compiled_module_is_compared(torch, porters, certified, compiled):
    """As a whole, and one layer of it."""
    net, module = porters.net(), porters.fill(porters.Body(), dtype=torch.float32)
    (x,) = porters.data(net, dtype="float32")
    compare(module, net, x)
    module.stages[2][0].conv1 = compiled(module.stages[2][0].conv1)
    compare(module, net, x, names={"stages.2.0.conv1": "res4_0_branch2a"})
    compare(compiled(module), net, x)
    (_, weights, expected, _), *others = certified
    for _, given, candidate, _ in others:
        assert set(given) == set(weights) and set(candidate.gradients) == set(expected.gradients)
        for name, value in expected.blobs.items():
            np.testing.assert_allclose(candidate.blobs[name], value, rtol=0, atol=1e-3 * abs(value).max())


def test_a_compiled_module_that_returns_its_blobs_is_compared(torch, porters, certified, compiled):
    """Layers give parameters their names; what is returned is what is seen."""
    net = porters.net()
    all_of_it = net.copy()
    for node in net.nodes:
        all_of_it.output(node.name)
    names = {"": list(all_of_it.outputs)}
    module = compiled(porters.Nodes(all_of_it, refnet.fill.params(net, dtype="float32")))
    dy = refnet.fill.output_gradients(net, dtype="float32")
    compare(module, net, porters.data(net, dtype="float32"), names=names, output_gradients=dy)
    ((_, given, candidate, _),) = certified
    assert list(candidate.blobs) == names[""] and set(given) == {*net.params, "data"}
    gradients = refnet.backward(refnet.forward(net, given), dy)
    for name, value in gradients.items():
        np.testing.assert_allclose(candidate.gradients[name], value, rtol=0, atol=1e-3 * abs(value).max())
    # Compiled code hands zeros back where the module itself has no gradient.
    assert not any(value.any() for name, value in candidate.gradients.items() if name in gradients.blocked)


def test_other_inputs_and_parameters_can_be_given(torch, porters, certified):
    net, module = porters.net(), porters.fill(porters.Body(), dtype=torch.float32)
    other = {"conv1_w": np.ones(net.params["conv1_w"], "float32")}
    compare(module, net, porters.data(net, dtype="float32"), given=other)
    assert (certified[0][1]["conv1_w"] == 1).all() and not (certified[0][2].given["conv1_w"] == 1).all()


# Judged.


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("norm", ["Frozen", "BatchNorm3d"])
def test_a_port_is_consistent(torch, porters, norm, dtype):
    net = porters.net(batch_norm=norm == "BatchNorm3d")
    kind = getattr(porters, norm, None) or getattr(porters.nn, norm)
    module = porters.fill(porters.Body(norm=kind, inplace=True).eval(), 1, getattr(torch, dtype))
    (x,) = porters.data(net, 1)
    claims = {"store": dtype, "operands": dtype}
    if dtype == "float64" or (dtype == "bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        claims["accumulate"] = dtype
    report = compare(module, net, x.to(getattr(torch, dtype)), **claims)
    assert report.ok and len(report.verdicts) > 100, report
    assert all(
        name in report.verdicts for name in ("res4_1_relu", "d res4_1_branch2c", "d res3_0_branch2a_w")
    )
    if dtype == "bfloat16":
        assert not compare(module, net, x.to(torch.bfloat16)).ok


def test_taps_that_are_summed_in_bfloat16_are_seen(torch, porters):
    """PyTorch's own kernel, without oneDNN's, rounds each tap of an input's gradient, and their sums."""
    net, module = porters.net(), porters.fill(porters.Body().eval(), 1, torch.bfloat16)
    x = porters.data(net, 1)[0].to(torch.bfloat16)
    with torch.backends.mkldnn.flags(enabled=False, allow_tf32=None):
        wide, narrow = (
            compare(module, net, x, store="bfloat16", operands="bfloat16", accumulate=sums)
            for sums in ("float32", "bfloat16")
        )
    assert narrow.ok, narrow
    failures = [name for name, verdict in wide.verdicts.items() if verdict.verdict == "impossible"]
    # What each 3x3x3 convolution gives back, behind the ReLU before it; those of one tap are consistent.
    assert failures and all(name.startswith("d ") and name.endswith("branch2a_bn") for name in failures), wide


def test_a_training_step_is_consistent(torch, porters):
    net = porters.classes(training=True)
    module = porters.Classifier(bottleneck=False, norm=porters.nn.BatchNorm3d).train()
    module = porters.fill(module, dtype=torch.float32)
    report = compare(module, net, porters.data(net, dtype="float32"))
    assert report.ok and "loss" in report.verdicts and "d data" in report.verdicts, report


def test_a_mistake_is_named_where_it_is(torch, porters):
    net, module = porters.net(), porters.fill(porters.Body(), dtype=torch.float32)
    conv = module.stages[1][0].conv2
    conv.forward = lambda x: torch.nn.functional.conv3d(
        x, conv.weight.flip(2), None, conv.stride, conv.padding
    )
    report = compare(module, net, porters.data(net, dtype="float32"))
    assert report.first_failure == "res3_0_branch2b"
    assert report.verdicts["res3_0_branch2b"].hypothesis == "kernel flipped T"
