// Room for one block's activations, zeros at first; some of it in rings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "api.h"

namespace st {

// The arenas of one program; each is lent to one thread at a time and then kept for the next.
class Arenas {
 public:
  Arenas(std::int64_t floats, std::vector<ProgramRing> rings);
  ~Arenas();
  Arenas(const Arenas&) = delete;
  Arenas& operator=(const Arenas&) = delete;

  // Aligned to a cache line at least. With `whole`, no two floats of it are the same memory.
  // Throws std::bad_alloc.
  float* take(bool whole);
  void give(float* arena, bool whole);

 private:
  struct Idle {
    float* arena;
    bool whole;
  };

  float* make(bool whole) const;
  void forget_the_parents();

  std::size_t bytes_;
  std::vector<ProgramRing> rings_;
  std::mutex lock_;
  std::vector<Idle> idle_;
  int owner_ = 0;  // the process whose arenas are idle
};

}  // namespace st
