"""Rows of layers that networks are made of; each takes a blob's name and returns the next one's."""

from typing import Required, TypedDict, Unpack

from refnet.net import Net
from refnet.shapes import Triple


class Window(TypedDict, total=False):
    """The window of a convolution: its kernel, and what differs from the defaults of `conv3d`."""

    kernel: Required[Triple]
    stride: Triple
    pad: Triple
    dilation: Triple
    groups: int


def conv(net: Net, x: str, name: str, out: int, *, bias: bool = False, **window: Unpack[Window]) -> str:
    """Append a convolution, with its weights ``{name}_w`` and, if wanted, its bias ``{name}_b``.

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
        `kernel`, and `stride`, `pad`, `dilation`, `groups` of `refnet.ops.conv3d`.

    Returns
    -------
    str
        `name`.

    Raises
    ------
    ShapeError
        If the window does not fit.
    """
    depth = net.shape(x)[1] // window.get("groups", 1)
    inputs = [x, net.param(f"{name}_w", (out, depth, *window["kernel"]))]
    if bias:
        inputs.append(net.param(f"{name}_b", (out,)))
    return net.add("conv3d", name, inputs, **{k: v for k, v in window.items() if k != "kernel"})


def affine(net: Net, x: str, name: str) -> str:
    """Append a frozen batch norm, with its scale ``{name}_s`` and bias ``{name}_b``."""
    channels = net.shape(x)[1]
    s, b = net.param(f"{name}_s", (channels,)), net.param(f"{name}_b", (channels,))
    return net.add("affine", name, (x, s, b))


def relu(net: Net, x: str, name: str) -> str:
    """Append a rectifier."""
    return net.add("relu", name, (x,))


def conv_affine(net: Net, x: str, name: str, out: int, **window: Unpack[Window]) -> str:
    """Append a convolution and its frozen batch norm ``{name}_bn``."""
    return affine(net, conv(net, x, name, out, **window), f"{name}_bn")


def conv_affine_relu(net: Net, x: str, name: str, out: int, **window: Unpack[Window]) -> str:
    """Append a convolution, its frozen batch norm and the rectifier ``{name}_relu``."""
    return relu(net, conv_affine(net, x, name, out, **window), f"{name}_relu")
