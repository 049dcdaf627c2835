#include "pool.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

namespace st {
namespace {

constexpr int kSpins = 400;  // 10 to 20 microseconds: longer steals a core from torch's threads
constexpr int kMostWorkers = 255;

thread_local bool inside_task = false;

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

struct Job {
  std::int64_t n, grain;
  Task task;
  const void* context;
};

struct Shared {
  Job job{};
  std::atomic<std::int64_t> next{0};
};

void work_on(Shared& shared) {
  const Job& job = shared.job;
  inside_task = true;
  for (;;) {
    const std::int64_t first = shared.next.fetch_add(job.grain, std::memory_order_relaxed);
    if (first >= job.n) break;
    job.task(job.context, first, std::min(job.n, first + job.grain));
  }
  inside_task = false;
}

class Pool {
 public:
  // False if another thread is using the pool.
  bool try_run(const Job& job, int threads) {
    std::unique_lock<std::mutex> only(submit_, std::try_to_lock);
    if (!only.owns_lock()) return false;
    const std::int64_t pieces = (job.n + job.grain - 1) / job.grain;
    const int helpers = static_cast<int>(std::min<std::int64_t>(threads, pieces)) - 1;
    hire(helpers);
    shared_.job = job;
    shared_.next.store(0, std::memory_order_relaxed);
    seats_.store(helpers);  // open: what is above becomes visible to whoever takes a seat
    call_.fetch_add(1);
    if (asleep_.load() > 0) {
      std::lock_guard<std::mutex> lock(sleep_);
      for (int i = 0; i < helpers; ++i) wake_.notify_one();
    }
    work_on(shared_);
    seats_.store(0);  // closed: nobody takes a seat after this, so shared_ may change once all left
    for (int spins = 0; inside_.load() > 0; ++spins) {
      spins < kSpins ? pause() : std::this_thread::yield();
    }
    return true;
  }

 private:
  void hire(int helpers) {
    for (; workers_ < std::min(helpers, kMostWorkers); ++workers_) {
      try {
        start_worker();
      } catch (const std::system_error&) {
        return;  // fewer helpers: slower, not wrong
      }
    }
  }

  void start_worker() {
    // Signals belong to the program's own threads; a worker starts with the mask of its maker.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      std::thread([this] { live(); }).detach();
    } catch (...) {
      pthread_sigmask(SIG_SETMASK, &before, nullptr);
      throw;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void live() {
    // Not call_ as it is now: the call this worker was hired for may have been made already.
    for (std::uint32_t seen = 0;;) {
      seen = wait_for_call(seen);
      inside_.fetch_add(1);  // before taking a seat: try_run closes first and then looks here
      if (take_seat()) work_on(shared_);
      inside_.fetch_sub(1);
    }
  }

  std::uint32_t wait_for_call(std::uint32_t seen) {
    for (int spins = 0; spins < kSpins; ++spins) {
      if (call_.load() != seen) return call_.load();
      pause();
    }
    std::unique_lock<std::mutex> lock(sleep_);
    asleep_.fetch_add(1);
    wake_.wait(lock, [&] { return call_.load() != seen; });
    asleep_.fetch_sub(1);
    return call_.load();
  }

  bool take_seat() {
    int seats = seats_.load();
    while (seats > 0) {
      if (seats_.compare_exchange_weak(seats, seats - 1)) return true;
    }
    return false;
  }

  std::mutex submit_, sleep_;
  std::condition_variable wake_;
  std::atomic<std::uint32_t> call_{0};
  std::atomic<int> seats_{0}, inside_{0}, asleep_{0};
  Shared shared_;
  int workers_ = 0;
};

// The entry of the OpenMP runtime that torch computes with; null: there is none, or not any more.
std::atomic<Parallel> openmp{nullptr};

// False if another thread is using torch's: each that calls would get a team of its own.
bool try_openmp(Parallel parallel, const Job& job, int threads) {
  static std::atomic<bool> busy{false};
  if (busy.exchange(true, std::memory_order_acquire)) return false;
  Shared shared;
  shared.job = job;
  const std::int64_t pieces = (job.n + job.grain - 1) / job.grain;
  const auto team = static_cast<unsigned>(std::min<std::int64_t>(threads, pieces));
  parallel([](void* data) { work_on(*static_cast<Shared*>(data)); }, &shared, team, 0);
  busy.store(false, std::memory_order_release);
  return true;
}

// Never destroyed: parked workers may outlive every destructor of the process.
alignas(Pool) unsigned char storage[sizeof(Pool)];

Pool* make_pool() { return new (storage) Pool; }

Pool& the_pool() {
  static Pool* const pool = [] {
    // A forked child has none of the workers and perhaps a locked mutex: it starts afresh.
    pthread_atfork(nullptr, nullptr, [] { make_pool(); });
    return make_pool();
  }();
  return *pool;
}

bool try_threads(const Job& job, int threads) {
  const Parallel parallel = openmp.load();
  if (parallel != nullptr) return try_openmp(parallel, job, threads);
  return the_pool().try_run(job, threads);
}

}  // namespace

void use_openmp(Parallel parallel) {
  // The runtime of a forked child waits for threads that it does not have.
  static const int registered = pthread_atfork(nullptr, nullptr, [] { openmp.store(nullptr); });
  openmp.store(registered == 0 ? parallel : nullptr);
}

void run_parallel(std::int64_t n, std::int64_t grain, int threads, Task task, const void* context) {
  if (n <= 0) return;
  const Job job{n, std::max<std::int64_t>(grain, 1), task, context};
  const bool alone = threads <= 1 || n <= job.grain || inside_task;
  if (alone || !try_threads(job, threads)) {
    for (std::int64_t first = 0; first < n; first += job.grain) {
      task(context, first, std::min(n, first + job.grain));
    }
  }
}

}  // namespace st
