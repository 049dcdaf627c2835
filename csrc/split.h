// Planes split into phases: for a stride above 1, neighbours of a phase are neighbours in memory.
#pragma once

#include <cstdint>

namespace st {

struct Split {
  std::int64_t channels, phases, plane, rows, columns;  // plane: floats of a phase; of the input
};

// [channel][row][column] of one image as [channel][phase][row][column].
inline void split(const Split& of, const float* in, float* to) {
  const std::int64_t s = of.phases, pitch = (of.columns + s - 1) / s;
  for (std::int64_t c = 0; c < of.channels; ++c) {
    for (std::int64_t y = 0; y < of.rows; ++y) {
      float* const row = to + (c * s * s + y % s * s) * of.plane + y / s * pitch;
      for (std::int64_t a = 0; a < s; ++a) {
        float* const phase = row + a * of.plane;
        for (std::int64_t x = a; x < of.columns; x += s) phase[x / s] = in[x];
      }
      in += of.columns;
    }
  }
}

}  // namespace st
