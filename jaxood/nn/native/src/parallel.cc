#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>

namespace jaxood {
namespace {

// Helpers that start late still hold the loop, find no task left and go.
struct Loop {
  std::function<void(int64_t)> task;
  int64_t count;
  std::atomic<int64_t> next{0}, done{0};
  std::mutex mutex;
  std::condition_variable ended;

  void Work() {
    for (int64_t i; (i = next++) < count;) {
      task(i);
      if (++done == count) {
        std::lock_guard<std::mutex> lock(mutex);
        ended.notify_all();
      }
    }
  }
};

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

Pool::Pool(const xla_ffi::CallFrame* frame) : frame_(frame) {
  xla_ffi::NumThreadsArgs args = {sizeof(args), nullptr, frame->context, &threads_};
  if (xla_ffi::Error* error = frame->api->num_threads(&args)) {
    DestroyError(frame->api, error);
    threads_ = 1;
  }
}

void Pool::Run(int64_t count, std::function<void(int64_t)> task) const {
  if (count <= 1 || threads_ <= 1) {
    for (int64_t i = 0; i < count; ++i) task(i);
    return;
  }
  auto loop = std::make_shared<Loop>();
  loop->task = std::move(task);
  loop->count = count;
  for (int64_t i = 1; i < std::min(threads_, count); ++i) {
    auto* held = new std::shared_ptr<Loop>(loop);
    auto work = [](void* data) {
      std::unique_ptr<std::shared_ptr<Loop>> held(static_cast<std::shared_ptr<Loop>*>(data));
      (*held)->Work();
    };
    xla_ffi::ScheduleArgs args = {sizeof(args), nullptr, frame_->context, work, held};
    if (xla_ffi::Error* error = frame_->api->schedule(&args)) {
      DestroyError(frame_->api, error);
      delete held;
      break;
    }
  }
  loop->Work();
  // The others are in their last tasks: sleeping at once would cost more than it saves.
  for (int i = 0; i < 20000 && loop->done < count; ++i) Pause();
  std::unique_lock<std::mutex> lock(loop->mutex);
  loop->ended.wait(lock, [&] { return loop->done >= count; });
}

}  // namespace jaxood
