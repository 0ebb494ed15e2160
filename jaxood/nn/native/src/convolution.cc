// A convolution, its input gradient and its kernel gradient as custom calls of XLA.
//
// Arrays are (members, n, h, w, c) and (members, kh, kw, c_in, c_out), float or double, dense. The
// attribute `geometry` is {row stride, column stride, rows of zeros above, columns to the left}. No
// sum depends on the number of threads, so results are the same on every number of cores.

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "dispatch.h"
#include "parallel.h"

namespace jaxood {
namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }

// The sizes of a convolution x * k = y.
struct Sizes {
  int64_t members, n, h, w, c_in, kh, kw, c_out, rows, columns, sh, sw, top, left;

  int64_t x_size() const { return h * w * c_in; }
  int64_t y_size() const { return rows * columns * c_out; }
  int64_t kernel_size() const { return kh * kw * c_in * c_out; }
  // Whether no window leaves its image.
  bool inside() const {
    return top == 0 && left == 0 && (rows - 1) * sh + kh <= h && (columns - 1) * sw + kw <= w;
  }
  bool product() const { return kh == 1 && kw == 1 && sh == 1 && sw == 1 && inside(); }
};

// Part of an image with zeros around it.
template <typename T>
struct View {
  const T* data;
  int64_t row;
};

// Rows and columns `top` above and `left` of an image's first, `high` by `wide`: where the image
// does not hold them all, a copy in `space`.
template <typename T>
View<T> Window(const T* image, int64_t h, int64_t w, int64_t c, int64_t top, int64_t left,
               int64_t high, int64_t wide, std::vector<T>& space) {
  if (top <= 0 && left <= 0 && high - top <= h && wide - left <= w)
    return {image + (-top * w - left) * c, w * c};
  space.resize(std::max<size_t>(space.size(), high * wide * c));
  const int64_t start = std::clamp<int64_t>(left, 0, wide);
  const int64_t stop = std::clamp<int64_t>(left + w, start, wide);
  for (int64_t r = 0; r < high; ++r) {
    T* row = space.data() + r * wide * c;
    const int64_t source = r - top;
    if (source < 0 || source >= h || start == stop) {
      std::fill_n(row, wide * c, T(0));
      continue;
    }
    std::fill_n(row, start * c, T(0));
    std::copy_n(image + (source * w + start - left) * c, (stop - start) * c, row + start * c);
    std::fill_n(row + stop * c, (wide - stop) * c, T(0));
  }
  return {space.data(), wide * c};
}

template <typename T>
std::vector<T>& Space() {
  static thread_local std::vector<T> space;
  return space;
}

template <typename T>
std::vector<T>& MoreSpace() {
  static thread_local std::vector<T> space;
  return space;
}

// Numbers that start a cache line, so that no vector lies on two.
template <typename T>
struct Aligned {
  struct Free {
    void operator()(T* p) const { ::operator delete[](p, std::align_val_t(64)); }
  };
  std::unique_ptr<T[], Free> data;

  explicit Aligned(int64_t size)
      : data(size ? static_cast<T*>(::operator new[](size * sizeof(T), std::align_val_t(64)))
                  : nullptr) {}
  T* get() const { return data.get(); }
};

// Packs a matrix whose row r is given by `row(r)`, a pointer and the distance of its columns, in
// the blocks that Table<T>::convolve takes.
template <typename T, typename Row>
Aligned<T> Pack(const Pool& pool, int64_t rows, int64_t columns, Row row) {
  const int64_t lanes = Functions<T>().lanes;
  Aligned<T> packed(rows * CeilDiv(columns, lanes) * lanes);
  const int64_t tasks = std::clamp<int64_t>(rows * columns / 32768, 1, rows);
  pool.Run(tasks, [&, lanes](int64_t task) {
    T* block = packed.get();
    for (int64_t first = 0; first < columns;) {
      const int64_t width = BlockVectors(CeilDiv(columns - first, lanes)) * lanes;
      const int64_t filled = std::min(width, columns - first);
      for (int64_t r = rows * task / tasks; r < rows * (task + 1) / tasks; ++r) {
        const auto [from, step] = row(r);
        T* to = block + r * width;
        for (int64_t c = 0; c < filled; ++c) to[c] = from[(first + c) * step];
        std::fill_n(to + filled, width - filled, T(0));
      }
      block += rows * width;
      first += filled;
    }
  });
  return packed;
}

