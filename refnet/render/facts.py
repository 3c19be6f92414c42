"""An explanation in words and numbers, section by section; terminal and page both show these."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, repeat

from refnet import memory
from refnet.ops import OPS
from refnet.shapes import text
from refnet.trace import FreezePoint
from refnet.trace.explanation import Explanation, Product, SlidingAxis
from refnet.trace.receptive import Field

Section = tuple[str, list[tuple[str, ...]]]

FREEZE_COLUMNS = (
    *("freeze at", "multiply-adds", "held", "backward", "of the first"),
    *("parameters", "gradient norm"),
)
# Columns that a narrow terminal shows before others.
FREEZE_FIRST = ("freeze at", "of the first", "backward", "parameters", "gradient norm", "multiply-adds")
FREEZE_NOTE = (
    "Multiply-adds and time are those of backward alone; held are blobs at once.",
    "Parameters: those behind the stop, as a share of all; gradient norm: that of their gradient, as a share "
    "of the whole gradient's if nothing were stopped.",
    "Seeded, the input too unless a clip is given; float64.",
)


def short(count: int) -> str:
    """Write a number in three or four digits: ``944.1 M``."""
    for unit, one in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= one:
            return f"{count / one:.1f} {unit}"
    return str(count)


def freeze_rows(points: Sequence[FreezePoint]) -> Iterator[tuple[str, ...]]:
    """The cells of freeze points side by side."""
    first = points[0].seconds
    for point in points:
        yield (
            str(point.freeze_at),
            short(point.multiply_adds),
            memory.text(point.bytes),
            f"{1000 * point.seconds:.0f} ms",
            f"{point.seconds / first:.2f}" if first else "",
            f"{100 * point.params_share:.2f} %",
            f"{100 * point.gradient_share:.2f} %",
        )


def facts(found: Explanation) -> Iterator[Section]:
    """Title and rows of every section that has something to say."""
    yield "tensors", list(_tensors(found))
    if found.windows:
        yield "sizes", [row for axis in found.windows for row in _sizes(axis)]
    if found.product:
        yield "product", list(_product(found, found.product))
    yield "cost", list(_cost(found))
    if found.field:
        yield "receptive field", [(axis, axis_field(f)) for axis, f in zip("THW", found.field, strict=True)]
    yield "backward", list(_backward(found))


def size_formula(axis: SlidingAxis) -> str:
    """Write the formula of the output's size, with the numbers filled in."""
    padded = f"{axis.source} + 2*{axis.pad}"
    return f"floor(({padded} - {axis.dilation}*({axis.kernel} - 1) - 1) / {axis.stride}) + 1 = {axis.output}"


def axis_field(field: Field | None) -> str:
    """Write a receptive field along one axis: ``43, step 4, from -21``."""
    return "all" if field is None else f"{field.size}, step {field.step}, from {field.offset}"


def geometry(found: Explanation) -> str:
    """Write the window on one line: ``3x3x3, stride 1x2x2, pad 1x1x1, dilation 1x1x1``."""
    kernel, stride, pad, dilation = (
        text([getattr(axis, name) for axis in found.windows])
        for name in ("kernel", "stride", "pad", "dilation")
    )
    return f"kernel {kernel}, stride {stride}, pad {pad}, dilation {dilation}"


def flow_text(found: Explanation) -> str:
    """Say whether the gradient reaches this node."""
    if found.gradient:
        return "flows"
    if found.stops:
        return f"blocked by {', '.join(found.stops)}"
    return "none: no output's gradient comes here"


def _tensors(found: Explanation) -> Iterator[tuple[str, ...]]:
    roles = chain(OPS[found.op].roles, repeat("parameter"))
    for name, shape in found.inputs.items():
        yield "input", name, text(shape)
    for role, (name, shape) in zip(roles, found.params.items(), strict=False):
        yield role, name, text(shape)
    yield "output", found.name, text(found.output)
    if not found.windows and found.attrs:
        yield "with", ", ".join(f"{key} {value}" for key, value in found.attrs.items())


