"""PyTorch's own function for each operator, called with refnet's arrays and attributes.

Tests compare the results, benchmarks the times; views are made contiguous, as refnet's results are.
The argument `f` is `torch.nn.functional`.
"""

from math import ceil

from numpy import ndindex


def conv3d(f, x, w, b=None, *, stride=1, pad=0, dilation=1, groups=1):
    return f.conv3d(x, w, b, stride, pad, dilation, groups)


def affine(f, x, s, b):
    return x * s[:, None, None, None] + b[:, None, None, None]


def relu(f, x):
    return f.relu(x)


def max_pool3d(f, x, *, kernel, stride=1, pad=(0, 0, 0)):
    if any(2 * p > k for p, k in zip(pad, kernel, strict=True)):  # which PyTorch does not take
        t, h, w = pad
        x, pad = f.pad(x, (w, w, h, h, t, t), value=float("-inf")), 0
    return f.max_pool3d(x, kernel, stride, pad)


def add(f, x1, x2):
    return x1 + x2


def stop_gradient(f, x):
    return x.detach()


def linear(f, x, w, b=None):
    return f.linear(x.flatten(1), w, b)


def average_pool3d(f, x, *, kernel, stride=1, pad=0):
    return f.avg_pool3d(x, kernel, stride, pad, count_include_pad=False)


def global_average_pool(f, x, *, over_time=False):
    return x.mean((2, 3, 4) if over_time else (3, 4), keepdim=True)


def upsample_nearest(f, x, *, scale=2):
    return f.interpolate(x, scale_factor=(1, scale, scale))


def time_to_channels(f, x):
    n, c, t, h, w = x.shape
    return x.transpose(1, 2).contiguous().view(n, t * c, 1, h, w)


def channels_to_time(f, x, *, frames):
    n, c, _, h, w = x.shape
    return x.reshape(n, frames, c // frames, h, w).transpose(1, 2).contiguous()


def time_to_batch(f, x):
    n, c, t, h, w = x.shape
    return x.transpose(1, 2).contiguous().view(n * t, c, 1, h, w)


def batch_to_time(f, x, *, frames):
    n, c, _, h, w = x.shape
    return x.reshape(n // frames, frames, c, h, w).transpose(1, 2).contiguous()


def slice_keyframe(f, x):
    middle = x.shape[2] // 2
    return x[:, :, middle : middle + 1].contiguous()


def softmax(f, x):
    return f.softmax(x, 1)


def cross_entropy(f, x, labels):
    return f.cross_entropy(x, labels)


def batch_norm(f, x, s, b, mean, variance, *, epsilon=1e-5):
    return f.batch_norm(x, mean, variance, s, b, eps=epsilon)


def batch_norm_training(f, x, s, b, *, epsilon=1e-5):
    return f.batch_norm(x, None, None, s, b, training=True, eps=epsilon)


def running_mean(f, x, mean, *, momentum=0.9):
    return _kept(f, x, momentum)[0] + momentum * mean


def running_variance(f, x, variance, *, momentum=0.9):
    return _kept(f, x, momentum)[1] + momentum * variance


def dropout(f, x, mask, *, ratio=0.5):
    return x * mask / (1 - ratio)


def _kept(f, x, momentum):
    """What PyTorch adds to the running mean and variance; its momentum is that of the new."""
    kept = [x.new_zeros(x.shape[1]) for _ in range(2)]
    f.batch_norm(x.detach(), *kept, training=True, momentum=1 - momentum)
    return kept


def roi_align(f, x, rois, *, output, spatial_scale=1.0, sampling_ratio=0, aligned=False):
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