template <typename T>
struct Strided {
  const T* from;
  int64_t step;
};

// How many tasks the rows of an image are divided into, so that all threads have some.
int64_t RowChunks(const Pool& pool, int64_t images, int64_t rows) {
  const int64_t wanted = pool.threads() == 1 ? 1 : CeilDiv(4 * pool.threads(), images);
  return std::clamp<int64_t>(wanted, 1, std::max<int64_t>(1, rows));
}

// Pixels that all have one run of numbers: a matrix product (pixels, length) by (length, channels).
template <typename T>
void Product(const Pool& pool, const T* x, int64_t x_pixel, const T* packed, T* y, int64_t pixels,
             int64_t segments, int64_t x_segment, int64_t length, int64_t channels) {
  const int64_t tasks = std::clamp<int64_t>(pixels / 128, 1, 16 * pool.threads());
  pool.Run(tasks, [&](int64_t task) {
    const int64_t start = pixels * task / tasks, stop = pixels * (task + 1) / tasks;
    Functions<T>().convolve({x + start * x_pixel, 0, x_pixel, segments, x_segment, length, packed,
                             y + start * channels, 0, channels, 1, stop - start, channels, false});
  });
}

template <typename T>
void Convolve(const Pool& pool, const Sizes& s, const T* x, const T* k, T* y) {
  for (int64_t m = 0; m < s.members; ++m) {
    const T* kernel = k + m * s.kernel_size();
    const T* images = x + m * s.n * s.x_size();
    T* results = y + m * s.n * s.y_size();
    auto packed = Pack<T>(pool, s.kh * s.kw * s.c_in, s.c_out, [&](int64_t r) {
      return Strided<T>{kernel + r * s.c_out, 1};
    });
    if (s.product()) {
      Product(pool, images, s.c_in, packed.get(), results, s.n * s.h * s.w, 1, 0, s.c_in, s.c_out);
      continue;
    }
    if (s.rows == 1 && s.columns == 1 && s.inside()) {
      Product(pool, images, s.x_size(), packed.get(), results, s.n, s.kh, s.w * s.c_in,
              s.kw * s.c_in, s.c_out);
      continue;
    }
    const int64_t chunks = RowChunks(pool, s.n, s.rows);
    pool.Run(s.n * chunks, [&, chunks](int64_t task) {
      const int64_t image = task / chunks, chunk = task % chunks;
      const int64_t start = s.rows * chunk / chunks, stop = s.rows * (chunk + 1) / chunks;
      const auto window =
          Window(images + image * s.x_size(), s.h, s.w, s.c_in, s.top - start * s.sh, s.left,
                 (stop - start - 1) * s.sh + s.kh, (s.columns - 1) * s.sw + s.kw, Space<T>());
      T* result = results + (image * s.rows + start) * s.columns * s.c_out;
      Functions<T>().convolve({window.data, s.sh * window.row, s.sw * s.c_in, s.kh, window.row,
                               s.kw * s.c_in, packed.get(), result, s.columns * s.c_out, s.c_out,
                               stop - start, s.columns, s.c_out, false});
    });
  }
}

// The input pixels that a stride s meets with taps a, a + s, ... along one axis: pixels
// s q + a - low for q in [first, first + count). Pixel q sums `taps` results up to q.
struct Phase {
  int64_t a, taps, first, count;
};

std::vector<Phase> Phases(int64_t size, int64_t kernel, int64_t stride, int64_t low) {
  std::vector<Phase> phases;
  for (int64_t a = 0; a < stride; ++a) {
    const int64_t first = CeilDiv(low - a, stride), stop = CeilDiv(size + low - a, stride);
    if (stop > first) phases.push_back({a, CeilDiv(kernel - a, stride), first, stop - first});
  }
  return phases;
}

