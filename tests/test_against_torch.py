"""Operators and a whole body against PyTorch, an independent implementation."""

import numpy as np
import pytest
from support import every_arithmetic, peer, reals

import refnet
from refnet.bench.peers import torch_twins
from refnet.bench.peers.torch import walk
from refnet.ops import OPS


@pytest.fixture
def torch():
    return peer("torch")


def tensors(torch, arrays):
    return [torch.from_numpy(a).requires_grad_() for a in arrays]


@every_arithmetic
@pytest.mark.parametrize("case", OPS["conv3d"].cases, ids=lambda case: case.name)
def test_convolution_equals_torch_on_integers(torch, case, arithmetic):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-9, 10, shape).astype("float64") for shape in case.shapes]
    y, context = arithmetic.conv3d.forward(*arrays, **case.attrs)
    names = {"pad": "padding"}
    theirs = tensors(torch, arrays)
    z = torch.nn.functional.conv3d(*theirs, **{names.get(k, k): v for k, v in case.attrs.items()})
    assert np.array_equal(y, z.detach().numpy())
    dy = rng.integers(-9, 10, y.shape).astype("float64")
    z.backward(torch.from_numpy(dy))
    for ours, tensor in zip(arithmetic.conv3d.backward(dy, context), theirs, strict=True):
        assert np.array_equal(ours, tensor.grad.numpy())


@every_arithmetic
def test_max_pool_equals_torch_ties_included(torch, arithmetic):
    rng = np.random.default_rng(1)
    x = rng.integers(-2, 3, (2, 3, 2, 9, 8)).astype("float64")
    attrs = {"kernel": (1, 3, 3), "stride": (1, 2, 2), "pad": (0, 1, 1)}
    y, context = arithmetic.max_pool3d.forward(x, **attrs)
    (t,) = tensors(torch, [x])
    z = torch.nn.functional.max_pool3d(t, attrs["kernel"], attrs["stride"], attrs["pad"])
    assert np.array_equal(y, z.detach().numpy())
    dy = rng.integers(-9, 10, y.shape).astype("float64")
    z.backward(torch.from_numpy(dy))
    assert np.array_equal(arithmetic.max_pool3d.backward(dy, context)[0], t.grad.numpy())


@every_arithmetic
@pytest.mark.parametrize("name", OPS)
def test_twins_in_torch_agree_to_rounding(torch, arithmetic, name):
    for case in OPS[name].cases:
        arrays = reals(OPS[name], case)
        y, context = arithmetic[name].forward(*arrays, **case.attrs)
        theirs = [
            torch.from_numpy(a).requires_grad_(OPS[name].domain(i).gradient) for i, a in enumerate(arrays)
        ]
        z = getattr(torch_twins, name)(torch.nn.functional, *theirs, **case.attrs)
        assert_close(y, z.detach().numpy(), case.name)
        dy = np.asarray(np.random.default_rng(1).standard_normal(y.shape))
        if z.requires_grad:
            z.backward(torch.from_numpy(dy))
        for ours, tensor in zip(arithmetic[name].backward(dy, context), theirs, strict=True):
            assert (ours is None) == (tensor.grad is None)
            if ours is not None:
                assert_close(ours, tensor.grad.numpy(), case.name)


def test_a_pyramid_equals_torch_gradients_fed_at_every_level(torch):
    small = refnet.networks.resnet3d.body(
        input=(1, 3, 3, 64, 96),
        block_counts=(1, 2, 1, 1),
        feat_dims=(4, 4, 8, 16, 32),
        width_per_group=4,
    )
    net = refnet.networks.fpn3d.fpn(small, dim=8)
    given = refnet.fill.params(net) | refnet.fill.inputs(net)
    theirs = walk(net, {k: torch.from_numpy(v).requires_grad_() for k, v in given.items()})
    run = refnet.forward(net, given, keep="outputs")
    dys = refnet.fill.output_gradients(net)
    for name in net.outputs:
        assert_close(run.blobs[name], theirs[name].detach().numpy(), name)
    grads = refnet.backward(run, dys)
    torch.autograd.backward([theirs[name] for name in dys], [torch.from_numpy(dy) for dy in dys.values()])
    reached = {name for name in given if theirs[name].grad is not None}
    assert set(grads) == reached and "fpn_inner_res2_0_sum_lateral_b" in reached
    for name in grads:
        assert_close(grads[name], theirs[name].grad.numpy(), name)


@pytest.mark.parametrize("transformation", ["bottleneck", "basic"])
@pytest.mark.parametrize("freeze_at", [0, 2, 3, 5])
def test_a_body_with_every_option_equals_torch(torch, transformation, freeze_at):
    net = refnet.networks.resnet3d.body(
        input=(2, 3, 5, 40, 33),
        block_counts=(2, 1, 1, 2),
        feat_dims=(4, 8, 16, 16, 32),
        transformation=transformation,
        freeze_at=freeze_at,
        time_stride=True,
        groups=2,
        width_per_group=4,
        stride_1x1=transformation == "basic",
        dilation=2,
    )
    given = refnet.fill.params(net) | refnet.fill.inputs(net)
    run = refnet.forward(net, given)
    theirs = walk(net, {k: torch.from_numpy(v).requires_grad_() for k, v in given.items()})
    for node in net.nodes:
        assert_close(run.blobs[node.name], theirs[node.name].detach().numpy(), node.name)
    dy = refnet.fill.output_gradients(net)
    grads = refnet.backward(run, dy)
    (output,) = net.outputs
    if freeze_at == 5:
        assert not theirs[output].requires_grad and not grads
        return
    theirs[output].backward(torch.from_numpy(dy[output]))
    reached = {name for name in given if theirs[name].grad is not None}
    assert set(grads) == reached and grads.blocked == given.keys() - reached
    for name in grads:
        assert_close(grads[name], theirs[name].grad.numpy(), name)


@pytest.mark.parametrize("name", ["resnet18_classifier", "resnet50_classifier"])
@pytest.mark.parametrize("training", [False, True])
def test_a_classifiers_training_step_equals_torch(torch, name, training):
    net = refnet.build(
        name, input=(4, 3, 1, 64, 64), width_per_group=8, classes=10, batch_norm=True, training=training
    )
    given = refnet.fill.params(net) | refnet.fill.inputs(net)
    run = refnet.forward(net, given)
    theirs = {
        key: torch.from_numpy(value.copy()).requires_grad_(net.domain(key).gradient)
        for key, value in given.items()
    }
    theirs = walk(net, theirs)
    for node in net.nodes:
        assert_close(run.blobs[node.name], theirs[node.name].detach().numpy(), node.name, 1e-9)
    theirs["loss"].backward()
    grads = refnet.backward(run, refnet.fill.output_gradients(net))
    assert set(grads) == {key for key in given if theirs[key].grad is not None}
    for key in grads:
        assert_close(grads[key], theirs[key].grad.numpy(), key, 1e-8)


def assert_close(ours, theirs, name, tolerance=1e-11):
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max(), name
