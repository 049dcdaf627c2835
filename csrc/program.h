// A program's stages (packing of the inputs, steps, unpacking of the outputs) and its arenas.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "api.h"

namespace st {

class Network {
 public:
  explicit Network(const ProgramMake& make);
  ~Network();
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  std::int64_t blocks(std::int64_t batch) const { return (batch + block_ - 1) / block_; }
  std::int64_t stages() const;
  // Of one block: units that may be run apart, and multiply-adds.
  std::int64_t channels(std::int64_t stage) const;
  std::int64_t work(std::int64_t stage) const;
  // Piece `index` of `of` of a stage, for one block of images.
  void stage(const ProgramRun& run, std::int64_t stage, std::int64_t block, float* arena,
             std::int64_t index, std::int64_t of) const;

  // All of one block on one thread. `seconds`, or null: each stage's time is added.
  void whole(const ProgramRun& run, std::int64_t block, float* arena, double* seconds) const;

  // Room for one block's activations, aligned, its halos zero. Throws std::bad_alloc.
  float* take_arena();
  void give_arena(float* arena);

 private:
  void transfer(const ProgramRun& run, std::int64_t port, std::int64_t block, float* arena) const;

  std::vector<ProgramStep> steps_;
  std::vector<ProgramPiece> pieces_;
  std::vector<Port> ports_;
  std::int64_t inputs_, block_, floats_;
  std::mutex lock_;
  std::vector<float*> idle_;
};

}  // namespace st
