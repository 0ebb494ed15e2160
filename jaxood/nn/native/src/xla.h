// The part of XLA's foreign function interface (xla/ffi/api/c_api.h) that the handlers here need.
//
// Declared here and not included from jaxlib, so that a build needs nothing but a compiler, and one
// build serves every jaxlib: XLA accepts handlers of an older version of the interface, and this
// part is the same from version 0.1 (jaxlib 0.7.1) to 0.5 (jaxlib 0.12). tests/nn/test_native.py
// compares it with the header of the installed jaxlib.
#ifndef JAXOOD_XLA_H_
#define JAXOOD_XLA_H_

#include <cstddef>
#include <cstdint>

namespace xla_ffi {

constexpr int kMajor = 0, kMinor = 1;
enum DataType { kF32 = 11, kF64 = 12 };
enum ExtensionType { kMetadata = 1 };

struct Extension {
  size_t struct_size;
  int type;
  Extension* next;
};

struct ApiVersion {
  size_t struct_size;
  Extension* extension_start;
  int major_version;
  int minor_version;
};

struct Buffer {
  size_t struct_size;
  Extension* extension_start;
  int dtype;
  void* data;
  int64_t rank;
  int64_t* dims;
};

struct Array {
  int dtype;
  size_t size;
  void* data;
};

struct ByteSpan {
  const char* ptr;
  size_t len;
};

// Arguments and results have the same form.
struct Buffers {
  size_t struct_size;
  Extension* extension_start;
  int64_t size;
  int* types;
  Buffer** buffers;
};

struct Attributes {
  size_t struct_size;
  Extension* extension_start;
  int64_t size;
  int* types;
  ByteSpan** names;
  Array** arrays;
};

struct Error;
struct Context;

struct ErrorCreateArgs {
  size_t struct_size;
  Extension* extension_start;
  const char* message;
  int code;
};

struct ErrorDestroyArgs {
  size_t struct_size;
  Extension* extension_start;
  Error* error;
};

struct ScheduleArgs {
  size_t struct_size;
  Extension* extension_start;
  Context* context;
  void (*task)(void*);
  void* data;
};

struct NumThreadsArgs {
  size_t struct_size;
  Extension* extension_start;
  Context* context;
  int64_t* num_threads;
};

struct Api {
  size_t struct_size;
  Extension* extension_start;
  ApiVersion version;
  const void* internal_api;
  Error* (*error_create)(ErrorCreateArgs*);
  void* error_message;
  void (*error_destroy)(ErrorDestroyArgs*);
  void* handler_register;
  void* stream_get;
  void* type_register;
  void* context_get;
  void* state_set;
  void* state_get;
  void* memory_allocate;
  void* memory_free;
  Error* (*schedule)(ScheduleArgs*);
  Error* (*num_threads)(NumThreadsArgs*);
};

struct CallFrame {
  size_t struct_size;
  Extension* extension_start;
  const Api* api;
  Context* context;
  int stage;
  Buffers arguments;
  Buffers results;
  Attributes attributes;
};

struct Metadata {
  size_t struct_size;
  ApiVersion version;
  uint32_t traits;
};

struct MetadataExtension {
  Extension base;
  Metadata* metadata;
};

inline Error* InvalidArgument(const Api* api, const char* message) {
  constexpr int kInvalidArgument = 3;
  ErrorCreateArgs args = {sizeof(args), nullptr, message, kInvalidArgument};
  return api->error_create(&args);
}

inline void DestroyError(const Api* api, Error* error) {
  ErrorDestroyArgs args = {sizeof(args), nullptr, error};
  api->error_destroy(&args);
}

}  // namespace xla_ffi

#endif  // JAXOOD_XLA_H_
