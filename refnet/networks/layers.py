"""Rows of layers that networks are made of; each takes a blob's name and returns the next one's."""

from collections.abc import Callable
from typing import Required, TypedDict, Unpack

from refnet.net import Net
from refnet.shapes import ONES, Triple, size

# Appends a batch norm of some kind to a blob, under a name.
Norm = Callable[[Net, str, str], str]


class ConvOptions(TypedDict, total=False):
    """The odd kernel of a convolution, and what differs from the defaults of `conv3d`."""

    kernel: Required[Triple]
    dilation: Triple
    groups: int


class StridedConvOptions(ConvOptions, total=False):
    """And the stride."""

    stride: Triple


def conv(
    net: Net, x: str, name: str, out: int, *, bias: bool = False, **window: Unpack[StridedConvOptions]
) -> str:
    """Append a convolution, padded so that it would keep T, H and W at stride 1.

    Its weights are ``{name}_w``, its bias, where there is one, is ``{name}_b``.

    Parameters
    ----------
    net : Net
    x : str
        The blob that it reads, (N, C, T, H, W).
    name : str
        Of the node.
    out : int
        Output channels.
    bias : bool
    **window
        `kernel`, of odd sizes, and `stride`, `dilation`, `groups` of `refnet.ops.conv3d`.

    Returns
    -------
    str
        `name`.

    Raises
    ------
    ShapeError
        If the window does not fit.
    """
    kernel, dilation = window["kernel"], window.get("dilation", ONES)
    depth = net.shape(x)[1] // window.get("groups", 1)
    inputs = [x, net.param(f"{name}_w", (out, depth, *kernel))]
    if bias:
        inputs.append(net.param(f"{name}_b", (out,)))
    attrs = {key: value for key, value in window.items() if key != "kernel"}
    if kernel != ONES:
        attrs["pad"] = tuple(d * (k // 2) for k, d in zip(kernel, dilation, strict=True))
    return net.add("conv3d", name, inputs, **attrs)


def linear(net: Net, x: str, name: str, out: int) -> str:
    """Append a fully connected layer, with its weights ``{name}_w`` and bias ``{name}_b``."""
    w = net.param(f"{name}_w", (out, size(net.shape(x)[1:])))
    return net.add("linear", name, (x, w, net.param(f"{name}_b", (out,))))


def affine(net: Net, x: str, name: str) -> str:
    """Append a frozen batch norm, with its scale ``{name}_s`` and bias ``{name}_b``."""
    return net.add("affine", name, (x, *_per_channel(net, x, name, "s", "b")))


def batch_norm(net: Net, x: str, name: str) -> str:
    """Append a batch norm by given statistics, ``{name}_rm`` and ``{name}_riv`` as Caffe2 calls them."""
    return net.add("batch_norm", name, (x, *_per_channel(net, x, name, "s", "b", "rm", "riv")))


def batch_norm_training(net: Net, x: str, name: str) -> str:
    """Append a batch norm by the batch's statistics, and the running statistics after this batch.

    Those are the nodes ``{name}_running_mean`` and ``{name}_running_variance``; nothing reads them.
    """
    s, b, mean, variance = _per_channel(net, x, name, "s", "b", "rm", "riv")
    net.add("running_mean", f"{name}_running_mean", (x, mean))
    net.add("running_variance", f"{name}_running_variance", (x, variance))
    return net.add("batch_norm_training", name, (x, s, b))


def relu(net: Net, x: str, name: str) -> str:
    """Append a rectifier."""
    return net.add("relu", name, (x,))


def conv_norm(net: Net, x: str, name: str, out: int, norm: Norm, **window: Unpack[StridedConvOptions]) -> str:
    """Append a convolution and its batch norm ``{name}_bn``, of the kind `norm`."""
    return norm(net, conv(net, x, name, out, **window), f"{name}_bn")


def conv_norm_relu(
    net: Net, x: str, name: str, out: int, norm: Norm, **window: Unpack[StridedConvOptions]
) -> str:
    """Append a convolution, its batch norm and the rectifier ``{name}_relu``."""
    return relu(net, conv_norm(net, x, name, out, norm, **window), f"{name}_relu")


def _per_channel(net: Net, x: str, name: str, *endings: str) -> list[str]:
    """Declare the parameters of a batch norm, one number a channel each."""
    channels = net.shape(x)[1]
    return [net.param(f"{name}_{ending}", (channels,)) for ending in endings]


# The kind of batch norm, by whether it has statistics and whether they are the batch's own.
NORMS: dict[tuple[bool, bool], Norm] = {
    (False, False): affine,
    (True, False): batch_norm,
    (True, True): batch_norm_training,
}
