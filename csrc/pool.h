// Work on several threads: torch's own where its OpenMP runtime is known, else a small persistent
// pool, parked when idle. Safe to fork, serial when busy or nested.
#pragma once

#include <cstdint>

namespace st {

using Task = void (*)(const void* context, std::int64_t first, std::int64_t last);

// GNU OpenMP's GOMP_parallel(function, data, threads, flags), which LLVM's and Intel's have, too.
using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

// Compute on the threads of this runtime from now on; null: on the pool's. After a parallel part
// torch's threads spin for milliseconds, waiting for the next: a pool beside them would not get
// its cores. A forked child goes back to the pool.
void use_openmp(Parallel parallel);

// Calls `task(context, first, last)` for disjoint pieces of at most `grain` indices that together
// cover [0, n), on at most `threads` threads, the calling one included. Which thread takes which
// piece is not fixed: write results per index and combine them in order afterwards.
// A call from inside a task, or while another thread's call is running, runs on its own thread.
// The task must not throw.
void run_parallel(std::int64_t n, std::int64_t grain, int threads, Task task, const void* context);

// The same for any callable `function(first, last)`.
template <class Function>
void parallel_for(std::int64_t n, std::int64_t grain, int threads, const Function& function) {
  const Task task = [](const void* context, std::int64_t first, std::int64_t last) {
    (*static_cast<const Function*>(context))(first, last);
  };
  run_parallel(n, grain, threads, task, &function);
}

}  // namespace st
