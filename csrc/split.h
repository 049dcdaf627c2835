// Planes split into phases: for a stride above 1, neighbours of a phase are neighbours in memory.
#pragma once

#include <cstdint>

namespace st {

struct Split {
  std::int64_t channels, phases, plane, rows, columns;  // plane: floats of a phase; of the input
};

// Every second of a row; without a loop over phases, so that the compiler makes vectors of it.
inline void halve(const float* __restrict in, std::int64_t n, float* __restrict even,
                  float* __restrict odd) {
  for (std::int64_t x = 0; x < n / 2; ++x) {
    even[x] = in[2 * x];
    odd[x] = in[2 * x + 1];
  }
  if (n % 2 == 1) even[n / 2] = in[n - 1];
}

// [channel][row][column] of one image as [channel][phase][row][column].
inline void split(const Split& of, const float* in, float* to) {
  const std::int64_t s = of.phases, pitch = (of.columns + s - 1) / s;
  for (std::int64_t c = 0; c < of.channels; ++c) {
    for (std::int64_t y = 0; y < of.rows; ++y) {
      float* const row = to + (c * s * s + y % s * s) * of.plane + y / s * pitch;
      if (s == 2) halve(in, of.columns, row, row + of.plane);
      for (std::int64_t a = 0; s > 2 && a < s; ++a) {
        float* const phase = row + a * of.plane;
        for (std::int64_t x = a; x < of.columns; x += s) phase[x / s] = in[x];
      }
      in += of.columns;
    }
  }
}

}  // namespace st
