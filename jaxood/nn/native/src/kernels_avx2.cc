// For x86 processors with AVX2 and fused multiply-add.
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define LANES_BYTES 32
#define REGISTERS 16
#include "kernels.h"
#include "norm.h"

const Kernels kAvx2 = {"AVX2", kTable<float>, kTable<double>};
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
