#include "dispatch.h"

#include <cstdlib>
#include <cstring>

namespace jaxood {

namespace {

const Kernels& Choose() {
  // AVX2 or portable vectors on a processor that has more, for tests.
  const char* wanted = std::getenv("JAXOOD_NATIVE");
  const auto is = [&](const char* name) { return wanted && std::strcmp(wanted, name) == 0; };
  if (is("portable")) return kBase;
#if defined(__x86_64__)
  if (!is("AVX2") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl"))
    return kAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kAvx2;
#endif
  return kBase;
}

}  // namespace

const Kernels& Chosen() {
  static const Kernels& chosen = Choose();
  return chosen;
}

xla_ffi::Error* Handle(xla_ffi::CallFrame* frame, int64_t arguments, int64_t results,
                       size_t attributes, void (*f32)(const Call&), void (*f64)(const Call&)) {
  if (auto* extension = frame->extension_start; extension && extension->type == xla_ffi::kMetadata) {
    auto* metadata = reinterpret_cast<xla_ffi::MetadataExtension*>(extension)->metadata;
    metadata->version.major_version = xla_ffi::kMajor;
    metadata->version.minor_version = xla_ffi::kMinor;
    return nullptr;
  }
  const auto refuse = [&](const char* message) {
    return xla_ffi::InvalidArgument(frame->api, message);
  };
  if (frame->arguments.size != arguments || frame->results.size != results ||
      frame->attributes.size != 1 || frame->attributes.arrays[0]->size != attributes)
    return refuse("a native operation of jaxood is called with other arguments than it takes");
  const int dtype = frame->arguments.buffers[0]->dtype;
  for (int64_t i = 0; i < arguments; ++i)
    if (frame->arguments.buffers[i]->dtype != dtype)
      return refuse("the arrays of a native operation of jaxood have different types");
  const Call call = {frame, Pool(frame)};
  if (dtype == xla_ffi::kF32)
    f32(call);
  else if (dtype == xla_ffi::kF64)
    f64(call);
  else
    return refuse("a native operation of jaxood takes float32 or float64");
  return nullptr;
}

}  // namespace jaxood

// The instructions in use: "AVX-512", "AVX2", "NEON" or "portable vectors".
extern "C" __attribute__((visibility("default"))) const char* jaxood_instructions() {
  return jaxood::Chosen().name;
}
