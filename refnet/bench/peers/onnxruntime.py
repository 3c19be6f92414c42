"""ONNX Runtime on the CPU: a model of one Conv. It has no gradients, and no Conv of float64."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from refnet.arrays import Array
from refnet.bench.peer import Calls, Peer, convolution_only
from refnet.bench.problem import Problem
from refnet.shapes import ONES, ZEROS

# Of the operators, and of the format; both are old enough for every version.
OPSET, FORMAT = 11, 8


@convolution_only
def operator(threads: int, problem: Problem, inputs: Sequence[Array], dy: Array) -> Calls:
    """Convolution forward in float32."""
    lacking: Calls = dict.fromkeys(problem.directions, "no gradients")
    x, w = inputs
    if x.dtype != np.float32:
        return {**lacking, "forward": f"no {x.dtype}"}
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = threads
    session = InferenceSession(_model(problem.case.attrs), options, providers=["CPUExecutionProvider"])
    return {**lacking, "forward": lambda: {"y": session.run(None, {"x": x, "w": w})[0]}}


def _model(attrs: Mapping[str, Any]) -> bytes:
    from onnx import TensorProto, helper

    pad = attrs.get("pad", ZEROS)
    node = helper.make_node(
        "Conv",
        ["x", "w"],
        ["y"],
        strides=attrs.get("stride", ONES),
        pads=[*pad, *pad],
        dilations=attrs.get("dilation", ONES),
        group=attrs.get("groups", 1),
    )
    x, w, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xwy")
    graph = helper.make_graph([node], "conv3d", [x, w], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=FORMAT)
    return bytes(model.SerializeToString())


PEER = Peer("onnxruntime", ("onnxruntime", "onnx"), "intra_op_num_threads of the session", operator)
