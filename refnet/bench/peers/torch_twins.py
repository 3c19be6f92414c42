"""PyTorch's own function for each operator, called with refnet's arrays and attributes.

Tests compare the results, benchmarks the times; views are made contiguous, as refnet's results are.
The argument `f` is `torch.nn.functional`.
"""

from math import ceil
from typing import Any

from numpy import ndindex

from refnet.shapes import ZEROS


def conv3d(
    f: Any,
    x: Any,
    w: Any,
    b: Any = None,
    *,
    stride: Any = 1,
    pad: Any = 0,
    dilation: Any = 1,
    groups: Any = 1,
) -> Any:
    return f.conv3d(x, w, b, stride, pad, dilation, groups)


def affine(f: Any, x: Any, s: Any, b: Any) -> Any:
    return x * s[:, None, None, None] + b[:, None, None, None]


def relu(f: Any, x: Any) -> Any:
    return f.relu(x)


def max_pool3d(f: Any, x: Any, *, kernel: Any, stride: Any = 1, pad: Any = ZEROS) -> Any:
    if any(2 * p > k for p, k in zip(pad, kernel, strict=True)):  # which PyTorch does not take
        t, h, w = pad
        x, pad = f.pad(x, (w, w, h, h, t, t), value=float("-inf")), 0
    return f.max_pool3d(x, kernel, stride, pad)


def add(f: Any, x1: Any, x2: Any) -> Any:
    return x1 + x2


def stop_gradient(f: Any, x: Any) -> Any:
    return x.detach()


def linear(f: Any, x: Any, w: Any, b: Any = None) -> Any:
    return f.linear(x.flatten(1), w, b)


def average_pool3d(f: Any, x: Any, *, kernel: Any, stride: Any = 1, pad: Any = 0) -> Any:
    return f.avg_pool3d(x, kernel, stride, pad, count_include_pad=False)


def global_average_pool(f: Any, x: Any, *, over_time: Any = False) -> Any:
    return x.mean((2, 3, 4) if over_time else (3, 4), keepdim=True)


def upsample_nearest(f: Any, x: Any, *, scale: Any = 2) -> Any:
    return f.interpolate(x, scale_factor=(1, scale, scale))


def time_to_channels(f: Any, x: Any) -> Any:
    n, c, t, h, w = x.shape
    return x.transpose(1, 2).contiguous().view(n, t * c, 1, h, w)


def channels_to_time(f: Any, x: Any, *, frames: Any) -> Any:
    n, c, _, h, w = x.shape
    return x.reshape(n, frames, c // frames, h, w).transpose(1, 2).contiguous()


def time_to_batch(f: Any, x: Any) -> Any:
    n, c, t, h, w = x.shape
    return x.transpose(1, 2).contiguous().view(n * t, c, 1, h, w)


def batch_to_time(f: Any, x: Any, *, frames: Any) -> Any:
    n, c, _, h, w = x.shape
    return x.reshape(n // frames, frames, c, h, w).transpose(1, 2).contiguous()


def slice_keyframe(f: Any, x: Any) -> Any:
    middle = x.shape[2] // 2
    return x[:, :, middle : middle + 1].contiguous()


def softmax(f: Any, x: Any) -> Any:
    return f.softmax(x, 1)


def cross_entropy(f: Any, x: Any, labels: Any) -> Any:
    return f.cross_entropy(x, labels)


def batch_norm(f: Any, x: Any, s: Any, b: Any, mean: Any, variance: Any, *, epsilon: Any = 1e-5) -> Any:
    return f.batch_norm(x, mean, variance, s, b, eps=epsilon)


def batch_norm_training(f: Any, x: Any, s: Any, b: Any, *, epsilon: Any = 1e-5) -> Any:
    return f.batch_norm(x, None, None, s, b, training=True, eps=epsilon)


def running_mean(f: Any, x: Any, mean: Any, *, momentum: Any = 0.9) -> Any:
    return _kept(f, x, momentum)[0] + momentum * mean


def running_variance(f: Any, x: Any, variance: Any, *, momentum: Any = 0.9) -> Any:
    return _kept(f, x, momentum)[1] + momentum * variance


def dropout(f: Any, x: Any, mask: Any, *, ratio: Any = 0.5) -> Any:
    return x * mask / (1 - ratio)


def _kept(f: Any, x: Any, momentum: Any) -> Any:
    """What PyTorch adds to the running mean and variance; its momentum is that of the new."""
    kept = [x.new_zeros(x.shape[1]) for _ in range(2)]
    f.batch_norm(x.detach(), *kept, training=True, momentum=1 - momentum)
    return kept


def roi_align(
    f: Any,
    x: Any,
    rois: Any,
    *,
    output: Any,
    spatial_scale: Any = 1.0,
    sampling_ratio: Any = 0,
    aligned: Any = False,
) -> Any:
    """Box by box, `grid_sample` at all positions; what lies more than a cell outside counts as zero."""
    from torch import stack  # here, so that the twins can be read without PyTorch

    tubes = []
    for roi in rois.tolist():
        frames = []
        for t in range(x.shape[2]):
            corners = [v * spatial_scale - aligned / 2 for v in roi[1 + 4 * t : 5 + 4 * t]]
            lines, insides, counts = [], [], []
            for start, end, n, size in zip(corners[1::-1], corners[:1:-1], output, x.shape[3:], strict=True):
                width = (end - start if aligned else max(end - start, 1)) / n
                count = sampling_ratio or ceil(width)
                at = x.new_tensor(
                    [start + p * width + (i + 0.5) * width / count for p, i in ndindex(n, count)]
                )
                lines.append((2 * at + 1) / size - 1)
                insides.append((at >= -1) & (at <= size))
                counts.append(count)
            h, w = lines
            grid = stack([w.expand(len(h), -1), h[:, None].expand(-1, len(w))], -1)[None]
            y = f.grid_sample(x[int(roi[0]), None, :, t], grid, padding_mode="border", align_corners=False)
            frames.append(f.avg_pool2d(y * insides[0][:, None] * insides[1], counts)[0])
        tubes.append(stack(frames, 1))
    return stack(tubes)
