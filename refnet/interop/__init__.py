"""Names and formats of other frameworks."""

from refnet.interop import caffe2

__all__ = ["caffe2"]
