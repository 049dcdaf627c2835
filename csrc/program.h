// A program's stages: packing of the inputs, steps, unpacking of the outputs.
#pragma once

#include <cstdint>
#include <vector>

#include "api.h"
#include "arena.h"

namespace st {

class Network {
 public:
  explicit Network(const ProgramMake& make);

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

  // Room for one block's activations. `stage` needs a whole one, `whole` needs none.
  Arenas& arenas() { return arenas_; }

 private:
  void transfer(const ProgramRun& run, std::int64_t port, std::int64_t block, float* arena) const;

  std::vector<ProgramStep> steps_;
  std::vector<ProgramPiece> pieces_;
  std::vector<Port> ports_;
  std::int64_t inputs_, block_;
  Arenas arenas_;
};

}  // namespace st
