"""Rows of layers that networks are made of; each takes a blob's name and returns the next one's."""

from collections.abc import Callable
from typing import Required, TypedDict, Unpack

from refnet.errors import ValueRangeError
from refnet.net import Net
from refnet.shapes import Triple, size

# Appends a batch norm of some kind to a blob, under a name.
Norm = Callable[[Net, str, str], str]


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


def conv_norm(net: Net, x: str, name: str, out: int, norm: Norm = affine, **window: Unpack[Window]) -> str:
    """Append a convolution and its batch norm ``{name}_bn``, of the kind `norm`."""
    return norm(net, conv(net, x, name, out, **window), f"{name}_bn")


def conv_norm_relu(
    net: Net, x: str, name: str, out: int, norm: Norm = affine, **window: Unpack[Window]
) -> str:
    """Append a convolution, its batch norm and the rectifier ``{name}_relu``."""
    return relu(net, conv_norm(net, x, name, out, norm, **window), f"{name}_relu")


def norm_of(*, batch_norm: bool, training: bool) -> Norm:
    """The kind of batch norm that a network's options ask for.

    Raises
    ------
    ValueRangeError
        If an option is no boolean, or training is asked for without batch norm.
    """
    for name, flag in (("batch_norm", batch_norm), ("training", training)):
        if not isinstance(flag, bool):
            raise ValueRangeError(f"{name} is {flag!r}: expected True or False")
    if training and not batch_norm:
        raise ValueRangeError(
            "training is True, but batch_norm is False: an affine has no statistics to keep"
        )
    return NORMS[batch_norm, training]


def _per_channel(net: Net, x: str, name: str, *endings: str) -> list[str]:
    """Declare the parameters of a batch norm, one number a channel each."""
    channels = net.shape(x)[1]
    return [net.param(f"{name}_{ending}", (channels,)) for ending in endings]


NORMS: dict[tuple[bool, bool], Norm] = {
    (False, False): affine,
    (True, False): batch_norm,
    (True, True): batch_norm_training,
}
