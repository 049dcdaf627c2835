// Sparse convolution of one block of images: register tiles of outputs, groups of input channels
// whose part of the input stays in the first cache.
#include "level.h"
#include "tile.h"

namespace st::ST_LEVEL {
namespace {

struct Place {
  const float* in;
  const float* residual;
  float* out;
  int64_t row;                // first output row of the tile
  int64_t in_step, out_step;  // from one vector of outputs to the next
  int64_t first, last;        // output channels
};

template <int R, int N, int Step>
void tile(const Conv& conv, const Place& place) {
  // Copies: what is stored could otherwise change them, for all that the compiler knows.
  const Conv c = conv;
  const Place p = place;
  const int64_t step = Step ? Step * kLanes : p.out_step;
  const Run taps = seen(c, p.row, R);
  for (int64_t group = 0; group < c.groups; ++group) {
    const bool opens = group == 0, closes = group == c.groups - 1 && c.relu != 0;
    const int32_t* starts = c.starts + (group * c.outputs + p.first) * c.taps;
    for (int64_t output = p.first; output < p.last; ++output, starts += c.taps) {
      const int64_t from = starts[taps.first], n = starts[taps.last] - from;
      if (n == 0 && !opens && !closes) continue;
      float* const out = p.out + output * c.out_plane;
      Tile<R, N> sums;
      if (!opens) {
        sums.each([&](Floats& sum, int r, int i) __attribute__((always_inline)) {
          sum = load<Floats>(out + r * c.out_row + i * step);
        });
      } else {
        const Floats bias = spread(c.bias ? c.bias[output] : 0.0f);
        sums.each([&](Floats& sum, int, int) __attribute__((always_inline)) { sum = bias; });
        if (p.residual) {
          const float* const more = p.residual + output * c.out_plane;
          sums.each([&](Floats& sum, int r, int i) __attribute__((always_inline)) {
            sum += load<Floats>(more + r * c.out_row + i * step);
          });
        }
      }
      add_products<R, N, Step>(sums, p.in, c.in_row, p.in_step, c.offsets + from, c.values + from,
                               n);
      if (closes) {
        sums.each([](Floats& sum, int, int) __attribute__((always_inline)) {
          sum = positive(sum);
        });
      }
      sums.each([&](Floats& sum, int r, int i) __attribute__((always_inline)) {
        store(out + r * c.out_row + i * step, sum);
      });
    }
  }
}

// One band of R rows, by tiles as wide as they fit.
template <int R, int N, int Step>
void band(const Conv& conv, Place place, int64_t vectors) {
  for (; vectors >= N; vectors -= N) {
    tile<R, N, Step>(conv, place);
    place.in += N * place.in_step;
    place.out += N * place.out_step;
    if (place.residual) place.residual += N * place.out_step;
  }
  if constexpr (N > 1) {
    if (vectors > 0) band<R, N / 2, Step>(conv, place, vectors);
  }
}

template <int R, int Step>
void bands(const Conv& conv, Place place, int64_t vectors, int64_t rows) {
  for (; rows >= R; rows -= R) {
    band<R, kTile / R, Step>(conv, place, vectors);
    place.row += R;
    place.in += R * conv.in_row;
    place.out += R * conv.out_row;
    if (place.residual) place.residual += R * conv.out_row;
  }
  if constexpr (R > 1) {
    if (rows > 0) bands<R / 2, Step>(conv, place, vectors, rows);
  }
}

template <int Step>
void plane(const Conv& conv, Place place, int64_t vectors, const Part& part) {
  const int64_t rows = part.bottom - part.top;
  place.row = part.top;
  place.in += part.top * conv.in_row;
  place.out += part.top * conv.out_row;
  if (place.residual) place.residual += part.top * conv.out_row;
  switch (conv.band) {
    case 4:
      return bands<4, Step>(conv, place, vectors, rows);
    case 2:
      return bands<2, Step>(conv, place, vectors, rows);
    default:
      return bands<1, Step>(conv, place, vectors, rows);
  }
}

}  // namespace

void conv(const Conv& conv, const float* in, const float* residual, float* out, const Part& part) {
  const int64_t first = part.first, last = part.last;
  const int64_t vectors = conv.images / kLanes;
  if (conv.in_column == conv.images && conv.out_column == conv.images) {
    const Place place{in, residual, out, 0, kLanes, kLanes, first, last};
    return plane<1>(conv, place, conv.columns * vectors, part);
  }
  for (int64_t v = 0; v < vectors; ++v) {
    const int64_t shift = v * kLanes;
    const Place place{in + shift, residual ? residual + shift : nullptr,
                      out + shift, 0, conv.in_column, conv.out_column, first, last};
    plane<0>(conv, place, conv.columns, part);
  }
}

}  // namespace st::ST_LEVEL
