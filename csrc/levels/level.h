// The block kernels, compiled once for each processor level (ST_LEVEL: generic, v3, v4).
//
// Files in this folder are serial loops over plain memory. They must not use inline functions or
// templates of the standard library: the linker keeps one copy of those for all levels, and it
// may be the one with instructions that this processor lacks.
#pragma once

#include <stdint.h>

namespace st {

struct Sums {
  double magnitude, activation;
};

// Keys are unsigned numbers in the order of the values: of |x|, or of x itself; NaN is the largest.
struct KeyRange {
  uint32_t low, high;   // both included
  uint32_t infinity;    // bits of +infinity in the upper end of a word
  bool magnitude;       // of |x|
};

struct Found {
  int64_t below, inside;
};

// One processor level's kernels.
struct Kernels {
  Sums (*hypersparse_sums)(const float* weights, int64_t n, float steepness);
  void (*hypersparse_add)(const float* weights, float* grads, int64_t n, float steepness,
                          float factor);
  // Keys below the range are counted; those inside are counted and, given `out` (room for n and
  // one vector of 16 more), written there.
  Found (*find_32)(const uint32_t* bits, int64_t n, const KeyRange& range, uint32_t* out);
  Found (*find_16)(const uint16_t* bits, int64_t n, const KeyRange& range, uint32_t* out);
  // Zero where `keep` is zero; whether a kept entry has all exponent bits set (infinity or NaN).
  bool (*mask_64)(uint64_t* data, const uint8_t* keep, int64_t n, uint64_t exponent);
  bool (*mask_32)(uint32_t* data, const uint8_t* keep, int64_t n, uint32_t exponent);
  bool (*mask_16)(uint16_t* data, const uint8_t* keep, int64_t n, uint16_t exponent);
};

namespace generic {
extern const Kernels kernels;
}
namespace v3 {
extern const Kernels kernels;
}
namespace v4 {
extern const Kernels kernels;
}

}  // namespace st
