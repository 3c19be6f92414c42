/* What versions.h defined for an instruction set. */
#undef VERSION
#undef TARGET
#undef VECTOR
#undef WIDTH
#undef WIDEN
#undef NARROW
#undef FOLD
#undef PLUS
#undef MINUS
#undef SPREAD
