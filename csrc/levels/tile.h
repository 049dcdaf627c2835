// Tiles of accumulators: some rows of neighbouring vectors, all in registers.
#pragma once

#include "level.h"
#include "vector.h"

namespace st::ST_LEVEL {

#if defined(__AVX512F__)
constexpr int kTile = 16;  // vectors; of 32 registers
#else
constexpr int kTile = 8;  // of 16
#endif

// Every lane; not `all`, which has to add a zero.
inline Floats spread(float value) { return value - Floats{}; }

// A NaN stays one.
inline Floats positive(Floats x) { return x < 0.0f ? Floats{} : x; }

template <int R, int N>
struct Tile {
  Floats at[R][N];

  template <class Function>
  inline __attribute__((always_inline)) void each(const Function& function) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) function(at[r][n], r, n);
    }
  }
};

struct Run {
  int64_t first, last;
};

// The kernel rows that meet an input row for any of `count` output rows from `row` on.
inline Run seen(const Conv& conv, int64_t row, int64_t count) {
  int64_t first = conv.padding - (row + count - 1) * conv.stride;
  int64_t last = conv.height + conv.padding - row * conv.stride;
  first = first < 0 ? 0 : first > conv.taps ? conv.taps : first;
  last = last > conv.taps ? conv.taps : last < first ? first : last;
  return {first, last};
}

// One run of entries over the tile whose first output's origin is `in`. `Step` vectors from one
// output to the next, or `step` floats where Step is 0.
template <int R, int N, int Step>
inline __attribute__((always_inline)) void add_products(Tile<R, N>& sums, const float* in,
                                                        int64_t row, int64_t step,
                                                        const int32_t* offsets,
                                                        const float* values, int64_t n) {
  // Several chains where the tile is small: a multiply-add takes four cycles, two start in each.
  constexpr int kChains = R * N >= 8 ? 1 : R * N >= 4 ? 2 : 4;
  const int64_t apart = Step ? Step * kLanes : step;
  const auto add = [&](Tile<R, N>& to, int64_t i) __attribute__((always_inline)) {
    const float* const from = in + offsets[i];
    const Floats weight = spread(values[i]);
    to.each([&](Floats& sum, int r, int c) __attribute__((always_inline)) {
      sum += weight * load<Floats>(from + r * row + c * apart);
    });
  };
  int64_t i = 0;
  if constexpr (kChains > 1) {
    if (n >= kChains) {
      Tile<R, N> chains[kChains - 1] = {};
      for (; i + kChains <= n; i += kChains) {
        add(sums, i);
#pragma GCC unroll 4
        for (int k = 1; k < kChains; ++k) add(chains[k - 1], i + k);
      }
#pragma GCC unroll 4
      for (int k = 1; k < kChains; ++k) {
        sums.each([&](Floats& sum, int r, int c) __attribute__((always_inline)) {
          sum += chains[k - 1].at[r][c];
        });
      }
    }
  }
  for (; i < n; ++i) add(sums, i);
}

}  // namespace st::ST_LEVEL