def _sizes(axis: SlidingAxis) -> Iterator[tuple[str, ...]]:
    yield axis.axis, size_formula(axis)
    if axis.unread:
        yield "", f"{axis.unread} of {axis.source} positions are never read"


def _product(found: Explanation, product: Product) -> Iterator[tuple[str, ...]]:
    K, R, P = product.K, product.R, product.P
    kernel, out = ([getattr(axis, name) for axis in found.windows] for name in ("kernel", "output"))
    depth = R // product.row_strides[0]
    times = f"once for each of {product.samples} samples" if product.samples > 1 else "once"
    if product.groups > 1:
        times += f" and {product.groups} groups"
    yield "Y = W X", f"({K} x {R}) times ({R} x {P}) = ({K} x {P}), {times}"
    yield "R = C/groups kT kH kW", f"{_times(depth, *kernel)} = {R}"
    yield "P = oT oH oW", f"{_times(*out)} = {P}"
    yield "row r of X", f"channel c, tap (kt, kh, kw): r = {_sum(product.row_strides, 'c kt kh kw')}"
    yield "column p of X", f"output (t, h, w): p = {_sum(product.column_strides, 't h w')}"
    at = ", ".join(
        _place(axis, o, k) for axis, o, k in zip(found.windows, "thw", ("kt", "kh", "kw"), strict=True)
    )
    channel = "c" if product.groups == 1 else f"g*{depth} + c"
    yield "X[r, p]", f"x[n, {channel}, {at}]" + (", 0 in padding" if found.padded_share else "")
    if kernel == [1, 1, 1] and all(axis.stride == 1 and axis.pad == 0 for axis in found.windows):
        yield "", "which is x itself, seen as a matrix: nothing is gathered"


def _cost(found: Explanation) -> Iterator[tuple[str, ...]]:
    if found.windows:
        along = ", ".join(f"{axis.axis} {axis.padded_outputs} of {axis.output}" for axis in found.windows)
        yield "outputs that see padding", f"{100 * found.padded_share:.1f} %: {along}"
    if found.multiply_adds:
        wasted = found.multiply_adds - found.useful_multiply_adds
        share = f", {wasted:,} of them on padding" if wasted else ""
        yield "multiply-adds", f"{found.multiply_adds:,}{share}"
    read, written = memory.text(found.bytes_read), memory.text(found.bytes_written)
    yield "bytes, in float64", f"{read} read, {written} written"
    if found.multiply_adds:
        yield "intensity", f"{found.intensity:.2f} multiply-adds a byte"


def _backward(found: Explanation) -> Iterator[tuple[str, ...]]:
    yield "gradient", flow_text(found)
    if found.product:
        K, R, P = found.product.K, found.product.R, found.product.P
        x, w, *bias = found.gradients
        scattered = f"({R} x {K}) times ({K} x {P}) = ({R} x {P}), each added where it was read"
        yield "dX = W' dY", scattered, _computed(found, x)
        yield (
            "dW = dY X'",
            f"({K} x {P}) times ({P} x {R}) = ({K} x {R}), added over samples",
            _computed(found, w),
        )
        for b in bias:
            yield (
                "db",
                f"the sum of dY over samples and columns: {K * found.product.groups}",
                _computed(found, b),
            )
        return
    yield "", " ".join(found.derivative.partition("\n\n")[0].split())
    for name in found.gradients:
        yield f"of {name}", _computed(found, name)


def _computed(found: Explanation, name: str) -> str:
    return "computed" if found.gradients[name] else "not computed"


def _times(*factors: int) -> str:
    return " * ".join(map(str, factors))


def _sum(strides: Iterable[int], names: str) -> str:
    pairs = zip(strides, names.split(), strict=True)
    return " + ".join(name if stride == 1 else f"{stride} {name}" for stride, name in pairs)


def _place(axis: SlidingAxis, output: str, tap: str) -> str:
    place = output if axis.stride == 1 else f"{axis.stride}{output}"
    if axis.kernel > 1:
        place += f" + {tap}" if axis.dilation == 1 else f" + {axis.dilation}{tap}"
    return place + (f" - {axis.pad}" if axis.pad else "")
