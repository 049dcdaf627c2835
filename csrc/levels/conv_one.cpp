// Sparse convolution of one image: vectors run along the rows of the padded plane and over their
// ends, so that narrow maps fill them too; what belongs to no output is not stored.
#include "level.h"
#include "tile.h"

namespace st::ST_LEVEL {

void conv(const Conv&, const float*, const float*, float*, const Part&);

namespace {

struct Place {
  const float* in;
  const float* residual;
  float* out;
};

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Stores the sums of positions [at, at + n) of the plane, n of them outputs or between two rows.
inline void store_rows(const Conv& conv, const Place& place, int64_t output, const float* sums,
                       int64_t at, int64_t n) {
  const float bias = conv.bias ? conv.bias[output] : 0.0f;
  const float low = conv.relu ? 0.0f : -__builtin_inff();
  int64_t row = at / conv.in_row, column = at % conv.in_row;
  for (const float* const end = sums + n; sums < end; ++row, column = 0) {
    const int64_t start = output * conv.out_plane + row * conv.out_row + column;
    const int64_t count = least(conv.columns - column, end - sums);
    float* const out = place.out + start;
    const float* const more = place.residual ? place.residual + start : nullptr;
    for (int64_t i = 0; i < count; ++i) {
      const float sum = sums[i] + bias + (more ? more[i] : 0.0f);
      out[i] = sum < low ? low : sum;
    }
    sums += conv.in_row - column;
  }
}

template <int N>
void run(const Conv& conv, const Place& place, int64_t at, int64_t length, int64_t first,
         int64_t last) {
  float buffer[N * kLanes];
  for (int64_t i = first; i < last; ++i) {
    const int64_t from = conv.starts[i * conv.taps], n = conv.starts[(i + 1) * conv.taps] - from;
    Tile<1, N> sums = {};
    add_products<1, N, 1>(sums, place.in + at, 0, 0, conv.offsets + from, conv.values + from, n);
    sums.each([&](Floats& sum, int, int c) __attribute__((always_inline)) {
      store(buffer + c * kLanes, sum);
    });
    store_rows(conv, place, conv.order[i], buffer, at, least(N * kLanes, length - at));
  }
}

typedef float Four __attribute__((vector_size(16)));

// One output position: products of scattered inputs in four chains. Twice to three times as fast as
// a chain for each lane, whose loads become the processor's slow gathers.
inline float dot(const float* in, const int32_t* offsets, const float* values, int64_t n) {
  Four chains = {};
  float sum = 0.0f;
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const int32_t* const at = offsets + i;
    chains += load<Four>(values + i) * Four{in[at[0]], in[at[1]], in[at[2]], in[at[3]]};
  }
  for (; i < n; ++i) sum += values[i] * in[offsets[i]];
  return sum + (chains[0] + chains[2]) + (chains[1] + chains[3]);
}

// Images of one pixel, as of a linear layer.
void pixels(const Conv& conv, const Place& place, int64_t first, int64_t last) {
  for (int64_t i = first; i < last; ++i) {
    const int64_t from = conv.starts[i * conv.taps], n = conv.starts[(i + 1) * conv.taps] - from;
    const int64_t output = conv.order[i], at = output * conv.out_plane;
    const float sum = dot(place.in, conv.offsets + from, conv.values + from, n) +
                      (conv.bias ? conv.bias[output] : 0.0f) +
                      (place.residual ? place.residual[at] : 0.0f);
    place.out[at] = conv.relu && sum < 0.0f ? 0.0f : sum;
  }
}

}  // namespace

void conv_one(const Conv& conv, const float* in, const float* residual, float* out,
              const Part& part) {
  const Place place{in, residual, out};
  const int64_t first = part.first, last = part.last;
  if (conv.rows * conv.columns == 1) return pixels(conv, place, first, last);
  const int64_t vectors = conv.columns / kLanes;
  if (vectors > 0 && conv.columns % kLanes == 0) {  // rows fill the vectors: no gaps, no buffer
    Conv full = conv;
    full.band = vectors >= kTile ? 1 : kTile / vectors;
    full.band = full.band > 8 ? 8 : full.band >= 4 && full.band < 8 ? 4 : full.band;
    return st::ST_LEVEL::conv(full, in, residual, out, part);
  }
  const int64_t end = (part.bottom - 1) * conv.in_row + conv.columns;
  for (int64_t at = part.top * conv.in_row; at < end;) {
    const int64_t left = (end - at + kLanes - 1) / kLanes;
    const int64_t n = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
    n == 8   ? run<8>(conv, place, at, end, first, last)
    : n == 4 ? run<4>(conv, place, at, end, first, last)
    : n == 2 ? run<2>(conv, place, at, end, first, last)
             : run<1>(conv, place, at, end, first, last);
    at += n * kLanes;
  }
}

}  // namespace st::ST_LEVEL
