// The inner loops of BatchNorm with an optional ReLU, for one instruction set. See kernels.h.
//
// Arrays are (rows, width) with a width that is a multiple of the lanes; what belongs to a channel
// is repeated along the width. With xhat = (x - mean) * inv, the result is scale * xhat + bias, or
// zero where that is not positive.

namespace {

template <typename T>
struct Channels {
  typename Vector<T>::Type mean, inv, scale, bias;

  Channels(const Norm<T>& n, int64_t c)
      : mean(Load(n.mean + c)), inv(Load(n.inv + c)), scale(Load(n.scale + c)), bias(Load(n.bias + c)) {}
  typename Vector<T>::Type Standardized(const T* x) const { return (Load(x) - mean) * inv; }
  typename Vector<T>::Type Result(typename Vector<T>::Type xhat) const { return xhat * scale + bias; }
  // t, or zero where the ReLU is off. What is not a number stays so.
  typename Vector<T>::Type Masked(typename Vector<T>::Type xhat, typename Vector<T>::Type t) const {
    return Result(xhat) <= T(0) ? typename Vector<T>::Type{} : t;
  }
};

// Mean and sum of squared deviations of each column.
template <typename T>
void Moments(const T* x, int64_t rows, int64_t width, T* mean, T* squares) {
  constexpr int L = Vector<T>::kLanes;
  typedef typename Vector<T>::Type V;
  for (int64_t c = 0; c < width; c += L) {
    V sum[4] = {};
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4)
      for (int i = 0; i < 4; ++i) sum[i] += Load(x + (r + i) * width + c);
    for (; r < rows; ++r) sum[0] += Load(x + r * width + c);
    const V average = ((sum[0] + sum[1]) + (sum[2] + sum[3])) / T(rows);
    V square[4] = {};
    for (r = 0; r + 4 <= rows; r += 4)
      for (int i = 0; i < 4; ++i) {
        const V deviation = Load(x + (r + i) * width + c) - average;
        square[i] += deviation * deviation;
      }
    for (; r < rows; ++r) {
      const V deviation = Load(x + r * width + c) - average;
      square[0] += deviation * deviation;
    }
    Store(mean + c, average);
    Store(squares + c, (square[0] + square[1]) + (square[2] + square[3]));
  }
}

template <typename T, bool kRelu>
void Apply(const Norm<T>& n, const T* x, int64_t rows, int64_t width, T* y) {
  constexpr int L = Vector<T>::kLanes;
  for (int64_t c = 0; c < width; c += L) {
    const Channels<T> channels(n, c);
    for (int64_t r = 0; r < rows; ++r) {
      const auto xhat = channels.Standardized(x + r * width + c);
      const auto result = channels.Result(xhat);
      Store(y + r * width + c, kRelu ? channels.Masked(xhat, result) : result);
    }
  }
}

// Sums of t and of t * xhat over each column, t masked or not.
template <typename T, bool kMask>
void Sums(const Norm<T>& n, const T* x, const T* t, int64_t rows, int64_t width, T* sum, T* product) {
  constexpr int L = Vector<T>::kLanes;
  typedef typename Vector<T>::Type V;
  for (int64_t c = 0; c < width; c += L) {
    const Channels<T> channels(n, c);
    V sums[2] = {}, products[2] = {};
    const auto add = [&](int64_t r, int i) {
      const V xhat = channels.Standardized(x + r * width + c);
      V value = Load(t + r * width + c);
      if (kMask) value = channels.Masked(xhat, value);
      sums[i] += value;
      products[i] += value * xhat;
    };
    int64_t r = 0;
    for (; r + 2 <= rows; r += 2) {
      add(r, 0);
      add(r + 1, 1);
    }
    if (r < rows) add(r, 0);
    Store(sum + c, sums[0] + sums[1]);
    Store(product + c, products[0] + products[1]);
  }
}

// mul * t + a + b * xhat, t or the whole masked or not.
template <typename T, int kMask>
void Combine(const Norm<T>& n, const T* x, const T* t, int64_t rows, int64_t width, const T* mul,
             const T* a, const T* b, T* out) {
  constexpr int L = Vector<T>::kLanes;
  typedef typename Vector<T>::Type V;
  for (int64_t c = 0; c < width; c += L) {
    const Channels<T> channels(n, c);
    const V factor = Load(mul + c), offset = Load(a + c), slope = Load(b + c);
    for (int64_t r = 0; r < rows; ++r) {
      const V xhat = channels.Standardized(x + r * width + c);
      V value = Load(t + r * width + c);
      if (kMask == kMaskInput) value = channels.Masked(xhat, value);
      value = factor * value + (offset + slope * xhat);
      if (kMask == kMaskOutput) value = channels.Masked(xhat, value);
      Store(out + r * width + c, value);
    }
  }
}

template <typename T>
void ApplyNorm(const Norm<T>& n, bool relu, const T* x, int64_t rows, int64_t width, T* y) {
  (relu ? Apply<T, true> : Apply<T, false>)(n, x, rows, width, y);
}

template <typename T>
void SumsNorm(const Norm<T>& n, bool mask, const T* x, const T* t, int64_t rows, int64_t width,
              T* sum, T* product) {
  (mask ? Sums<T, true> : Sums<T, false>)(n, x, t, rows, width, sum, product);
}

template <typename T>
void CombineNorm(const Norm<T>& n, int mask, const T* x, const T* t, int64_t rows, int64_t width,
                 const T* mul, const T* a, const T* b, T* out) {
  (mask == kMaskInput    ? Combine<T, kMaskInput>
   : mask == kMaskOutput ? Combine<T, kMaskOutput>
                         : Combine<T, kMaskNothing>)(n, x, t, rows, width, mul, a, b, out);
}

template <typename T>
constexpr Table<T> kTable = {Vector<T>::kLanes, Convolve<T>,  KernelGradient<T>, Moments<T>,
                             ApplyNorm<T>,      SumsNorm<T>, CombineNorm<T>};

}  // namespace
