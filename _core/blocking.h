/* The block sizes of a convolution's product, stated once. MR x NR, the micro-tile, is each instruction set's own
   (simd/); docs/design.md draws the loops. KC belongs to the definition of every sum; no bit depends on the others. */

#ifndef REFNET_BLOCKING_H
#define REFNET_BLOCKING_H

enum {
    KC = 256,                             /* terms of a chain of multiply-adds, depth of a packed block */
    MC = 512,                             /* rows of the packed left operand, and most of a tile */
    NC = 128,                             /* columns of the packed right operand: a strip */
    MIN_NR = 2,                           /* columns of the narrowest panel, */
    MAX_NR = 32,                          /* of the widest, */
    MAX_MR = 12,                          /* and rows of the tallest micro-tile */
    LINE_POSITIONS = 14,                  /* of an output line, of a micro-tile whose lanes are filters; or half */
    LINE_STEP = 2,                        /* stride of such lines, if it is not 1 */
    LEAST_POSITIONS = 6,                  /* or any number from this to LINE_POSITIONS, where all taps come at once: */
    LINE_TAPS = 3,                        /* of a line of the kernel, */
    WIDE_TAPS = 7,                        /* or so many, with LINE_STEP, */
    WIDE_POSITIONS = 8,                   /* and then so many positions */
    CHANNEL_POSITIONS = 7,                /* of an output line, of a micro-tile whose lanes are channels, */
    MAX_CHANNEL_TERMS = 9,                /* and terms of one of dw, */
    MAX_CHANNEL_CHAINS = 24,              /* each with a chain for every rotation, */
    MAX_ROTATIONS = 8,                    /* of which there are so many */
    TAP_CHANNELS = 8,                     /* channels at one tap, in the place of positions */
    SPAN_CHAINS = 8,                      /* chains of a span of dw */
    PAD = 8,                              /* behind each row of a packed operand or a tile: its pitch is no power of
                                             two, or rows would compete for the same sets of the cache */
    LHS_PITCH = KC + PAD,                 /* from row to row of the packed left operand */
    TILE_COLUMNS = 512,                   /* of a tile of MC rows; a lower tile may be twice as wide */
    MAX_TILE_COLUMNS = 2 * TILE_COLUMNS,
    TILE_PITCH = TILE_COLUMNS + PAD,
    MAX_BLOCKS = 64,                      /* of the left operand, packed at once for all strips */
    MAX_PANELS = NC / MIN_NR,             /* of a strip, */
    MAX_TILE_PANELS = MAX_TILE_COLUMNS / MIN_NR, /* and of a tile */
    TRANSPOSED = 16,                      /* filters of dw that are transposed at once: a cache line, or two */
    W_PHASES = 4,                         /* phases of a strided dx along W that are computed together, */
    MERGED_PHASES = 16,                   /* and in all that one merged subkernel computes */
    PREFETCH_TERMS = 2,                   /* for each of which the micro-kernel prefetches a line, */
    PREFETCH_LINES = 4,                   /* as many at once */
    CACHE_LINE = 64                       /* bytes */
};

_Static_assert(NC % MAX_NR == 0 && TILE_COLUMNS % NC == 0, "strips are whole panels, tiles whole strips");
_Static_assert(KC <= LHS_PITCH && NC <= TILE_COLUMNS, "a block fits between rows of its pitch");
_Static_assert(MAX_BLOCKS <= MC, "blocks that are packed at once share the rows of the left operand");
_Static_assert(NC * W_PHASES + PAD <= TILE_PITCH, "a tile holds a strip of each phase");
_Static_assert(MERGED_PHASES <= 16, "a bit of an unsigned short for each merged phase");
_Static_assert(TRANSPOSED % TAP_CHANNELS == 0, "channels that are transposed at once are whole micro-tiles");
_Static_assert(KC * (MAX_NR / 2) <= MAX_NR * LHS_PITCH, "a chain of weights of each lane fits into the same lines");
_Static_assert(TRANSPOSED * MC <= MAX_NR * LHS_PITCH, "filters that are transposed fit into the lines before packing");

#endif
