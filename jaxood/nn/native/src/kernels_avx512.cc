// For x86 processors with AVX-512.
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,fma")
#endif
#define LANES_BYTES 64
#define REGISTERS 32
#include "kernels.h"
#include "norm.h"

const Kernels kAvx512 = {"AVX-512", kTable<float>, kTable<double>};
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
