"""3D convolution as a blocked product of weights and patches: forward, backward-data, backward-weights.

Each is Y = W X, dX = W' dY or dW = dY X', with X the patch matrix of x (im2col3d.pyx), blocked as BLIS blocks
a GEMM; docs/design.md draws the loops. This file has the doors, the choice of algorithm, and loop 5: over the
tiles of the result, in parallel. tiles.pyx has loops 4 and 3, macro_kernel.pyx loops 2 and 1,
simd/micro_kernel.h the chains; line_convolution.pyx and tap_gradients.pyx leave out all of the padding, and
group_convolution.pyx and group_gradients.pyx compute whole groups of few channels, channel_convolution.pyx and
channel_gradients.pyx many groups of fewer at once, plane_convolution.pyx such groups where they lie.

The order in which each element is summed is part of the definition. A *chain* is a sequence of
multiply-adds from 0, each of which rounds once:

- y[n, k, o]: the terms w[k, c, tap] x[n, c, ...] in the order (c, tap), cut into chains of KC; the chains are
  added to 0 in order.
- dx[n, c, i]: likewise, the terms w[k, c, tap] dy[n, k, ...] in the order (k, tap), of the taps for which (i
  + pad - tap * dilation) is a multiple of the stride on each axis. Where phases are merged
  (`phases.are_merged`: at most 4 channels of x in a group, a stride of 2 to 16 positions, no dilation, no
  axis whose stride exceeds its kernel), the chains are cut among all places of dy from which some i gathers,
  though each takes only its own terms.
- dw[k, c, tap]: for each sample, its output positions o in order are cut into chains of KC, and the chains
  into spans of SPAN; the chains of a span are added in order, and then all spans.

A tap in the padding is counted where chains are cut, but it is no term, whatever it would be multiplied by. (Its
product with a finite value would change nothing: a term of 0 or -0 changes no chain but one of zeros, and such a
chain is added to 0. Where a value is not finite, nonfinite.pyx sees to it.) So the bits depend neither on tiles nor
on the number of threads nor on the width of vectors, and no BLAS takes part.
"""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cython cimport floating
from cython.parallel cimport parallel, prange

from refnet._core cimport environment, interrupt, micro_kernel, openmp
from refnet._core.blocking cimport (KC, MAX_BLOCKS, MAX_MR, MAX_TILE_COLUMNS, MC, MERGED_PHASES, SPAN_CHAINS,
                                    TILE_COLUMNS, W_PHASES, ceil_div)
from refnet._core.channel_convolution cimport ChannelConvolution, channel_convolution, convolve_channels
from refnet._core.channel_convolution cimport pays as channels_pay
from refnet._core.channel_gradients cimport ChannelGradients, channel_gradient, channel_gradients
from refnet._core.channel_gradients cimport pays as channel_gradients_pay
from refnet._core.checks cimport require
from refnet._core.convolution cimport require_convolution, whole_kernel
from refnet._core.environment cimport Environment
from refnet._core.geometry cimport Geometry, geometry
from refnet._core.group_convolution cimport GroupConvolution, convolve_group, group_convolution
from refnet._core.group_convolution cimport pays as groups_pay
from refnet._core.group_gradients cimport GroupGradients, group_gradient, group_gradients
from refnet._core.group_gradients cimport pays as group_gradients_pay
from refnet._core.interrupt cimport Turn, Watch
from refnet._core.line_convolution cimport LineConvolution, convolve_lines, line_convolution
from refnet._core.line_convolution cimport pays as lines_pay
from refnet._core.macro_kernel cimport add_spans
from refnet._core.nonfinite cimport all_finite, met_padding, reads_padding, sum_again, sum_weights_again
from refnet._core.phases cimport (Places, are_merged, has_taps, merge_weights, merged_kernel,
                                  merged_places, phase_kernel, phase_map)
from refnet._core.plane_convolution cimport PlaneConvolution, convolve_planes, plane_convolution
from refnet._core.plane_convolution cimport pays as planes_pay
from refnet._core.simd cimport Simd
from refnet._core.tap_gradients cimport pays as taps_pay
from refnet._core.tiles cimport Convolution, Subkernel, Tiling, convolve_task, tile_shape
from refnet._core.weights_tiles cimport Spans, WeightsGradient, weights_gradient, weights_task
from refnet._core.workspace cimport Workspace, carve
from refnet._core.write_back cimport OutputMap, clear_lines

