"""Names and formats of other frameworks."""

from refnet.interop import caffe2, torch

__all__ = ["caffe2", "torch"]
