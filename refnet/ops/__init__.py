"""The table of operators. A new operator is one new file and one line here."""

from refnet.op import Op
from refnet.ops import add, affine, conv3d, max_pool3d, relu, stop_gradient

OPS: dict[str, Op] = {
    op.name: op
    for op in (
        conv3d.OP,
        affine.OP,
        relu.OP,
        max_pool3d.OP,
        add.OP,
        stop_gradient.OP,
    )
}
