// BatchNorm of a batch by its own moments, with an optional ReLU, and its derivative in both
// directions, as custom calls of XLA.
//
// Arrays are (members, rows, channels) and (members, channels), float or double, dense. The
// attribute `settings` holds epsilon and 1 for a ReLU or 0. Sums are taken over pieces whose number
// depends on the sizes alone, so results are the same on every number of cores.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "dispatch.h"
#include "parallel.h"

namespace jaxood {
namespace {

// Rows of c channels, seen as rows of `fold` times as many, so that these fill whole vectors.
// The last `rest` rows do not fill one.
struct Fold {
  int64_t rows, c, fold, width, wide_rows, rest, piece, pieces;

  Fold(int64_t rows, int64_t c, int64_t lanes) : rows(rows), c(c) {
    fold = lanes / std::gcd(lanes, c);
    width = fold * c;
    wide_rows = rows / fold;
    rest = rows % fold;
    piece = std::max<int64_t>(8, 8192 / width);
    pieces = (wide_rows + piece - 1) / piece;
  }
  int64_t count(int64_t i) const { return std::min(piece, wide_rows - i * piece); }
  int64_t offset(int64_t i) const { return i * piece * width; }
};

// A value for each channel, repeated along the width.
template <typename T, typename Value>
std::vector<T> Wide(const Fold& f, Value value) {
  std::vector<T> wide(f.width);
  for (int64_t i = 0; i < f.width; ++i) wide[i] = T(value(i % f.c));
  return wide;
}

// The last rows in a buffer of one whole width, filled up with zeros.
template <typename T>
std::vector<T> Rest(const Fold& f, const T* x) {
  std::vector<T> rest(f.width);
  std::copy_n(x + f.wide_rows * f.width, f.rest * f.c, rest.data());
  return rest;
}

template <typename T>
struct Columns {
  std::vector<T> mean, inv, scale, bias;

