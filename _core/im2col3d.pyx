"""Where the patches of a window lie; `gather_template.h` packs them."""


cdef Geometry geometry(volume, kernel, stride, pad, dilation, output):
    cdef Geometry g
    g.T, g.H, g.W = volume
    g.kT, g.kH, g.kW = kernel
    g.sT, g.sH, g.sW = stride
    g.pT, g.pH, g.pW = pad
    g.dT, g.dH, g.dW = dilation
    g.oT, g.oH, g.oW = output
    return g
