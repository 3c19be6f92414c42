"""What a network is, node by node: shapes, costs, gradient flow, receptive fields, explanations."""

from refnet.trace.explanation import Explanation, explain, explain_all
from refnet.trace.freeze import FreezePoint, freeze_points
from refnet.trace.nodes import Row, backward_multiply_adds, trace
from refnet.trace.receptive import Field, receptive_fields

__all__ = [
    "Explanation",
    "Field",
    "FreezePoint",
    "Row",
    "backward_multiply_adds",
    "explain",
    "explain_all",
    "freeze_points",
    "receptive_fields",
    "trace",
]
