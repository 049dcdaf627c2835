// The C interface, called from Python through ctypes. Raise ST_ABI with every change of it.
#pragma once

#include <stdint.h>

#include "spans.h"

#define ST_API extern "C" __attribute__((visibility("default")))

namespace st {

constexpr int kAbi = 1;

enum Status : int { kOk = 0, kNoMemory = 1 };
enum Kind : int { kFloat32 = 0, kBfloat16 = 1, kFloat16 = 2, kFloat64 = 3 };

struct Pair {
  const float* weights;
  float* grads;
  int64_t size;
};

struct MaskRow {
  const uint8_t* keep;
  int64_t size;
  int64_t tensors;  // how many of the list belong to this mask
};

struct MaskedTensor {
  void* data;
  int64_t kind;
};

}  // namespace st

// Version of this interface; the loader refuses a library with another one.
ST_API int st_abi();
// See st::use_level.
ST_API int st_use_level(int wanted);

// The value of 0-based `rank` among all entries (their magnitudes if asked), NaN above all;
// written to `out` in the entries' own kind (not float64). 0 <= rank < number of entries.
ST_API int st_kth(const st::Span* spans, int64_t count, int kind, int magnitude, int64_t rank,
                  void* out, int threads);

// out[0] = sum |w|, out[1] = sum tanh(steepness |w|), over all spans of float32.
ST_API int st_hypersparse_sums(const st::Span* spans, int64_t count, float steepness, double* out,
                               int threads);
// grad += factor * sign(w) * sech^2(steepness |w|), in place.
ST_API int st_hypersparse_add(const st::Pair* pairs, int64_t count, float steepness, float factor,
                              int threads);

// Store +0 where a mask is 0, in every tensor of the mask; bad[i] = 1 where tensor i keeps an
// infinity or a NaN (else unchanged).
ST_API int st_mask(const st::MaskRow* rows, int64_t count, const st::MaskedTensor* tensors,
                   uint8_t* bad, int threads);
