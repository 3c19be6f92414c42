"""Operators and a whole body against PyTorch, an independent implementation."""

import numpy as np
import pytest
from support import (
    amplification,
    assert_agree,
    assert_all_within,
    every_arithmetic,
    every_case,
    integers,
    peer,
    run_bound,
    whole_numbers,
)

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
@every_case
def test_twins_in_torch_agree(torch, arithmetic, op, case):
    """On whole numbers: exactly, or where an operator divides, to rounding."""
    arrays = integers(op, case)
    y, context = arithmetic[op.name].forward(*arrays, **case.attrs)
    theirs = [torch.from_numpy(a).requires_grad_(op.domain(i).gradient) for i, a in enumerate(arrays)]
    z = getattr(torch_twins, op.name)(torch.nn.functional, *theirs, **case.attrs)
    dy = np.asarray(np.random.default_rng(1).integers(-9, 10, y.shape).astype("float64"))
    if z.requires_grad:
        z.backward(torch.from_numpy(dy))
    found = (y, *arithmetic[op.name].backward(dy, context))
    expected = (z.detach().numpy(), *(None if t.grad is None else t.grad.numpy() for t in theirs))
    assert_agree(op, case, arrays, dy, found, expected)


def trained(torch, net, given, output_gradients):
    """PyTorch's values of every node, and its gradients of what was given, where there are any."""
    leaves = {
        name: torch.from_numpy(value.copy()).requires_grad_(net.domain(name).gradient)
        for name, value in given.items()
    }
    values = walk(net, leaves)
    reached = [name for name in output_gradients if values[name].requires_grad]
    if reached:
        dys = [torch.from_numpy(np.asarray(output_gradients[name])) for name in reached]
        torch.autograd.backward([values[name] for name in reached], dys)
    blobs = {node.name: values[node.name].detach().numpy() for node in net.nodes}
    return blobs, {name: leaf.grad.numpy() for name, leaf in leaves.items() if leaf.grad is not None}


def assert_same_run(torch, net):
    """Assert that every blob and gradient of whole numbers is exactly PyTorch's; return the gradients."""
    given = whole_numbers(net)
    rng = np.random.default_rng(1)
    dys = {name: rng.integers(-3, 4, shape).astype("float64") for name, shape in net.outputs.items()}
    blobs, gradients = trained(torch, net, given, dys)
    run = refnet.forward(net, given)
    assert_all_within(run.blobs, blobs, 0)
    grads = refnet.backward(run, dys)
    assert_all_within(grads, gradients, 0, mostly_zero=True)  # two weights of a filter are not 0
    return grads


def test_a_pyramid_equals_torch_gradients_fed_at_every_level(torch):
    small = refnet.networks.resnet3d.body(
        input=(1, 3, 3, 64, 96),
        block_counts=(1, 2, 1, 1),
        feat_dims=(4, 4, 8, 16, 32),
        width_per_group=4,
    )
    grads = assert_same_run(torch, refnet.networks.fpn3d.fpn(small, dim=8))
    assert "fpn_inner_res2_0_sum_lateral_b" in grads


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
    grads = assert_same_run(torch, net)
    assert set(grads) | grads.blocked == {*net.params, *net.inputs} and (freeze_at < 5 or not grads)


@pytest.mark.parametrize("name", ["resnet18_classifier", "resnet50_classifier"])
@pytest.mark.parametrize("training", [False, True])
def test_a_classifiers_training_step_equals_torch(torch, name, training):
    net = refnet.build(
        name, input=(4, 3, 1, 64, 64), width_per_group=8, classes=10, batch_norm=True, training=training
    )
    given = refnet.fill.params(net) | refnet.fill.inputs(net)
    dys = refnet.fill.output_gradients(net)
    blobs, gradients = trained(torch, net, given, dys)
    run = refnet.forward(net, given)
    grads = refnet.backward(run, dys)
    growth = amplification(run, grads, dys)
    assert_all_within(run.blobs, blobs, run_bound(net) * growth)
    assert_all_within(grads, gradients, run_bound(net, backward=True) * growth)
