/* Where the patches of a convolution lie: sizes of the input volume, the kernel and the output
   volume, and how a kernel tap and an output position together name an input position,
       input = output * stride + tap * dilation - pad,    on each of the axes T, H, W;
   dilation and pad may be negative. */

#ifndef REFNET_GEOMETRY_H
#define REFNET_GEOMETRY_H

#include <stddef.h>

struct geometry {
    ptrdiff_t T, H, W;
    ptrdiff_t kT, kH, kW;
    ptrdiff_t sT, sH, sW;
    ptrdiff_t pT, pH, pW;
    ptrdiff_t dT, dH, dW;
    ptrdiff_t oT, oH, oW;
};

#endif
