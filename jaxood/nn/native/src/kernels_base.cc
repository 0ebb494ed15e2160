// For every processor: vectors of 16 bytes, which are NEON on ARM and SSE2 on x86.
#define LANES_BYTES 16
#if defined(__aarch64__)
#define REGISTERS 32
#else
#define REGISTERS 16
#endif
#include "kernels.h"
#include "norm.h"

#if defined(__aarch64__)
const Kernels kBase = {"NEON", kTable<float>, kTable<double>};
#else
const Kernels kBase = {"portable vectors", kTable<float>, kTable<double>};
#endif