template <typename T>
void InputGradient(const Pool& pool, const Sizes& s, const T* dy, const T* k, T* dx) {
  const auto down = Phases(s.h, s.kh, s.sh, s.top), across = Phases(s.w, s.kw, s.sw, s.left);
  for (int64_t m = 0; m < s.members; ++m) {
    const T* kernel = k + m * s.kernel_size();
    const T* gradients = dy + m * s.n * s.y_size();
    T* results = dx + m * s.n * s.x_size();
    for (const Phase& p : down)
      for (const Phase& q : across) {
        if (p.taps <= 0 || q.taps <= 0) {  // No window reaches these pixels.
          for (int64_t image = 0; image < s.n; ++image)
            for (int64_t r = 0; r < p.count; ++r)
              for (int64_t c = 0; c < q.count; ++c) {
                const int64_t row = s.sh * (p.first + r) + p.a - s.top;
                const int64_t column = s.sw * (q.first + c) + q.a - s.left;
                T* pixel = results + ((image * s.h + row) * s.w + column) * s.c_in;
                std::fill_n(pixel, s.c_in, T(0));
              }
          continue;
        }
        auto packed = Pack<T>(pool, p.taps * q.taps * s.c_out, s.c_in, [&](int64_t r) {
          const int64_t o = r % s.c_out, u = r / s.c_out % q.taps, t = r / s.c_out / q.taps;
          const int64_t i = p.a + s.sh * (p.taps - 1 - t), j = q.a + s.sw * (q.taps - 1 - u);
          return Strided<T>{kernel + (i * s.kw + j) * s.c_in * s.c_out + o, s.c_out};
        });
        if (s.product()) {
          Product(pool, gradients, s.c_out, packed.get(), results, s.n * s.h * s.w, 1, 0, s.c_out,
                  s.c_in);
          continue;
        }
        const int64_t chunks = RowChunks(pool, s.n, p.count);
        pool.Run(s.n * chunks, [&, chunks](int64_t task) {
          const int64_t image = task / chunks, chunk = task % chunks;
          const int64_t start = p.count * chunk / chunks, stop = p.count * (chunk + 1) / chunks;
          const auto window =
              Window(gradients + image * s.y_size(), s.rows, s.columns, s.c_out,
                     p.taps - 1 - p.first - start, q.taps - 1 - q.first,
                     stop - start + p.taps - 1, q.count + q.taps - 1, Space<T>());
          const int64_t row = s.sh * (p.first + start) + p.a - s.top;
          const int64_t column = s.sw * q.first + q.a - s.left;
          T* result = results + ((image * s.h + row) * s.w + column) * s.c_in;
          Functions<T>().convolve({window.data, window.row, s.c_out, p.taps, window.row,
                                   q.taps * s.c_out, packed.get(), result, s.sh * s.w * s.c_in,
                                   s.sw * s.c_in, stop - start, q.count, s.c_in, false});
        });
      }
  }
}

// Images are summed in this many groups, whatever the number of threads.
constexpr int64_t kGroups = 4;

// Pixels of a matrix product that are summed together, few enough for the caches.
constexpr int64_t kPixels = 512;

