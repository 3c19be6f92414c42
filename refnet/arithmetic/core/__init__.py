"""The Cython kernels, in the dtype of their inputs. Same bits on every machine, for any threads.

One file an operator holds its kernel; `runtime` is what they run on, `buffers` what they are handed.
"""

from refnet.arithmetic.core import (
    add,
    affine,
    average_pool3d,
    batch_norm,
    batch_norm_training,
    conv3d,
    cross_entropy,
    dropout,
    global_average_pool,
    linear,
    max_pool3d,
    relu,
    roi_align,
    running_mean,
    running_variance,
    softmax,
    swap_axes,
    upsample_nearest,
)
from refnet.arithmetic.reference import reference
from refnet.arithmetic.table import Arithmetic

KERNELS = {
    "conv3d": conv3d.KERNEL,
    "affine": affine.KERNEL,
    "relu": relu.KERNEL,
    "max_pool3d": max_pool3d.KERNEL,
    "add": add.KERNEL,
    "linear": linear.KERNEL,
    "average_pool3d": average_pool3d.KERNEL,
    "global_average_pool": global_average_pool.KERNEL,
    "upsample_nearest": upsample_nearest.KERNEL,
    "softmax": softmax.KERNEL,
    "cross_entropy": cross_entropy.KERNEL,
    "batch_norm": batch_norm.KERNEL,
    "batch_norm_training": batch_norm_training.KERNEL,
    "running_mean": running_mean.KERNEL,
    "running_variance": running_variance.KERNEL,
    "dropout": dropout.KERNEL,
    "roi_align": roi_align.KERNEL,
    "time_to_channels": swap_axes.TIME_TO_CHANNELS,
    "time_to_batch": swap_axes.TIME_TO_BATCH,
    "channels_to_time": swap_axes.CHANNELS_TO_TIME,
    "batch_to_time": swap_axes.BATCH_TO_TIME,
}
# The NumPy definitions, stated outright: nothing is computed, one frame at most is copied.
DEFINITIONS = {op: reference.kernels[op] for op in ("stop_gradient", "slice_keyframe")}

core = Arithmetic("core", {op: KERNELS[op].in_default_environment() for op in KERNELS} | DEFINITIONS)
