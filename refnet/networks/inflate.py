"""Inflation of the weights of a 2D network into those of a 3D one (Detect-and-Track, section 3.1).

On a clip of equal frames a 3D convolution adds up its time steps, so

- `center-only` gives every frame the 2D network's output, for any number of frames;
- `mean-repeat` gives that output to the frames whose receptive field in time reaches no padding:
  padding is zero, so a frame near the ends of the clip misses some of the kT equal shares;
- `repeat` gives kT times the convolution, and `center-only-rest-rand` a kT-th of it plus noise:
  neither reproduces the 2D network. A clip of one frame is the exception: both side steps read padding,
  and `repeat` is then `center-only`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from refnet.arrays import Array, at_the_door, require_mapping
from refnet.environment import in_default
from refnet.errors import ShapeError, require_known
from refnet.inputs.fill import normal
from refnet.net import Net, require_net
from refnet.shapes import odd, text, volume

MODES = ("mean-repeat", "repeat", "center-only", "center-only-rest-rand")
REST_DEVIATION = 0.001


@in_default
def inflate(
    w: Array, time_kernel: int, mode: str = "mean-repeat", *, name: str = "w", seed: int = 0
) -> Array:
    """Inflate the weights of one convolution.

    With w2 the 2D weights, w3[:, :, t] is, for every t or for the middle step m = time_kernel // 2
    and the others:

    =======================  ===============  ==========================
    mode                     t = m            t != m
    =======================  ===============  ==========================
    mean-repeat              w2 / kT          w2 / kT
    repeat                   w2               w2
    center-only              w2               0
    center-only-rest-rand    w2 / kT          N(0, 0.001) / kT
    =======================  ===============  ==========================

    Parameters
    ----------
    w : (C_out, C_in/groups, kH, kW) or (C_out, C_in/groups, 1, kH, kW) ndarray
        float32 or float64.
    time_kernel : int
        Odd, kT.
    mode : str
        One of `MODES`.
    name : str
        Of the noise's stream, see `refnet.fill.normal`.
    seed : int

    Returns
    -------
    (C_out, C_in/groups, kT, kH, kW) ndarray
        In the dtype of w.

    Raises
    ------
    ShapeError, DTypeError, UnknownNameError
        If w is no such array, has another rank or several time steps, or an option is none of the above.
    """
    w = at_the_door(name, w)
    require_known("mode of inflation", mode, MODES)
    odd("time_kernel", time_kernel)
    if w.ndim == 4:
        w = w[:, :, None]
    if volume(name, w.shape)[2] != 1:
        raise ShapeError(f"{name} has shape {text(w.shape)}: expected one time step")
    inflated = np.repeat(w, time_kernel, axis=2)
    sides = np.arange(time_kernel) != time_kernel // 2
    if mode == "center-only":
        inflated[:, :, sides] = 0
    elif mode == "center-only-rest-rand":
        inflated[:, :, sides] = REST_DEVIATION * normal(name, inflated.shape, seed)[:, :, sides]
    if mode in ("mean-repeat", "center-only-rest-rand"):
        inflated /= w.dtype.type(time_kernel)
    return inflated


@in_default
def inflate_params(
    params: Mapping[str, Array], net: Net, mode: str = "mean-repeat", *, seed: int = 0
) -> dict[str, Array]:
    """Inflate the parameters of a 2D network into those of a 3D network of the same blocks.

    Parameters
    ----------
    params : mapping of str to ndarray
        Those of the network with time kernel 1.
    net : Net
        The 3D network; its kernels say how many time steps each gets.
    mode : str
        One of `MODES`.
    seed : int

    Returns
    -------
    dict of str to ndarray
        The parameters of `net`. Those that are no kernels of a convolution, or have one time step, are
        as given.

    Raises
    ------
    ShapeError, DTypeError, UnknownNameError
        If a parameter is missing, is no array, or does not become what `net` needs.
    """
    require_net(net)
    require_mapping("params", params)
    require_known("mode of inflation", mode, MODES)
    inflated: dict[str, Array] = {}
    for name, shape in net.params.items():
        require_known("parameter", name, params)
        value = at_the_door(name, params[name])
        if len(shape) == 5 and shape[2] != 1:
            value = inflate(value, shape[2], mode, name=name, seed=seed)
        if value.shape != shape:
            raise ShapeError(f"{name} has shape {text(value.shape)}: expected {text(shape)}")
        inflated[name] = value
    return inflated