# Terms of a chain, and chains in a span of positions, for whoever checks the definition.
CHAIN, SPAN = KC, SPAN_CHAINS

# Multiply-adds of a thread between two looks for Ctrl-C, for each column of its micro-tile: a few tenths of a second.
cdef Py_ssize_t UNINTERRUPTED = <Py_ssize_t> 1 << 27

# Bytes of a gradient that no cache is likely to keep until it is read: it is stored past them.
cdef Py_ssize_t NONTEMPORAL = 16 << 20


# A convolution in tasks of so much work, each of one thread, one way of four.
cdef struct Tasks:
    const LineConvolution* lines
    const PlaneConvolution* planes
    const ChannelConvolution* channels
    const GroupConvolution* groups
    Py_ssize_t count, work


def workspace_bytes(Py_ssize_t itemsize):
    """Bytes of workspace that each thread needs."""
    cdef Workspace workspace
    return carve(&workspace, NULL, itemsize)


cdef int require_sizes(const Geometry* g, const floating[:, :, :, :, ::1] x, const floating[:, ::1] w,
                       const floating[:, :, ::1] y, const unsigned char[:, ::1] workspace,
                       Py_ssize_t groups) except -1:
    """Raise unless the arrays are of one convolution, and there is workspace for every thread."""
    require_convolution(g, x, w, y, groups)
    require(workspace.shape[0] >= openmp.max_threads() and workspace.shape[1] >= workspace_bytes(sizeof(floating)))
    return 0


# ---- Forward


def forward(const floating[:, :, :, :, ::1] x, const floating[:, ::1] w, floating[:, :, ::1] y,
            unsigned char[:, ::1] workspace, window, Py_ssize_t groups):
    """y (N, C_out, P) = w (C_out, K) times the patches of x (N, C, T, H, W).

    The window is (kernel, stride, pad, dilation, output); workspace is (threads, workspace_bytes).
    """
    cdef Geometry g = geometry((x.shape[2], x.shape[3], x.shape[4]), window)
    cdef Subkernel kernel
    cdef OutputMap map
    cdef Convolution conv
    require_sizes(&g, x, w, y, workspace, groups)
    conv.channels, conv.rows = x.shape[1] // groups, w.shape[0] // groups
    kernel = whole_kernel(&g, conv.rows, w.shape[1])
    map.first = 0
    map.t, map.h, map.w = g.oH * g.oW, g.oW, 1
    map.frames, map.lines, map.width, map.volume = g.oT, g.oH, g.oW, y.shape[2]
    map.lines_of_frame, map.positions_of_line = g.oH, g.oW
    map.beside, map.zeros, map.last_zeros = 1, 0, 0
    map.dense, map.nontemporal = True, False
    conv.subkernels, conv.count_subkernels = &kernel, 1
    conv.maps, conv.count_maps = &map, 1
    convolve(&x[0, 0, 0, 0, 0], &w[0, 0], &y[0, 0, 0], workspace, &conv, x.shape[0], groups)