template <typename T>
void KernelGradient(const Pool& pool, const Sizes& given, const T* x, const T* dy, T* dk) {
  Sizes s = given;
  if (s.product()) {
    // All pixels are one long row, cut in pieces; the last may be shorter.
    s.columns = s.w = std::min(kPixels, s.n * s.h * s.w);
    s.n = CeilDiv(given.n * given.h * given.w, s.w);
    s.h = s.rows = 1;
  }
  const int64_t pixels = given.n * given.rows * given.columns;
  if (pixels == 0) {
    std::fill_n(dk, given.members * given.kernel_size(), T(0));
    return;
  }
  const int64_t lanes = Functions<T>().lanes, width = CeilDiv(s.c_out, lanes) * lanes;
  const int64_t length = s.kw * s.c_in, size = s.kh * length * width;
  const int64_t groups = std::clamp<int64_t>(s.n, 1, kGroups);
  const int64_t parts = CeilDiv(pool.threads(), groups);
  const bool direct = groups == 1 && width == s.c_out;
  const Aligned<T> space(direct ? 0 : groups * size);
  for (int64_t m = 0; m < s.members; ++m) {
    const T* images = x + m * given.n * given.x_size();
    const T* gradients = dy + m * pixels * s.c_out;
    T* result = dk + m * given.kernel_size();
    T* sums = direct ? result : space.get();
    pool.Run(groups * parts, [&, groups, parts, width, length](int64_t task) {
      const int64_t group = task / parts, part = task % parts;
      const int64_t start = s.n * group / groups, stop = s.n * (group + 1) / groups;
      for (int64_t image = start; image < stop; ++image) {
        const int64_t columns = std::min(s.columns, pixels - image * s.rows * s.columns);
        const auto window =
            Window(images + image * s.x_size(), s.h, s.w, s.c_in, s.top, s.left,
                   (s.rows - 1) * s.sh + s.kh, (columns - 1) * s.sw + s.kw, Space<T>());
        const T* gradient = gradients + image * s.y_size();
        if (width != s.c_out) {  // Whole vectors for every pixel.
          auto& whole = MoreSpace<T>();
          whole.resize(std::max<size_t>(whole.size(), s.rows * columns * width));
          for (int64_t p = 0; p < s.rows * columns; ++p) {
            std::copy_n(gradient + p * s.c_out, s.c_out, whole.data() + p * width);
            std::fill_n(whole.data() + p * width + s.c_out, width - s.c_out, T(0));
          }
          gradient = whole.data();
        }
        Functions<T>().kernel_gradient(
            {window.data, s.sh * window.row, s.sw * s.c_in, s.kh, window.row, length, gradient,
             sums + group * size, columns * width, width, s.rows, columns, width, image > start},
            part, parts);
      }
    });
    if (direct) continue;
    const int64_t rows = s.kh * length;
    const int64_t tasks = std::clamp<int64_t>(size / 32768, 1, rows);
    pool.Run(tasks, [&, tasks, rows, size](int64_t task) {
      for (int64_t r = rows * task / tasks; r < rows * (task + 1) / tasks; ++r)
        for (int64_t c = 0; c < s.c_out; ++c) {
          T sum = sums[r * width + c];
          for (int64_t g = 1; g < groups; ++g) sum += sums[g * size + r * width + c];
          result[r * s.c_out + c] = sum;
        }
    });
  }
}

// The sizes follow from the arrays x, k and y, each an argument or the result.
Sizes SizesOf(const Call& call, const int64_t* x, const int64_t* k, const int64_t* y) {
  const int64_t* g = call.attribute<int64_t>();
  return {x[0], x[1], x[2], x[3], x[4], k[1], k[2], k[4], y[2], y[3], g[0], g[1], g[2], g[3]};
}

template <typename T>
void CallConvolve(const Call& call) {
  const Sizes sizes = SizesOf(call, call.dims(0), call.dims(1), call.result_dims(0));
  Convolve(call.pool, sizes, call.in<T>(0), call.in<T>(1), call.out<T>(0));
}

template <typename T>
void CallInputGradient(const Call& call) {
  const Sizes sizes = SizesOf(call, call.result_dims(0), call.dims(1), call.dims(0));
  InputGradient(call.pool, sizes, call.in<T>(0), call.in<T>(1), call.out<T>(0));
}

template <typename T>
void CallKernelGradient(const Call& call) {
  const Sizes sizes = SizesOf(call, call.dims(0), call.result_dims(0), call.dims(1));
  KernelGradient(call.pool, sizes, call.in<T>(0), call.in<T>(1), call.out<T>(0));
}

}  // namespace
}  // namespace jaxood

JAXOOD_HANDLER(jaxood_convolve, 2, 1, 4, jaxood::CallConvolve<float>, jaxood::CallConvolve<double>)
JAXOOD_HANDLER(jaxood_input_gradient, 2, 1, 4, jaxood::CallInputGradient<float>,
               jaxood::CallInputGradient<double>)
JAXOOD_HANDLER(jaxood_kernel_gradient, 2, 1, 4, jaxood::CallKernelGradient<float>,
               jaxood::CallKernelGradient<double>)
