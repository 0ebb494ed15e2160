// From a call of XLA to a function of the right type and instructions.
#ifndef JAXOOD_DISPATCH_H_
#define JAXOOD_DISPATCH_H_

#include "parallel.h"
#include "tables.h"
#include "xla.h"

namespace jaxood {

// The fastest kernels that this processor runs.
const Kernels& Chosen();

template <typename T>
const Table<T>& Functions();
template <>
inline const Table<float>& Functions<float>() {
  return Chosen().f32;
}
template <>
inline const Table<double>& Functions<double>() {
  return Chosen().f64;
}

// The arrays and the one attribute of a call.
struct Call {
  const xla_ffi::CallFrame* frame;
  Pool pool;

  const int64_t* dims(int i) const { return frame->arguments.buffers[i]->dims; }
  const int64_t* result_dims(int i) const { return frame->results.buffers[i]->dims; }
  template <typename T>
  const T* in(int i) const {
    return static_cast<const T*>(frame->arguments.buffers[i]->data);
  }
  template <typename T>
  T* out(int i) const {
    return static_cast<T*>(frame->results.buffers[i]->data);
  }
  template <typename T>
  const T* attribute() const {
    return static_cast<const T*>(frame->attributes.arrays[0]->data);
  }
};

// Answers XLA's question for the version, checks the numbers of arrays and their type, and calls
// the function of that type.
xla_ffi::Error* Handle(xla_ffi::CallFrame* frame, int64_t arguments, int64_t results,
                       size_t attributes, void (*f32)(const Call&), void (*f64)(const Call&));

}  // namespace jaxood

#define JAXOOD_HANDLER(name, arguments, results, attributes, f32, f64)                    \
  extern "C" __attribute__((visibility("default"))) xla_ffi::Error* name(                 \
      xla_ffi::CallFrame* frame) {                                                        \
    return jaxood::Handle(frame, arguments, results, attributes, f32, f64);               \
  }

#endif  // JAXOOD_DISPATCH_H_