cdef int convolve(const floating* x, const floating* w, floating* y, unsigned char[:, ::1] workspace,
                  Convolution* conv, Py_ssize_t samples, Py_ssize_t groups) except -1:
    """y (samples, groups * results, maps) = weights times the patches of x (samples, groups * channels, ...)."""
    cdef const Simd* simd = micro_kernel.active(x)
    cdef const Geometry* g = &conv.subkernels.g
    cdef ChannelConvolution by_channels = channel_convolution(simd, conv, samples, groups, sizeof(floating))
    cdef GroupConvolution by_groups = group_convolution(simd, conv, groups)
    cdef PlaneConvolution by_planes = plane_convolution(simd, conv, samples, groups)
    cdef LineConvolution by_lines
    cdef Tasks tasks
    cdef Workspace carved
    cdef Py_ssize_t i
    for i in range(openmp.max_threads()):
        carve(&carved, &workspace[i, 0], sizeof(floating))
        carved.packed.weights = carved.planned.kernel = NULL
    tasks.lines, tasks.planes, tasks.channels, tasks.groups = NULL, NULL, NULL, NULL
    if lines_pay(simd, conv):
        by_lines = line_convolution(simd, conv, samples, groups)
        tasks.lines, tasks.count = &by_lines, samples * groups * by_lines.down * by_lines.across
        tasks.work = by_lines.tile_panels * by_lines.filters * by_lines.tile_lines * g.oW * by_lines.terms
        convolve_tasks(x, w, y, workspace, &tasks)
        return 0  # no sum has met padding
    if planes_pay(simd, &by_planes):
        tasks.planes, tasks.count = &by_planes, ceil_div(samples * groups, by_planes.of_task)
        tasks.work = by_planes.of_task * conv.rows * conv.maps.volume * by_planes.terms
        convolve_tasks(x, w, y, workspace, &tasks)
    elif channels_pay(simd, &by_channels, samples):
        tasks.channels, tasks.count = &by_channels, samples * by_channels.blocks * by_channels.bands
        tasks.work = by_channels.image.lanes * g.oT * by_channels.lines * g.oW * by_channels.terms
        convolve_tasks(x, w, y, workspace, &tasks)
    elif groups_pay(simd, &by_groups, samples):
        tasks.groups, tasks.count = &by_groups, samples * groups
        tasks.work = conv.rows * conv.maps.volume * by_groups.terms
        convolve_tasks(x, w, y, workspace, &tasks)
    else:
        convolve_tiles(x, w, y, workspace, conv, samples, groups)
    if met_padding(simd, w, y, conv, samples, groups):
        sum_again(x, w, y, conv, samples, groups)
    return 0


