// The inner loops of a convolution and of its kernel gradient, for one instruction set.
//
// Each kernels_*.cc includes this file once, with LANES_BYTES (size of a vector register) and
// REGISTERS (how many there are) defined, and names its table of functions. It includes nothing of
// the C++ library: an inline function of the library compiled here for a new processor could be the
// copy that the linker keeps for all.

#include "tables.h"

namespace {

template <typename T>
struct Vector {
  static constexpr int kLanes = LANES_BYTES / sizeof(T);
  typedef T Type __attribute__((vector_size(LANES_BYTES)));
  typedef T Unaligned __attribute__((vector_size(LANES_BYTES), aligned(sizeof(T)), may_alias));
};

template <typename T>
inline typename Vector<T>::Type Load(const T* p) {
  return *(const typename Vector<T>::Unaligned*)p;
}

template <typename T>
inline void Store(T* p, typename Vector<T>::Type v) {
  *(typename Vector<T>::Unaligned*)p = v;
}

// A tile of V vectors by kRows<V> pixels (or input channels) leaves registers for the operands.
template <int V>
struct Tile {
  static constexpr int kRows = (REGISTERS - 1 - V) / V < 14 ? (REGISTERS - 1 - V) / V : 14;
};

// P pixels by V vectors of output channels: y = sum over taps of x * k.
template <typename T, int P, int V>
void ConvolveTile(const Region<T>& r, const T* x, const T* k, T* y, int64_t y_pixel) {
  constexpr int L = Vector<T>::kLanes;
  typename Vector<T>::Type sums[P][V];
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sums[p][v] = typename Vector<T>::Type{};
  for (int64_t s = 0; s < r.segments; ++s) {
    const T* segment = x + s * r.x_segment;
#pragma GCC unroll 2
    for (int64_t c = 0; c < r.length; ++c) {
      typename Vector<T>::Type weights[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) weights[v] = Load(k + L * v);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) __builtin_prefetch(k + L * (v + 8 * V));
      k += L * V;
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) {
        const T value = segment[p * r.x_pixel + c];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sums[p][v] += value * weights[v];
      }
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) Store(y + p * y_pixel + L * v, sums[p][v]);
}

template <typename T, int P, int V>
void ConvolvePixels(const Region<T>& r, const T* x, const T* k, T* y, int64_t pixels, int64_t width) {
  if constexpr (P > 1) {
    if (pixels < P) return ConvolvePixels<T, P - 1, V>(r, x, k, y, pixels, width);
  }
  constexpr int64_t kWidth = V * Vector<T>::kLanes;
  if (width == kWidth) return ConvolveTile<T, P, V>(r, x, k, y, r.y_pixel);
  T whole[P * kWidth];
  ConvolveTile<T, P, V>(r, x, k, whole, kWidth);
  for (int p = 0; p < P; ++p)
    for (int64_t c = 0; c < width; ++c) y[p * r.y_pixel + c] = whole[p * kWidth + c];
}

// All pixels of a region, for one block of V vectors of output channels.
template <typename T, int V>
void ConvolveBlock(const Region<T>& r, const T* k, int64_t first, int64_t width) {
  constexpr int kPixels = Tile<V>::kRows;
  const int64_t parts = (r.columns + kPixels - 1) / kPixels;
  for (int64_t row = 0; row < r.rows; ++row)
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t start = r.columns * part / parts, stop = r.columns * (part + 1) / parts;
      const T* x = r.x + row * r.x_row + start * r.x_pixel;
      T* y = r.y + row * r.y_row + start * r.y_pixel + first;
      ConvolvePixels<T, kPixels, V>(r, x, k, y, stop - start, width);
    }
}

template <typename T>
void Convolve(const Region<T>& r) {
  constexpr int64_t L = Vector<T>::kLanes;
  const T* k = r.k;
  for (int64_t first = 0; first < r.channels;) {
    const int64_t left = r.channels - first, vectors = BlockVectors((left + L - 1) / L);
    const int64_t width = left < vectors * L ? left : vectors * L;
    if (vectors == 1) ConvolveBlock<T, 1>(r, k, first, width);
    if (vectors == 2) ConvolveBlock<T, 2>(r, k, first, width);
    if (vectors == 3) ConvolveBlock<T, 3>(r, k, first, width);
    k += r.segments * r.length * vectors * L;
    first += width;
  }
}

// C values of a segment by V vectors of output channels: dk = or += sum over pixels of x * dy.
template <typename T, int C, int V>
void KernelTile(const Region<T>& r, const T* x, const T* dy, T* dk) {
  constexpr int L = Vector<T>::kLanes;
  typename Vector<T>::Type sums[C][V];
#pragma GCC unroll 16
  for (int c = 0; c < C; ++c)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      sums[c][v] = r.add ? Load(dk + c * r.channels + L * v) : typename Vector<T>::Type{};
  for (int64_t row = 0; row < r.rows; ++row) {
    const T* x_pixel = x + row * r.x_row;
    const T* dy_pixel = dy + row * r.y_row;
    for (int64_t column = 0; column < r.columns; ++column) {
      typename Vector<T>::Type values[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) values[v] = Load(dy_pixel + L * v);
#pragma GCC unroll 16
      for (int c = 0; c < C; ++c) {
        const T value = x_pixel[c];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sums[c][v] += value * values[v];
      }
      x_pixel += r.x_pixel;
      dy_pixel += r.y_pixel;
    }
  }
#pragma GCC unroll 16
  for (int c = 0; c < C; ++c)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) Store(dk + c * r.channels + L * v, sums[c][v]);
}

template <typename T, int C, int V>
void KernelValues(const Region<T>& r, const T* x, const T* dy, T* dk, int64_t values) {
  if constexpr (C > 1) {
    if (values < C) return KernelValues<T, C - 1, V>(r, x, dy, dk, values);
  }
  KernelTile<T, C, V>(r, x, dy, dk);
}

template <typename T, int V>
void KernelBlock(const Region<T>& r, int64_t first, int64_t from, int64_t to) {
  constexpr int kValues = Tile<V>::kRows;
  const int64_t parts = (r.length + kValues - 1) / kValues;
  for (int64_t tile = from; tile < to; ++tile) {
    const int64_t segment = tile / parts, part = tile % parts;
    const int64_t start = r.length * part / parts, stop = r.length * (part + 1) / parts;
    const T* x = r.x + segment * r.x_segment + start;
    T* dk = r.y + (segment * r.length + start) * r.channels + first;
    KernelValues<T, kValues, V>(r, x, r.k + first, dk, stop - start);
  }
}

// Part `part` of `parts` of the kernel gradient of a region.
template <typename T>
void KernelGradient(const Region<T>& r, int64_t part, int64_t parts) {
  constexpr int64_t L = Vector<T>::kLanes;
  for (int64_t first = 0; first < r.channels;) {
    const int64_t vectors = BlockVectors((r.channels - first) / L);
    const int64_t values = vectors == 1   ? Tile<1>::kRows
                           : vectors == 2 ? Tile<2>::kRows
                                          : Tile<3>::kRows;
    const int64_t tiles = r.segments * ((r.length + values - 1) / values);
    const int64_t from = tiles * part / parts, to = tiles * (part + 1) / parts;
    if (vectors == 1) KernelBlock<T, 1>(r, first, from, to);
    if (vectors == 2) KernelBlock<T, 2>(r, first, from, to);
    if (vectors == 3) KernelBlock<T, 3>(r, first, from, to);
    first += vectors * L;
  }
}

}  // namespace
