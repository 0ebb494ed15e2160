// What the inner loops of every instruction set take and offer.
#ifndef JAXOOD_TABLES_H_
#define JAXOOD_TABLES_H_

#include <stdint.h>

// A rectangle of output pixels and what is summed at each: `segments` runs of `length` neighbouring
// numbers of x. For images with channels last, a run is one row of the kernel.
template <typename T>
struct Region {
  const T* x;          // first number of the first run of the first pixel
  int64_t x_row;       // from an output row to the next
  int64_t x_pixel;     // from an output pixel to the next
  int64_t segments;
  int64_t x_segment;
  int64_t length;
  const T* k;          // packed kernel; of a kernel gradient, the result's gradient
  T* y;                // result; of a kernel gradient, (segments * length, channels)
  int64_t y_row;
  int64_t y_pixel;
  int64_t rows;
  int64_t columns;
  int64_t channels;    // of a kernel gradient, a multiple of the lanes
  bool add;            // of a kernel gradient, whether to add to what the result holds
};

// Output channels are computed in blocks of one to three vectors. The packed kernel holds them in
// the same order, each block (segments * length, vectors * lanes), filled up with zeros.
constexpr int64_t BlockVectors(int64_t left) {
  return left == 4 ? 2 : left > 3 ? 3 : left;
}

// What BatchNorm does to each column, see norm.h.
template <typename T>
struct Norm {
  const T *mean, *inv, *scale, *bias;
};

enum Mask { kMaskNothing, kMaskInput, kMaskOutput };

template <typename T>
struct Table {
  int64_t lanes;
  void (*convolve)(const Region<T>&);
  void (*kernel_gradient)(const Region<T>&, int64_t part, int64_t parts);
  void (*moments)(const T* x, int64_t rows, int64_t width, T* mean, T* squares);
  void (*apply)(const Norm<T>&, bool relu, const T* x, int64_t rows, int64_t width, T* y);
  void (*sums)(const Norm<T>&, bool mask, const T* x, const T* t, int64_t rows, int64_t width,
               T* sum, T* product);
  void (*combine)(const Norm<T>&, int mask, const T* x, const T* t, int64_t rows, int64_t width,
                  const T* mul, const T* a, const T* b, T* out);
};

struct Kernels {
  const char* name;
  Table<float> f32;
  Table<double> f64;
};

extern const Kernels kBase;
#if defined(__x86_64__)
extern const Kernels kAvx2, kAvx512;
#endif

#endif  // JAXOOD_TABLES_H_
