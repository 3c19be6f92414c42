"""Planted changes, one at a time, each of which some test must find: `nox -s mutants` (tests/mutation.py).

None is equivalent to what it replaces: each changes a result, a bit, a verdict, or what is left on a disk.
"""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Tests that several mutants name.
BITS = "test_micro_kernel.py::test_every_bit_is_that_of_the_definition"
FEW_SAMPLES = "test_micro_kernel.py::test_a_layer_of_few_samples_is_summed_as_defined"
INTEGERS = "test_micro_kernel.py::test_integers_are_exact"
TILES = "test_conv3d.py::test_several_tiles_are_exact"
ANY_GROUPS = "test_conv3d.py::test_any_groups_are_exact"
CORE = "test_operators.py::test_core_equals_the_definition_on_integers"


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Attributes
    ----------
    name : str
    file : str
        Below the root of the repository.
    before, after : str
        What is replaced, which occurs once, and by what.
    tests : tuple of str
        What pytest is given, below tests/.
    builds : tuple of str
        The compiled modules that a changed header is compiled into; a .pyx file is one itself.
    version : str
        The version of the micro-kernel that is changed; where the processor lacks it, nothing is to be found.
    """

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]
    builds: tuple[str, ...] = ()
    version: str = ""

    @property
    def compiled(self) -> tuple[str, ...]:
        """The compiled modules that are built again."""
        return (Path(self.file).stem,) if self.file.endswith(".pyx") else self.builds

    def planted(self, text: str) -> str:
        """The text of the file with the change in it.

        Raises
        ------
        ValueError
            If what it replaces does not occur exactly once.
        """
        if (count := text.count(self.before)) != 1:
            raise ValueError(
                f"the table of mutants is out of date: what {self.name} replaces occurs {count} times in "
                f"{self.file}, expected once"
            )
        return text.replace(self.before, self.after)


KERNELS = (
    Mutant(
        "a multiply-add rounds twice",
        "_core/simd/avx2.h",
        "#define FMA(a, b, c) _mm256_fmadd_pd(a, b, c)",
        "#define FMA(a, b, c) _mm256_add_pd(_mm256_mul_pd(a, b), c)",
        ("test_micro_kernel.py::test_a_multiply_add_rounds_once",),
        builds=("micro_kernel",),
        version="avx2",
    ),
    Mutant(
        "a rounding to odd goes away from zero",
        "_core/simd/multiply_add.h",
        "towards_zero = (error < 0) ^ (sum < 0);",
        "towards_zero = (error < 0) & (sum < 0);",
        ("test_micro_kernel.py::test_a_multiply_add_rounds_once",),
        builds=("micro_kernel",),
    ),
    Mutant(
        "a first chain is not added to 0",
        "_core/simd/micro_kernel.h",
        "left = *(const UNALIGNED *) before + sum[i][0];",
        "left = tile->accumulate ? (VECTOR) *(const UNALIGNED *) before + sum[i][0] : sum[i][0];",
        ("test_micro_kernel.py::test_sums_of_nothing_but_underflow_are_zero_and_not_minus_zero",),
        builds=("micro_kernel",),
    ),
    Mutant(
        "the last row of a micro-tile is not stored",
        "_core/simd/micro_kernel.h",
        "&& !quartered && i >= tile->rows)",
        "&& !quartered && i >= tile->rows - 1)",
        (INTEGERS, TILES),
        builds=("micro_kernel",),
    ),
    Mutant(
        "a first chain of a line is not added to 0",
        "_core/simd/line_kernel.h",
        "((const UNALIGNED *) before)[j] + sum[i][j];",
        "tile->accumulate ? (VECTOR) ((const UNALIGNED *) before)[j] + sum[i][j] : sum[i][j];",
        ("test_micro_kernel.py::test_sums_of_nothing_but_underflow_are_zero_and_not_minus_zero",),
        builds=("micro_kernel",),
        version="avx512",
    ),
    Mutant(
        "the last term of a line reads the padding",
        "_core/simd/line_kernel.h",
        "!(i == positions - 1 && edges == LAST_OUTSIDE)",
        "!(i == positions - 1 && edges == FIRST_OUTSIDE)",
        (BITS,),
        builds=("micro_kernel",),
        version="avx512",
    ),
    Mutant(
        "a tile of lines that no tap reaches is not cleared",
        "_core/simd/line_kernel.h",
        "if (!tile->accumulate) /* where no tap reaches */",
        "if (tile->accumulate)",
        (BITS,),
        builds=("micro_kernel",),
        version="avx512",
    ),
    Mutant(
        "chains of 255 in a layer of few samples",
        "_core/simd/linear.h",
        "for (; first < end; first += KC) {\n"
        "            NAME(chains_of_rows)(x, w, D, rows, first, lead, end - first < KC ? end - first : KC,",
        "for (; first < end; first += KC - 1) {\n"
        "            NAME(chains_of_rows)(x, w, D, rows, first, lead,\n"
        "                                 end - first < KC - 1 ? end - first : KC - 1,",
        (FEW_SAMPLES,),
        builds=("micro_kernel",),
    ),
    Mutant(
        "chains that are lanes are added backwards",
        "_core/simd/linear.h",
        "sum += found[row * chains + j];",
        "sum += found[row * chains + chains - 1 - j];",
        (FEW_SAMPLES,),
        builds=("micro_kernel",),
    ),
    Mutant(
        "spans of 4 chains in dw of groups",
        "_core/group_gradients.pyx",
        "block % SPAN_CHAINS > 0)\n"
        "            if (block + 1) % SPAN_CHAINS == 0 or (block + 1) * KC >= P:  # the end of a span\n"
        "                add_sums(sums, dw, gradients, n > 0 or block >= SPAN_CHAINS,",
        "block % (SPAN_CHAINS // 2) > 0)\n"
        "            if (block + 1) % (SPAN_CHAINS // 2) == 0 or (block + 1) * KC >= P:\n"
        "                add_sums(sums, dw, gradients, n > 0 or block >= SPAN_CHAINS // 2,",
        (BITS,),
    ),
    Mutant(
        "spans of 4 chains in dw of many groups",
        "_core/channel_gradients.pyx",
        "if position % (SPAN_CHAINS * KC) == 0",
        "if position % (SPAN_CHAINS // 2 * KC) == 0",
        (BITS,),
    ),
    Mutant(
        "lanes take the filter before, not the next one",
        "_core/channel_gradients.pyx",
        "(lane + rotation) % rotations",
        "(lane + rotations - rotation) % rotations",
        (BITS, ANY_GROUPS),
    ),
    Mutant(
        "positions of many groups read the next line, whatever the stride",
        "_core/channel_convolution.pyx",
        "positions[i] = (h * g.sH * image.width + w * g.sW) * image.lanes",
        "positions[i] = (h * image.width + w * g.sW) * image.lanes",
        (BITS, ANY_GROUPS),
    ),
    Mutant(
        "lines that are read back are outside where those that are read on would be",
        "_core/plane_convolution.pyx",
        "first = -h if g.dH > 0 else h - g.H + 1",
        "first = -h",
        (BITS,),
        version="avx512",
    ),
    Mutant(
        "frames that read nothing are sums of the first frame",
        "_core/plane_convolution.pyx",
        "t, tile.frames, tile.lines_read = 0, 1, 0",
        "t, tile.frames = 0, 1",
        (BITS,),
        version="avx512",
    ),
    Mutant(
        "taps of a plane in the order of columns",
        "_core/simd/plane_kernel.h",
        "factor[h * 3 + w], value[w]",
        "factor[w * 3 + h], value[h]",
        (BITS,),
        builds=("micro_kernel",),
        version="avx512",
    ),
    Mutant(
        "sums of planes may be -0",
        "_core/simd/plane_kernel.h",
        "(VECTOR) {0} + sum[j - 2]",
        "sum[j - 2]",
        ("test_micro_kernel.py::test_sums_of_nothing_but_underflow_are_zero_and_not_minus_zero",),
        builds=("micro_kernel",),
        version="avx512",
    ),
    Mutant(
        "chains of 128 in dw",
        "_core/weights_tiles.pyx",
        "    for block in range(ceil_div(tile.stop - tile.start, KC)):\n"
        "        first = tile.start + block * KC\n"
        "        count = min(tile.stop - first, <Py_ssize_t> KC)\n",
        "    for block in range(ceil_div(tile.stop - tile.start, KC // 2)):\n"
        "        first = tile.start + block * (KC // 2)\n"
        "        count = min(tile.stop - first, <Py_ssize_t> (KC // 2))\n",
        (BITS,),
    ),
    Mutant(
        "spans are added backwards",
        "_core/macro_kernel.pyx",
        "spans[span * apart + i]",
        "spans[(count - 1 - span) * apart + i]",
        ("test_micro_kernel.py::test_spans_are_added_in_order_however_many_are_held_at_once",),
    ),
    Mutant(
        "spans overlap",
        "_core/weights_tiles.pyx",
        "min(here.start + gradient.positions, P)",
        "min(here.start + gradient.positions + 1, P)",
        (INTEGERS, TILES),
    ),
    Mutant(
        "the last panel is one column short",
        "_core/macro_kernel.pyx",
        "for j in range(columns):",
        "for j in range(columns - 1):",
        (INTEGERS, TILES),
    ),
    Mutant(
        "the last filters are not written back",
        "_core/weights_tiles.pyx",
        "for block in range(ceil_div(tile.filters, TRANSPOSED)):",
        "for block in range(max(1, tile.filters // TRANSPOSED)):",
        (INTEGERS, TILES),
    ),
    Mutant(
        "the last channels are not packed",
        "_core/tap_gradients.pyx",
        "for i in range(tile.channels // TAP_CHANNELS):",
        "for i in range(tile.channels // TAP_CHANNELS - 1):",
        (INTEGERS, TILES),
    ),
    Mutant(
        "a frame behind the last is read",
        "_core/im2col3d.pyx",
        "last_t = g.T - 1 - frame,",
        "last_t = g.T - frame,",
        (INTEGERS, TILES),
    ),
    Mutant(
        "a tap in the padding is a term where dy is infinite",
        "_core/conv3d.pyx",
        "            return  # no sum has met padding\n    if reads_padding(&g) and not",
        "            return  # no sum has met padding\n    if False and not",
        ("test_micro_kernel.py::test_a_tap_in_the_padding_is_no_term", "test_nonfinite.py"),
    ),
    Mutant(
        "a strided dx gathers to the right",
        "_core/phases.pyx",
        "kernel.g.dW = -(along_w.step * g.dW // g.sW)",
        "kernel.g.dW = along_w.step * g.dW // g.sW",
        (INTEGERS, TILES),
    ),
    Mutant(
        "the last value of an odd line is left out",
        "_core/write_back.pyx",
        "if width % 2:",
        "if width % 2 and width > 1 << 20:",
        (INTEGERS, TILES),
    ),
    Mutant(
        "the last of equal values wins in max pooling",
        "_core/max_pool3d.pyx",
        "for tap in range(g.kT * g.kH - 1, -1, -1):",
        "for tap in range(g.kT * g.kH):",
        ("test_operators.py::test_max_pool_against_loops_with_many_ties",),
    ),
    Mutant(
        "a NaN loses in max pooling",
        "_core/max_pool3d.pyx",
        "return value if (value > best) | (value != value) else best",
        "return value if value > best else best",
        ("test_operators.py::test_max_pool_of_nan_and_infinity",),
    ),
    Mutant(
        "averages count the padding",
        "_core/average_pool3d.pyx",
        "return lines * inside(ow, g.kW, g.sW, g.pW, g.W)",
        "return lines * g.kW",
        ("test_operators.py::test_average_pool_literally", CORE),
    ),
    Mutant(
        "epsilon counts twice in batch norm",
        "_core/batch_norm.pyx",
        "square = found[c].variance + epsilon *",
        "square = found[c].variance + 2 * epsilon *",
        ("test_training_operators.py::test_batch_norm_in_training_literally", "test_sums.py"),
    ),
    Mutant(
        "the end of a plane is left out of its sum",
        "_core/sums_loops.h",
        "FOLD(lane[s][0]) + rest[s];",
        "FOLD(lane[s][0]);",
        ("test_sums.py::test_sums_of_channels_are_within_their_bounds",),
        builds=("affine",),
    ),
    Mutant(
        "what a sum loses is forgotten",
        "_core/sums.h",
        "+ (term - back)) + sum.low;",
        "+ (term - back));",
        ("test_sums.py",),
        builds=("affine",),
    ),
    Mutant(
        "the rest of a difference is left out of its exponential",
        "_core/softmax.h",
        "d < -746.0 ? 0.0 : rest",
        "0.0",
        ("test_elementary.py",),
        builds=("softmax",),
    ),
    Mutant(
        "the gradient at a label cancels",
        "_core/softmax.h",
        "(REAL)((0.0 - row.others) * scale);",
        "(REAL)(row.of_label * scale - dy);",
        ("test_elementary.py",),
        builds=("softmax",),
    ),
    Mutant(
        "a sample on the border of the map is outside",
        "_core/roi_align.pyx",
        "if position >= -1 and position <= size:",
        "if position >= -1 and position < size:",
        ("test_roi_align.py::test_border_literally",),
    ),
    Mutant(
        "the rectifier hands on -0",
        "_core/relu.pyx",
        "z[i] = 0 if y[i] <= 0 else value",
        "z[i] = 0 if y[i] < 0 else value",
        ("test_operators.py::test_relu_literally", CORE),
    ),
    Mutant(
        "kernels compute in the caller's environment",
        "_core/environment.pyx",
        "    fesetenv(FE_DFL_ENV)\n",
        "",
        ("test_environment.py::test_no_mode_changes_a_bit",),
    ),
    Mutant(
        "the bias is left out",
        "refnet/arithmetic/core/conv3d.py",
        "if b is not None:",
        "if b is not None and False:",
        ("test_operators.py::test_convolution_literally", CORE),
    ),
)

DEFINITIONS = (
    Mutant(
        "dw of one sample alone",
        "refnet/ops/conv3d.py",
        "= pairs.sum(axis=0)",
        "= pairs[0]",
        ("test_conv3d.py::test_integers_are_exact", CORE),
    ),
    Mutant(
        "the definition counts the padding of averages",
        "refnet/ops/average_pool3d.py",
        "counts[outputs] += 1\n    return counts",
        "counts += 1\n    return counts",
        ("test_operators.py::test_average_pool_literally",),
    ),
    Mutant(
        "the last of equal values wins in the definition",
        "refnet/ops/max_pool3d.py",
        "(challenger > best)",
        "(challenger >= best)",
        ("test_operators.py::test_max_pool_against_loops_with_many_ties",),
    ),
    Mutant(
        "a rectifier's zero has a gradient",
        "refnet/ops/relu.py",
        "np.where(y <= 0, dy.dtype.type(0), dy)",
        "np.where(y < 0, dy.dtype.type(0), dy)",
        ("test_operators.py::test_relu_literally",),
    ),
    Mutant(
        "epsilon counts twice",
        "refnet/ops/batch_norm.py",
        "np.sqrt(variance.astype(np.float64) + epsilon)",
        "np.sqrt(variance.astype(np.float64) + 2 * epsilon)",
        ("test_training_operators.py::test_batch_norm_literally",),
    ),
    Mutant(
        "the batch's variance is that of a sample",
        "refnet/ops/batch_norm_training.py",
        "channel_sums(np.square(_centred(x, high, low))) / n)",
        "channel_sums(np.square(_centred(x, high, low))) / max(n - 1, 1))",
        ("test_training_operators.py::test_batch_norm_in_training_literally",),
    ),
    Mutant(
        "the running variance is that of a population",
        "refnet/ops/running_variance.py",
        "of_batch.variance * (n / (n - 1))",
        "of_batch.variance * 1.0",
        ("test_training_operators.py::test_running_statistics_literally",),
    ),
    Mutant(
        "what is dropped is scaled by the wrong share",
        "refnet/ops/dropout.py",
        "keep = x.dtype.type(1 / (1 - ratio))",
        "keep = x.dtype.type(1 / ratio)",
        ("test_training_operators.py::test_dropout_literally", CORE),
    ),
    Mutant(
        "boxes narrower than a pixel stay so",
        "refnet/ops/roi_align.py",
        "np.maximum(extent, 1)",
        "np.maximum(extent, 0)",
        ("test_roi_align.py",),
    ),
    Mutant(
        "the losses' sum in place of their mean",
        "refnet/ops/cross_entropy.py",
        "return dx * (dy / x.dtype.type(len(x))), None",
        "return dx * dy, None",
        ("test_training_operators.py::test_cross_entropy_literally",),
    ),
)

WALKS = (
    Mutant(
        "the last gradient that meets at a blob is the only one",
        "refnet/run.py",
        "pending.setdefault(name, []).append(gradient)",
        "pending[name] = [gradient]",
        ("test_run.py::test_contributions_add_up_without_touching_their_owners",),
    ),
    Mutant(
        "gradients that meet are added backwards",
        "refnet/arithmetic/table.py",
        "for array in arrays[1:]:",
        "for array in arrays[:0:-1]:",
        ("test_run.py", "test_hashes.py"),
    ),
    Mutant(
        "gradients are computed that nobody needs",
        "refnet/run.py",
        "needs = tuple(name in learns for name in node.inputs)",
        "needs = tuple(True for name in node.inputs)",
        ("test_run.py",),
    ),
    Mutant(
        "what no output depends on is blocked",
        "refnet/run.py",
        "(net.learnt() & net.upstream(output_gradients)) - computed.keys()",
        "net.learnt() - computed.keys()",
        ("test_run.py::test_a_computed_zero_is_there_and_the_unconnected_is_neither",),
    ),
    Mutant(
        "a stop lets gradients through",
        "refnet/net.py",
        "if OPS[node.op].domain(index).gradient]",
        "if OPS[node.op]]",
        ("test_run.py", "test_check.py::test_gradients_arrive_where_the_graph_says"),
    ),
    Mutant(
        "the stop is a stage too late",
        "refnet/networks/resnet3d.py",
        "if k == freeze_at:",
        "if k == freeze_at + 1:",
        ("test_run.py::test_nothing_is_computed_upstream_of_a_stop",),
    ),
    Mutant(
        "a blob is freed at its first reader",
        "refnet/net.py",
        "if name in last:",
        "if name in last and self.first_reader(name)[0] is node:",
        ("test_run.py::test_keeping_only_outputs_changes_nothing_but_memory",),
    ),
    Mutant(
        "kernels may write on what they are given",
        "refnet/arrays.py",
        "view.flags.writeable = False",
        "view.flags.writeable = True and view.flags.writeable",
        ("test_operators.py::test_a_kernel_cannot_write_on_its_inputs",),
    ),
)

CHECKS = (
    Mutant(
        "the bound is twice as large",
        "refnet/check/bounds.py",
        "factor = height * unit(claim.accumulate)",
        "factor = 2 * height * unit(claim.accumulate)",
        ("test_check.py::test_the_bound_is_that_of_the_formula",),
    ),
    Mutant(
        "the bound is half as large",
        "refnet/check/bounds.py",
        "factor = height * unit(claim.accumulate)",
        "factor = height / 2 * unit(claim.accumulate)",
        ("test_check.py::test_the_bound_is_that_of_the_formula",),
    ),
    Mutant(
        "the bound has no room for what is stored",
        "refnet/check/expected.py",
        "relative=self.relative + form.unit,",
        "relative=self.relative,",
        ("test_certify.py",),
    ),
    Mutant(
        "the expected error is half as large",
        "refnet/check/expected.py",
        "square = (u**2 + (0 if rounds_once else unit(np.float64)) ** 2) / 3",
        "square = (u**2 + (0 if rounds_once else unit(np.float64)) ** 2) / 12",
        ("test_certify.py",),
    ),
    Mutant(
        "the expected error is twice as large",
        "refnet/check/expected.py",
        "square = (u**2 + (0 if rounds_once else unit(np.float64)) ** 2) / 3",
        "square = (u**2 + (0 if rounds_once else unit(np.float64)) ** 2) * 4 / 3",
        ("test_certify.py",),
    ),
    Mutant(
        "lambda lacks its root",
        "refnet/check/plausible.py",
        "return cls(sqrt(2 * log(2 * max(elements, 1) / delta)),",
        "return cls(2 * log(2 * max(elements, 1) / delta),",
        ("test_certify.py",),
    ),
    Mutant(
        "lambda is of one element",
        "refnet/check/plausible.py",
        "2 * max(elements, 1) / delta",
        "2 / delta",
        ("test_certify.py",),
    ),
    Mutant(
        "a NaN is not beyond its bound",
        "_core/residual.pyx",
        "counts[0] += not fabs(d) <= bound",
        "counts[0] += fabs(d) > bound",
        ("test_certify.py",),
    ),
    Mutant(
        "errors are compared where what is expected of them underflows",
        "_core/residual.pyx",
        "if v > 0 and isfinite(v):",
        "if v > 0:",
        ("test_certify.py::test_values_whose_squares_underflow_beside_others_are_no_failure",),
    ),
    Mutant(
        "a NaN is within the bound of a comparison",
        "_core/compare.pyx",
        "wrong[0] += not off <= bound",
        "wrong[0] += off > bound",
        ("test_check.py",),
    ),
    Mutant(
        "what is at its bound is beyond it",
        "_core/compare.pyx",
        "wrong[0] += not off <= bound",
        "wrong[0] += not off < bound",
        ("test_check.py",),
    ),
    Mutant(
        "a kernel judges itself",
        "refnet/check/judge.py",
        "arithmetic.kernels[op] in (core.kernels[op], exact.kernels[op])",
        "arithmetic.kernels[op] not in (core.kernels[op], exact.kernels[op])",
        ("test_check.py::test_nothing_judges_itself",),
    ),
    Mutant(
        "a report of nothing is right",
        "refnet/check/report.py",
        "bool(self.verdicts) and all(",
        "all(",
        ("test_check.py::test_reports_pass_only_what_was_decided",),
    ),
    Mutant(
        "a modulus leaves no room for its reduction",
        "refnet/check/residues.py",
        "2 * (limit // (terms + 2) - SLACK)",
        "2 * (limit // terms)",
        ("test_composition.py",),
    ),
)

BUNDLES = (
    Mutant(
        "the hash is of the first megabyte",
        "refnet/golden/bundle.py",
        "for some in rows(octets.shape):",
        "for some in rows(octets[: 1 << 20].shape):",
        ("test_golden.py::test_a_hash_is_of_every_byte_in_c_order",),
    ),
    Mutant(
        "the hash is of the bits of each NaN",
        "refnet/golden/bundle.py",
        "    array = with_one_nan(array)\n",
        "",
        ("test_golden.py",),
    ),
    Mutant(
        "hashes are compared whatever the dtype is",
        "refnet/golden/findings.py",
        'if entry["shape"] != list(derived.shape) or entry["dtype"] != derived.dtype.name:',
        'if entry["shape"] != list(derived.shape):',
        ("test_golden.py",),
    ),
    Mutant(
        "the manifest lacks the last tensor of each section",
        "refnet/golden/derive.py",
        "for name, array in arrays.items():",
        "for name, array in list(arrays.items())[:-1]:",
        ("test_golden.py",),
    ),
    Mutant(
        "verify leaves out the last tensor",
        "refnet/golden/findings.py",
        "for section, name in names:",
        "for section, name in names[:-1]:",
        ("test_golden.py",),
    ),
    Mutant(
        "verify trusts the hashes of what it stored",
        "refnet/golden/findings.py",
        "if sha(stored) != claimed:",
        "if False:",
        ("test_golden.py",),
    ),
    Mutant(
        "zeros of both signs are equal",
        "refnet/golden/findings.py",
        "np.count_nonzero(a.view(bits) != b.view(bits))",
        "np.count_nonzero((a != b) & ~(np.isnan(a) & np.isnan(b)))",
        ("test_golden.py",),
    ),
    Mutant(
        "a folder has its name before it is on the disk",
        "refnet/golden/folder.py",
        "            placing.sync(folder)\n",
        "",
        ("test_durability.py::test_files_and_folder_reach_the_disk_before_the_name_does",),
    ),
    Mutant(
        "a new folder's name is not on the disk",
        "refnet/placing.py",
        "        sync(path.parent)\n",
        "",
        ("test_durability.py",),
    ),
    Mutant(
        "what is there already is replaced",
        "refnet/placing.py",
        "_rename(new, out, NOREPLACE)",
        "_rename(new, out, 0)",
        ("test_durability.py",),
    ),
    Mutant(
        "what a living process holds is cleared",
        "refnet/placing.py",
        "os.fstat(handle).st_uid == os.geteuid() and _locked(handle)",
        "os.fstat(handle).st_uid == os.geteuid()",
        ("test_durability.py::test_what_a_living_process_holds_stays",),
    ),
)

INPUTS = (
    Mutant(
        "draws are even multiples",
        "refnet/inputs/fill.py",
        "* 2 + (1 - 2**24)",
        "* 2 - 2**24",
        ("test_fill.py",),
    ),
    Mutant(
        "a tensor's key is read the other way round",
        "refnet/inputs/fill.py",
        '"little")], np.uint64)',
        '"big")], np.uint64)',
        ("test_fill.py",),
    ),
    Mutant(
        "pixels lie on the corners of their cells",
        "refnet/inputs/resize.py",
        "(np.arange(m) + 0.5) * _ratio(n, m) - 0.5",
        "np.arange(m) * _ratio(n, m)",
        ("test_resize.py",),
    ),
    Mutant(
        "means are taken off in the other order",
        "refnet/inputs/clip.py",
        "(pixels - np.array(PIXEL_MEANS))",
        "(pixels - np.array(PIXEL_MEANS[::-1]))",
        ("test_clip.py",),
    ),
)

MUTANTS = (*KERNELS, *DEFINITIONS, *WALKS, *CHECKS, *BUNDLES, *INPUTS)

# One or two of each kind, built and found in seconds: `tests/mutation.py --few`, which CI runs.
FEW = (
    "spans are added backwards",
    "the rectifier hands on -0",
    "kernels compute in the caller's environment",
    "the definition counts the padding of averages",
    "the stop is a stage too late",
    "the bound is half as large",
    "a NaN is within the bound of a comparison",
    "the hash is of the first megabyte",
    "what a living process holds is cleared",
    "draws are even multiples",
)
