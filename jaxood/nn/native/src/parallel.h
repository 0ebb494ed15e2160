// A loop over tasks on XLA's own threads.
#ifndef JAXOOD_PARALLEL_H_
#define JAXOOD_PARALLEL_H_

#include <functional>

#include "xla.h"

namespace jaxood {

class Pool {
 public:
  explicit Pool(const xla_ffi::CallFrame* frame);

  int64_t threads() const { return threads_; }

  // Calls task(0) to task(count - 1), each once, and returns when all have ended. The calling
  // thread takes part, so the loop ends even if every other thread is busy elsewhere.
  void Run(int64_t count, std::function<void(int64_t)> task) const;

 private:
  const xla_ffi::CallFrame* frame_;
  int64_t threads_ = 1;
};

}  // namespace jaxood

#endif  // JAXOOD_PARALLEL_H_
