// A network's steps, run depth-first: all steps for one block of images before the next block.
#include <algorithm>
#include <atomic>
#include <new>
#include <thread>
#include <vector>

#include "api.h"
#include "dispatch.h"
#include "pool.h"
#include "program.h"

namespace st {
namespace {

constexpr std::int64_t kWorth = 1 << 18;  // multiply-adds, about 5 us: worth to be shared
constexpr int kSpins = 2000;

// Counts pieces that are done; pieces are numbered in the order in which they may start.
class Turn {
 public:
  void wait_for(std::int64_t count) const {
    for (int spins = 0; done_.load(std::memory_order_acquire) < count; ++spins) {
      if (spins > kSpins) std::this_thread::yield();
    }
  }
  void finish() { done_.fetch_add(1, std::memory_order_acq_rel); }
  std::int64_t take() { return next_.fetch_add(1, std::memory_order_relaxed); }

 private:
  std::atomic<std::int64_t> next_{0}, done_{0};
};

struct Piece {
  std::int64_t stage, index, of, after;  // after: pieces that must be done before it starts
};

// All stages of one block, cut so that several threads may share them.
std::vector<Piece> pieces_of(const Network& network, int threads) {
  std::vector<Piece> pieces;
  for (std::int64_t stage = 0; stage < network.stages(); ++stage) {
    const auto after = static_cast<std::int64_t>(pieces.size());
    const std::int64_t of = network.work(stage) < kWorth
                                ? 1
                                : std::min<std::int64_t>(network.channels(stage), threads);
    for (std::int64_t i = 0; i < of; ++i) pieces.push_back({stage, i, of, after});
  }
  return pieces;
}

void run_together(const Network& network, const ProgramRun& run, std::int64_t block, int threads,
                  float* arena) {
  const std::vector<Piece> pieces = pieces_of(network, threads);
  Turn turn;
  parallel_for(threads, 1, threads, [&](std::int64_t, std::int64_t) {
    for (;;) {
      const std::int64_t i = turn.take();
      if (i >= static_cast<std::int64_t>(pieces.size())) return;
      const Piece& piece = pieces[static_cast<std::size_t>(i)];
      // Who took an earlier piece is running it, so this ends.
      turn.wait_for(piece.after);
      network.stage(run, piece.stage, block, arena, piece.index, piece.of);
      turn.finish();
    }
  });
}

class Arena {
 public:
  Arena(Network& network, bool whole)
      : arenas_(network.arenas()), whole_(whole), floats_(arenas_.take(whole)) {}
  ~Arena() { arenas_.give(floats_, whole_); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  float* floats() const { return floats_; }

 private:
  Arenas& arenas_;
  const bool whole_;
  float* const floats_;
};

void run_program(Network& network, const ProgramRun& run, int threads) {
  const std::int64_t blocks = network.blocks(run.batch);
  if (run.seconds || (threads > 1 && blocks < threads)) {
    const Arena arena(network, !run.seconds);
    for (std::int64_t block = 0; block < blocks; ++block) {
      if (run.seconds) {
        network.whole(run, block, arena.floats(), run.seconds);
      } else {
        run_together(network, run, block, threads, arena.floats());
      }
    }
    return;
  }
  std::atomic<bool> failed{false};  // a task must not throw
  parallel_for(blocks, 1, threads, [&](std::int64_t first, std::int64_t last) {
    try {
      const Arena arena(network, false);
      for (auto block = first; block < last; ++block) {
        network.whole(run, block, arena.floats(), nullptr);
      }
    } catch (const std::bad_alloc&) {
      failed = true;
    }
  });
  if (failed) throw std::bad_alloc();
}

template <class Function>
int guarded(const Function& function) {
  try {
    function();
    return kOk;
  } catch (const std::bad_alloc&) {
    return kNoMemory;
  }
}

}  // namespace
}  // namespace st

int st_program_make(const st::ProgramMake* make, int) {
  return st::guarded([&] { *make->made = new st::Network(*make); });
}

int st_program_run(const st::ProgramRun* run, int threads) {
  return st::guarded(
      [&] { st::run_program(*static_cast<st::Network*>(run->program), *run, threads); });
}

int st_program_free(const st::ProgramRun* run, int) {
  delete static_cast<st::Network*>(run->program);
  return st::kOk;
}
