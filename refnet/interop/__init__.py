"""Names and formats of other frameworks; what their modules, models and functions compute."""

from refnet.interop import caffe2, jax, onnx, torch

__all__ = ["caffe2", "jax", "onnx", "torch"]