cdef int convolve_tasks(const floating* x, const floating* w, floating* y, unsigned char[:, ::1] workspace,
                        const Tasks* tasks) except -1:
    """Convolve in tasks of one thread each, by lines, planes, channels or groups."""
    cdef const Simd* simd = micro_kernel.active(x)
    cdef Py_ssize_t batch = openmp.max_threads() * max(1, simd.nr * UNINTERRUPTED // tasks.work), begin, end, task
    cdef Environment before
    for begin in range(0, tasks.count, batch):
        end = min(begin + batch, tasks.count)
        with nogil, parallel(use_threads_if=openmp.pays(tasks.count * tasks.work // 8)):
            before = environment.enter_default()
            for task in prange(begin, end, schedule="dynamic"):
                if tasks.lines:
                    convolve_lines(simd, x, w, y, &workspace[openmp.thread_num(), 0], tasks.lines, task)
                elif tasks.planes:
                    convolve_planes(simd, x, w, y, &workspace[openmp.thread_num(), 0], tasks.planes, task)
                elif tasks.channels:
                    convolve_channels(simd, x, w, y, &workspace[openmp.thread_num(), 0], tasks.channels, task)
                else:
                    convolve_group(simd, x, w, y, &workspace[openmp.thread_num(), 0], tasks.groups, task)
            environment.restore(before)
        interrupt.between()
    return 0


cdef int convolve_tiles(const floating* x, const floating* w, floating* y, unsigned char[:, ::1] workspace,
                        Convolution* conv, Py_ssize_t samples, Py_ssize_t groups) except -1:
    """Convolve tile by tile."""
    cdef const Simd* simd = micro_kernel.active(x)
    cdef const Geometry* g = &conv.subkernels.g
    cdef Py_ssize_t P = g.oT * g.oH * g.oW, terms = 0, max_columns = MAX_TILE_COLUMNS, not_empty = 0
    cdef Py_ssize_t batch, begin, end, task, i
    cdef Tiling tiling
    cdef Turn turn
    cdef Watch watch = Watch(False)
    cdef Environment before
    for i in range(conv.count_subkernels):
        if not conv.subkernels[i].empty:
            not_empty += 1
            terms += conv.channels * conv.subkernels[i].g.kT * conv.subkernels[i].g.kH * conv.subkernels[i].g.kW
    # One block of few rows stays in the first cache for all strips of a tile, all blocks of them would not.
    conv.pack_once = (not_empty == 1 and conv.rows * ceil_div(terms, KC) <= MC and terms <= MAX_BLOCKS * KC
                      and (terms == conv.channels or conv.rows > 2 * MAX_MR))
    if not conv.maps.dense and not conv.pack_once:  # as many columns of each subkernel as the workspace holds
        max_columns = min(max_columns, MC * TILE_COLUMNS // (min(conv.rows, <Py_ssize_t> MC)
                                                             * conv.count_subkernels) // simd.nr * simd.nr)
    tiling.groups = groups
    tiling.rows, tiling.columns = tile_shape(conv.rows, 1, P, max_columns, simd.nr, samples * groups, 1,
                                             0 if terms > conv.channels else 1, terms == conv.channels)
    tiling.down, tiling.across = ceil_div(conv.rows, tiling.rows), ceil_div(P, tiling.columns)
    tiling.tasks = samples * groups * tiling.down * tiling.across
    batch = openmp.max_threads() * max(1, simd.nr * UNINTERRUPTED // (tiling.rows * tiling.columns * max(1, terms)))
    begin = 0
    while begin < tiling.tasks:
        end = min(begin + batch, tiling.tasks)
        with nogil, parallel(use_threads_if=openmp.pays(samples * groups * conv.rows * P * (terms + 8) // 8)):
            before = environment.enter_default()
            turn = interrupt.turn(&watch)
            for task in prange(begin, end, schedule="dynamic"):
                convolve_task(simd, x, w, y, &workspace[openmp.thread_num(), 0], conv, &tiling, task, &turn)
            environment.restore(before)
        interrupt.finish(&watch)
        interrupt.between()
        begin = end
    return 0


# ---- Backward-data


def backward_data(const floating[:, :, ::1] dy, const floating[:, ::1] w, floating[:, :, :, :, ::1] dx,
                  unsigned char[:, ::1] workspace, window, Py_ssize_t groups):
    """dx (N, C, T, H, W) = what each position's taps gather from dy (N, C_out, P): see phases.pyx.

    The window is (kernel, stride, pad, dilation, output); workspace is (threads, workspace_bytes).
    """
    cdef Geometry g = geometry((dx.shape[2], dx.shape[3], dx.shape[4]), window)
    require_sizes(&g, dx, w, dy, workspace, groups)
    if are_merged(&g, dx.shape[1] // groups):
        merged_phases(dy, w, dx, workspace, &g, groups)
    else:
        separate_phases(dy, w, dx, workspace, &g, groups)


cdef int merged_phases(const floating[:, :, ::1] dy, const floating[:, ::1] w, floating[:, :, :, :, ::1] dx,
                       unsigned char[:, ::1] workspace, const Geometry* g, Py_ssize_t groups) except -1:
    """Compute all phases of dx by one merged subkernel."""
    cdef Places places = merged_places(g)
    cdef Py_ssize_t count = places.T * places.H * places.W, t, h
    cdef OutputMap maps[MERGED_PHASES]
    cdef Subkernel kernel
    cdef Convolution conv
    cdef floating* merged = NULL
    cdef unsigned short* phases_at = NULL
    conv.channels, conv.rows = w.shape[0] // groups, dx.shape[1] // groups * g.sT * g.sH * g.sW
    try:
        merged = <floating*> PyMem_Calloc(groups * conv.rows * conv.channels * count, sizeof(floating))
        phases_at = <unsigned short*> PyMem_Calloc(count, sizeof(unsigned short))
        if merged == NULL or phases_at == NULL:
            raise MemoryError("the merged weights of a strided gradient")
        merge_weights(&w[0, 0], g, &places, groups, conv.channels, dx.shape[1] // groups, merged, phases_at)
        kernel = merged_kernel(g, &places, conv.rows, conv.channels, phases_at)
        for t in range(g.sT):
            for h in range(g.sH):
                maps[t * g.sH + h] = phase_map(g, t, h, 0, g.sW)
                maps[t * g.sH + h].lines_of_frame = kernel.g.oH  # the longest phase's, for all
        conv.subkernels, conv.count_subkernels = &kernel, 1
        conv.maps, conv.count_maps = &maps[0], g.sT * g.sH
        convolve(&dy[0, 0, 0], merged, &dx[0, 0, 0, 0, 0], workspace, &conv, dx.shape[0], groups)
    finally:
        PyMem_Free(merged)
        PyMem_Free(phases_at)
    return 0


cdef int separate_phases(const floating[:, :, ::1] dy, const floating[:, ::1] w, floating[:, :, :, :, ::1] dx,
                         unsigned char[:, ::1] workspace, const Geometry* g, Py_ssize_t groups) except -1:
    """Compute the phases of dx line by line, those along W together; lines that no tap reaches are zeros."""
    cdef Py_ssize_t t, h, next_h, v, i
    cdef Subkernel kernels[W_PHASES]
    cdef OutputMap map
    cdef Convolution conv
    cdef bint whole_lines = g.sW <= min(<Py_ssize_t> W_PHASES, g.W), reached, empty
    cdef bint large = (dx.shape[0] * dx.shape[1] * dx.shape[2] * dx.shape[3] * dx.shape[4]
                       * <Py_ssize_t> sizeof(floating) >= NONTEMPORAL)
    conv.channels, conv.rows = w.shape[0] // groups, dx.shape[1] // groups
    conv.subkernels, conv.maps, conv.count_maps = &kernels[0], &map, 1
    for t in range(min(g.sT, g.T)):
        next_h = 0
        while next_h < min(g.sH, g.H):
            h = next_h
            next_h += 1
            reached = has_taps(t, g.kT, g.sT, g.pT, g.dT) and has_taps(h, g.kH, g.sH, g.pH, g.dH)
            if not (reached and whole_lines):
                map = phase_map(g, t, h, 0, 1)
                clear_lines(&dx[0, 0, 0, 0, 0], &map, dx.shape[0] * dx.shape[1])
            if not reached:
                continue
            while whole_lines and next_h < min(g.sH, g.H) and not has_taps(next_h, g.kH, g.sH, g.pH, g.dH):
                next_h += 1  # lines of zeros, which are written with this one
            for v in range(0, min(g.sW, g.W), W_PHASES):
                conv.count_subkernels = min(min(g.sW, g.W) - v, <Py_ssize_t> W_PHASES)
                map = phase_map(g, t, h, v, conv.count_subkernels)
                map.zeros = (next_h - h - 1) * g.W
                map.last_zeros = min(next_h - h - 1, g.H - 1 - h - (map.lines - 1) * g.sH) * g.W
                map.nontemporal = map.beside == map.w and large
                empty = True
                for i in range(conv.count_subkernels):
                    kernels[i] = phase_kernel(g, t, h, v + i, &map, conv.channels, w.shape[1])
                    empty = empty and kernels[i].empty
                if not empty:
                    convolve(&dy[0, 0, 0], &w[0, 0], &dx[0, 0, 0, 0, 0], workspace, &conv, dx.shape[0], groups)
    return 0


# ---- Backward-weights


def backward_weights(const floating[:, :, ::1] dy, const floating[:, :, :, :, ::1] x, floating[:, ::1] dw,
                     unsigned char[:, ::1] workspace, floating[:, :, ::1] partial, window, Py_ssize_t groups):
    """dw (C_out, K) = dy (N, C_out, P) times the transposed patches of x (N, C, T, H, W), over all samples.

    As many spans are computed at once as partial (any number, C_out, K) holds, or one, straight in dw. The
    window is (kernel, stride, pad, dilation, output); workspace is (threads, workspace_bytes).
    """
    cdef Geometry g = geometry((x.shape[2], x.shape[3], x.shape[4]), window)
    cdef const Simd* simd = micro_kernel.active(&x[0, 0, 0, 0, 0])
    cdef Py_ssize_t size = dw.shape[0] * dw.shape[1], values = dy.shape[0] * dy.shape[1] * dy.shape[2]
    cdef ChannelGradients of_channels
    cdef GroupGradients of_groups
    cdef bint by_taps
    require_sizes(&g, x, dw, dy, workspace, groups)
    require(partial.shape[0] == 0 or (partial.shape[1] == dw.shape[0] and partial.shape[2] == dw.shape[1]))
    of_channels = channel_gradients(simd, &g, x.shape[0], groups, dw.shape[0] // groups, x.shape[1] // groups)
    of_groups = group_gradients(simd, &g, x.shape[0], groups, dw.shape[0] // groups, x.shape[1] // groups)
    if channel_gradients_pay(simd, &of_channels):
        gradients_of_groups(dy, x, dw, workspace, of_channels.blocks, &of_channels, NULL)
    elif group_gradients_pay(simd, &of_groups):
        gradients_of_groups(dy, x, dw, workspace, groups, NULL, &of_groups)
    else:
        by_taps = taps_pay(simd, &g, dw.shape[0] // groups, x.shape[1] // groups)
        gradients_of_spans(dy, x, dw, workspace, partial, &g, groups, by_taps)
        if by_taps:
            return  # no sum has met padding
    if reads_padding(&g) and not (all_finite(simd, &dw[0, 0], size) if size < values
                                  else all_finite(simd, &dy[0, 0, 0], values)):
        sum_weights_again(&dy[0, 0, 0], &x[0, 0, 0, 0, 0], &dw[0, 0], &g, x.shape[0], dw.shape[0] // groups,
                          x.shape[1] // groups, groups)


cdef int gradients_of_groups(const floating[:, :, ::1] dy, const floating[:, :, :, :, ::1] x, floating[:, ::1] dw,
                             unsigned char[:, ::1] workspace, Py_ssize_t tasks, const ChannelGradients* channels,
                             const GroupGradients* groups) except -1:
    """Compute dw in tasks of one thread each: of a block of lanes, or else of a group."""
    cdef const Simd* simd = micro_kernel.active(&x[0, 0, 0, 0, 0])
    cdef Py_ssize_t work = dy.shape[0] * dy.shape[2] * ceil_div(dw.shape[0], tasks) * dw.shape[1]  # of a task
    cdef Py_ssize_t batch = openmp.max_threads() * max(1, simd.nr * UNINTERRUPTED // work), begin, end, task
    cdef Environment before
    for begin in range(0, tasks, batch):
        end = min(begin + batch, tasks)
        with nogil, parallel(use_threads_if=openmp.pays(tasks * work // 8)):
            before = environment.enter_default()
            for task in prange(begin, end, schedule="dynamic"):
                if channels:
                    channel_gradient(simd, &dy[0, 0, 0], &x[0, 0, 0, 0, 0], &dw[0, 0],
                                     &workspace[openmp.thread_num(), 0], channels, task)
                else:
                    group_gradient(simd, &dy[0, 0, 0], &x[0, 0, 0, 0, 0], &dw[0, 0],
                                   &workspace[openmp.thread_num(), 0], groups, task)
            environment.restore(before)
        interrupt.between()
    return 0


cdef int gradients_of_spans(const floating[:, :, ::1] dy, const floating[:, :, :, :, ::1] x, floating[:, ::1] dw,
                            unsigned char[:, ::1] workspace, floating[:, :, ::1] partial, const Geometry* g,
                            Py_ssize_t groups, bint by_taps) except -1:
    """Compute dw as tiles of spans."""
    cdef const Simd* simd = micro_kernel.active(&x[0, 0, 0, 0, 0])
    cdef Py_ssize_t size = dw.shape[0] * dw.shape[1], total, at_once, batch, begin, end, task, count, k
    cdef WeightsGradient gradient
    cdef Spans spans
    cdef floating* to = &dw[0, 0]
    cdef Environment before
    spans.apart = 0
    if partial.shape[0] > 0:
        spans.apart, to = size, &partial[0, 0, 0]
    total = x.shape[0] * ceil_div(dy.shape[2], SPAN_CHAINS * KC)
    at_once = min(max(1, partial.shape[0]), total)
    # The last span of a sample may be short: it does not count where threads should have equal work.
    gradient = weights_gradient(simd, g, dw.shape[0] // groups, x.shape[1] // groups, groups, SPAN_CHAINS * KC,
                                min(at_once, x.shape[0] * (dy.shape[2] // (SPAN_CHAINS * KC))), by_taps)
    batch = openmp.max_threads() * max(1, simd.nr * UNINTERRUPTED // (gradient.tiling.rows * gradient.tiling.columns
                                                                      * gradient.positions))
    for spans.first in range(0, total, at_once):
        count = min(at_once, total - spans.first)
        begin = spans.first * gradient.tiling.tasks
        spans.stop = begin + count * gradient.tiling.tasks
        while begin < spans.stop:
            end = min(begin + batch, spans.stop)
            with nogil, parallel(use_threads_if=openmp.pays(at_once * gradient.positions * size // 8)):
                before = environment.enter_default()
                for task in prange(begin, end, schedule="dynamic"):
                    weights_task(simd, &dy[0, 0, 0], &x[0, 0, 0, 0, 0], to, &workspace[openmp.thread_num(), 0],
                                 &gradient, &spans, task)
                environment.restore(before)
            interrupt.between()
            begin = end
        if spans.apart:
            with nogil, parallel(use_threads_if=openmp.pays(count * size)):
                before = environment.enter_default()
                for k in prange(dw.shape[0]):
                    add_spans(&partial[0, k, 0], spans.apart, count, &dw[k, 0], dw.shape[1], spans.first > 0)
                environment.restore(before)
    return 0
