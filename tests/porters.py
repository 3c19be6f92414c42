"""Small residual networks as somebody writes them in PyTorch: other names, functions between the layers."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as f

import refnet
from refnet.bench.peers import torch_twins
from refnet.interop.torch_names import NO_LAYERS, learning, params_of
from refnet.networks.classifier import classifier
from refnet.networks.resnet3d import body

INPUT = (1, 3, 3, 32, 32)


class Frozen(nn.Module):
    """A scale and a shift for each channel."""

    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        return x * self.weight[:, None, None, None] + self.bias[:, None, None, None]


def conv(c, k, kernel, stride=1):
    return nn.Conv3d(c, k, kernel, (1, stride, stride), tuple(n // 2 for n in kernel), bias=False)


class Sum(nn.Module):
    def forward(self, a, b):
        return a + b


class Block(nn.Module):
    def __init__(self, c, inner, k, stride, time, bottleneck, norm, inplace):
        super().__init__()
        if bottleneck:
            shapes = [
                (c, inner, (1, 1, 1), stride),
                (inner, inner, (time, 3, 3), 1),
                (inner, k, (1, 1, 1), 1),
            ]
        else:
            shapes = [(c, inner, (time, 3, 3), stride), (inner, k, (time, 3, 3), 1)]
        for i, (c_in, c_out, kernel, step) in enumerate(shapes, 1):
            self.add_module(f"conv{i}", conv(c_in, c_out, kernel, step))
            self.add_module(f"bn{i}", norm(c_out))
        self.count, self.relu = len(shapes), nn.ReLU(inplace=inplace)
        self.shortcut = nn.Sequential(conv(c, k, (1, 1, 1), stride), norm(k)) if c != k else nn.Identity()
        self.sum = Sum()

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.count:
                y = self.relu(y)
        return self.relu(self.sum(y, self.shortcut(x)))


class Body(nn.Module):
    """Of `body` below; `stop` is the stage behind which the gradient stops."""

    def __init__(self, bottleneck=True, norm=Frozen, inplace=False, stop=2, time=3, dims=(4, 8, 16), inner=4):
        super().__init__()
        self.stop = stop
        self.stem = nn.Conv3d(3, 4, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False)
        self.stem_bn = norm(4)
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        stages, c = [], 4
        for i, k in enumerate(dims):
            kernel, width = 1 if i == 0 else time, inner * 2**i
            first = Block(c, width, k, 1 if i == 0 or c == k else 2, kernel, bottleneck, norm, inplace)
            second = Block(k, width, k, 1, kernel, bottleneck, norm, inplace)
            stages.append(nn.Sequential(first, second))
            c = k
        self.stages = nn.ModuleList(stages)

    def forward(self, x):
        x = self.pool(f.relu(self.stem_bn(self.stem(x))))
        for k, stage in enumerate(self.stages, 2):
            x = stage(x)
            if k == self.stop:
                x = x.detach()
        return x


class Classifier(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.trunk = Body(stop=0, time=1, **options)
        self.fc = nn.Linear(16, 10)

    def forward(self, x, labels=None):
        scores = self.fc(self.trunk(x).flatten(2).mean(2))
        return scores if labels is None else (f.softmax(scores, 1), f.cross_entropy(scores, labels))


def flat(module):
    """The same in 2D: its convolutions, norms and pools, which have time kernel 1."""
    for name, part in module.named_children():
        if isinstance(part, nn.Conv3d):
            k, c, _, *kernel = part.weight.shape
            twin = nn.Conv2d(c, k, kernel, part.stride[1:], part.padding[1:], bias=False)
        elif isinstance(part, nn.BatchNorm3d):
            twin = nn.BatchNorm2d(part.num_features)
        elif isinstance(part, nn.MaxPool3d):
            twin = nn.MaxPool2d(part.kernel_size[1:], part.stride[1:], part.padding[1:])
        else:
            twin = flat(part)
        setattr(module, name, twin)
    return module


class Nodes(nn.Module):
    """Any net: a layer for each node with parameters, under its name, and functions for the others."""

    def __init__(self, net, given):
        super().__init__()
        self.net = net
        for node in learning(net):
            values = [torch.from_numpy(given[name].copy()) for name in params_of(net, node)]
            self.add_module(node.name, Node(node, values))

    def forward(self, *inputs):
        values = dict(zip(self.net.inputs, inputs, strict=True))
        for node in self.net.nodes:
            if node.op in NO_LAYERS:
                continue
            arrays = [values[name] for name in node.inputs if name in values]
            layer = getattr(self, node.name, None)
            twin = getattr(torch_twins, node.op)
            values[node.name] = layer(*arrays) if layer else twin(f, *arrays, **node.attrs)
        return [values[name] for name in self.net.outputs]


class Node(nn.Module):
    """A node with its parameters; statistics are buffers."""

    def __init__(self, node, values):
        super().__init__()
        self.twin, self.attrs = getattr(torch_twins, node.op), node.attrs
        self.read = len(node.inputs) - 1
        for i, value in enumerate(values):
            if i < 2:
                self.register_parameter(f"p{i}", nn.Parameter(value))
            else:
                self.register_buffer(f"p{i}", value)

    def forward(self, x):
        return self.twin(f, x, *(getattr(self, f"p{i}") for i in range(self.read)), **self.attrs)


def net(bottleneck=True, batch_norm=False, freeze_at=2, input=INPUT):
    """The body that `Body` is."""
    kind = "bottleneck" if bottleneck else "basic"
    return body(
        input,
        (2, 2, 2),
        (4, 4, 8, 16),
        kind,
        freeze_at,
        width_per_group=4,
        batch_norm=batch_norm,
    )


def classes(bottleneck=False, training=False):
    """The classifier that `Classifier` is."""
    return classifier(
        (2, 3, 1, 32, 32),
        (2, 2, 2),
        (4, 4, 8, 16),
        "bottleneck" if bottleneck else "basic",
        10,
        width_per_group=4,
        batch_norm=True,
        training=training,
    )


def fill(module, seed=0, dtype=torch.float64):
    """Weights by He et al., norms near the identity; the module itself."""
    rng = np.random.default_rng(seed)
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    with torch.no_grad():
        for name, tensor in tensors.items():
            if tensor.dtype == torch.int64:
                continue
            fan = int(np.prod(tensor.shape[1:]))
            if tensor.ndim > 1:
                value = rng.standard_normal(tensor.shape) * np.sqrt(2 / fan)
            else:
                value = rng.uniform(-1, 1, tensor.shape) / 8 + name.endswith(("weight", "running_var"))
            tensor.copy_(torch.from_numpy(value))
    return module.to(dtype)


def data(net, seed=0, dtype="float64"):
    return [torch.from_numpy(a.copy()) for a in refnet.fill.inputs(net, seed, dtype).values()]