  Columns(const Fold& f, const T* mean_of, const T* var, const T* scale_of, const T* bias_of,
          double epsilon)
      : mean(Wide<T>(f, [&](int64_t c) { return mean_of[c]; })),
        inv(Wide<T>(f, [&](int64_t c) { return 1 / std::sqrt(double(var[c]) + epsilon); })),
        scale(Wide<T>(f, [&](int64_t c) { return scale_of[c]; })),
        bias(Wide<T>(f, [&](int64_t c) { return bias_of[c]; })) {}
  Norm<T> norm() const { return {mean.data(), inv.data(), scale.data(), bias.data()}; }
};

template <typename T>
void Moments(const Pool& pool, const Fold& f, const T* x, T* mean, T* var) {
  std::vector<T> means(f.pieces * f.width), squares(f.pieces * f.width);
  pool.Run(f.pieces, [&](int64_t i) {
    Functions<T>().moments(x + f.offset(i), f.count(i), f.width, means.data() + i * f.width,
                           squares.data() + i * f.width);
  });
  for (int64_t c = 0; c < f.c; ++c) {
    double sum = 0, square = 0;
    for (int64_t i = 0; i < f.pieces; ++i)
      for (int64_t j = c; j < f.width; j += f.c) sum += double(f.count(i)) * means[i * f.width + j];
    for (int64_t r = f.rows - f.rest; r < f.rows; ++r) sum += x[r * f.c + c];
    const double average = sum / f.rows;
    for (int64_t i = 0; i < f.pieces; ++i)
      for (int64_t j = c; j < f.width; j += f.c) {
        const double apart = means[i * f.width + j] - average;
        square += squares[i * f.width + j] + f.count(i) * apart * apart;
      }
    for (int64_t r = f.rows - f.rest; r < f.rows; ++r)
      square += (x[r * f.c + c] - average) * (x[r * f.c + c] - average);
    mean[c] = T(average);
    var[c] = T(square / f.rows);
  }
}

template <typename T>
void Apply(const Pool& pool, const Fold& f, const Columns<T>& columns, bool relu, const T* x, T* y) {
  pool.Run(f.pieces, [&](int64_t i) {
    Functions<T>().apply(columns.norm(), relu, x + f.offset(i), f.count(i), f.width,
                         y + f.offset(i));
  });
  if (f.rest == 0) return;
  const auto rest = Rest(f, x);
  std::vector<T> result(f.width);
  Functions<T>().apply(columns.norm(), relu, rest.data(), 1, f.width, result.data());
  std::copy_n(result.data(), f.rest * f.c, y + f.wide_rows * f.width);
}

// Sums of t and of t * xhat for each channel.
template <typename T>
void Sums(const Pool& pool, const Fold& f, const Columns<T>& columns, bool mask, const T* x,
          const T* t, std::vector<double>& sum, std::vector<double>& product) {
  const int64_t more = f.pieces + 1;
  std::vector<T> sums(more * f.width), products(more * f.width);
  pool.Run(f.pieces, [&](int64_t i) {
    Functions<T>().sums(columns.norm(), mask, x + f.offset(i), t + f.offset(i), f.count(i), f.width,
                        sums.data() + i * f.width, products.data() + i * f.width);
  });
  if (f.rest > 0) {  // Where there is no row, t is zero.
    const auto x_rest = Rest(f, x), t_rest = Rest(f, t);
    Functions<T>().sums(columns.norm(), mask, x_rest.data(), t_rest.data(), 1, f.width,
                        sums.data() + f.pieces * f.width, products.data() + f.pieces * f.width);
  }
  sum.assign(f.c, 0);
  product.assign(f.c, 0);
  for (int64_t i = 0; i < more; ++i)
    for (int64_t j = 0; j < f.width; ++j) {
      sum[j % f.c] += sums[i * f.width + j];
      product[j % f.c] += products[i * f.width + j];
    }
}

template <typename T>
void Combine(const Pool& pool, const Fold& f, const Columns<T>& columns, int mask, const T* x,
             const T* t, const std::vector<T>& mul, const std::vector<T>& a,
             const std::vector<T>& b, T* out) {
  pool.Run(f.pieces, [&](int64_t i) {
    Functions<T>().combine(columns.norm(), mask, x + f.offset(i), t + f.offset(i), f.count(i),
                           f.width, mul.data(), a.data(), b.data(), out + f.offset(i));
  });
  if (f.rest == 0) return;
  const auto x_rest = Rest(f, x), t_rest = Rest(f, t);
  std::vector<T> result(f.width);
  Functions<T>().combine(columns.norm(), mask, x_rest.data(), t_rest.data(), 1, f.width, mul.data(),
                         a.data(), b.data(), result.data());
  std::copy_n(result.data(), f.rest * f.c, out + f.wide_rows * f.width);
}

template <typename T>
void Forward(const Call& call) {
  const int64_t *dims = call.dims(0), rows = dims[1], c = dims[2];
  const bool relu = call.attribute<double>()[1] != 0;
  const Fold f(rows, c, Functions<T>().lanes);
  for (int64_t m = 0; m < dims[0]; ++m) {
    const T* x = call.in<T>(0) + m * rows * c;
    T *mean = call.out<T>(1) + m * c, *var = call.out<T>(2) + m * c;
    Moments(call.pool, f, x, mean, var);
    const Columns<T> columns(f, mean, var, call.in<T>(1) + m * c, call.in<T>(2) + m * c,
                             call.attribute<double>()[0]);
    Apply(call.pool, f, columns, relu, x, call.out<T>(0) + m * rows * c);
  }
}

// The derivative is linear in (x', scale', bias') and, the other way, in the result's gradient t.
// Either way the sums of t and t * xhat are taken off: the map of x' is its own adjoint.
template <typename T, bool kForward>
void Derivative(const Call& call) {
  const int64_t *dims = call.dims(0), rows = dims[1], c = dims[2];
  const bool relu = call.attribute<double>()[1] != 0;
  const double epsilon = call.attribute<double>()[0];
  const Fold f(rows, c, Functions<T>().lanes);
  std::vector<double> sum, product;
  for (int64_t m = 0; m < dims[0]; ++m) {
    const auto of = [&](int i) { return call.in<T>(i) + m * c; };
    const T *x = call.in<T>(0) + m * rows * c, *t = call.in<T>(5) + m * rows * c;
    const Columns<T> columns(f, of(1), of(2), of(3), of(4), epsilon);
    Sums(call.pool, f, columns, relu && !kForward, x, t, sum, product);
    const auto mul = Wide<T>(f, [&](int64_t i) { return columns.scale[i] * columns.inv[i]; });
    const auto a = Wide<T>(f, [&](int64_t i) {
      return -double(mul[i]) * sum[i] / rows + (kForward ? of(7)[i] : T(0));
    });
    const auto b = Wide<T>(f, [&](int64_t i) {
      return -double(mul[i]) * product[i] / rows + (kForward ? of(6)[i] : T(0));
    });
    const int mask = !relu ? kMaskNothing : kForward ? kMaskOutput : kMaskInput;
    Combine(call.pool, f, columns, mask, x, t, mul, a, b, call.out<T>(0) + m * rows * c);
    if (kForward) continue;
    std::copy(product.begin(), product.end(), call.out<T>(1) + m * c);
    std::copy(sum.begin(), sum.end(), call.out<T>(2) + m * c);
  }
}

}  // namespace
}  // namespace jaxood

JAXOOD_HANDLER(jaxood_batch_norm, 3, 3, 2, jaxood::Forward<float>, jaxood::Forward<double>)
JAXOOD_HANDLER(jaxood_batch_norm_tangent, 8, 1, 2, (jaxood::Derivative<float, true>),
               (jaxood::Derivative<double, true>))
JAXOOD_HANDLER(jaxood_batch_norm_cotangent, 6, 3, 2, (jaxood::Derivative<float, false>),
               (jaxood::Derivative<double, false>))
