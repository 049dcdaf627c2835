// The gradient of the kept weights of one block of images: a tile of the outputs' gradient stays
// in registers while the entries of its channel pass by, four at a time.
#include "level.h"
#include "tile.h"

namespace st::ST_LEVEL {
namespace {

constexpr int kAtOnce = 4;

struct Place {
  const float* in;
  const float* out;
  int64_t row;
  int64_t in_step, out_step;
  int64_t first, last;
};

inline float total(const Floats& lanes) {
  typedef float Four __attribute__((vector_size(16)));
  Four parts[kLanes / 4], sum = {};
  __builtin_memcpy(parts, &lanes, sizeof lanes);
  for (const Four& part : parts) sum += part;
  return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

template <int R, int N, int Step>
inline __attribute__((always_inline)) void add_dots(const Tile<R, N>& grad, const float* in,
                                                    int64_t row, int64_t step,
                                                    const int32_t* offsets, float* grads,
                                                    int64_t n) {
  const int64_t apart = Step ? Step * kLanes : step;
  int64_t i = 0;
  for (; i + kAtOnce <= n; i += kAtOnce) {
    Floats sums[kAtOnce] = {};
#pragma GCC unroll 16
    for (int at = 0; at < R * N; ++at) {
      const int64_t shift = at / N * row + at % N * apart;
#pragma GCC unroll 4
      for (int k = 0; k < kAtOnce; ++k) {
        sums[k] += grad.at[at / N][at % N] * load<Floats>(in + offsets[i + k] + shift);
      }
    }
#pragma GCC unroll 4
    for (int k = 0; k < kAtOnce; ++k) grads[i + k] += total(sums[k]);
  }
  for (; i < n; ++i) {
    Floats even = {}, odd = {};
#pragma GCC unroll 16
    for (int at = 0; at < R * N; ++at) {
      const int64_t shift = at / N * row + at % N * apart;
      (at % 2 ? odd : even) += grad.at[at / N][at % N] * load<Floats>(in + offsets[i] + shift);
    }
    grads[i] += total(even + odd);
  }
}

template <int R, int N, int Step>
void tile(const Conv& conv, const Place& at, float* grads) {
  const Conv c = conv;  // a copy, as in conv.cpp
  const Place p = at;
  const int64_t step = Step ? Step * kLanes : p.out_step;
  const Run taps = seen(c, p.row, R);
  for (int64_t group = 0; group < c.groups; ++group) {
    const int32_t* starts = c.starts + (group * c.outputs + p.first) * c.taps;
    for (int64_t place = p.first; place < p.last; ++place, starts += c.taps) {
      const int64_t from = starts[taps.first], n = starts[taps.last] - from;
      if (n == 0) continue;
      const float* const out = p.out + c.order[place] * c.out_plane;
      Tile<R, N> grad;
      grad.each([&](Floats& one, int r, int i) __attribute__((always_inline)) {
        one = load<Floats>(out + r * c.out_row + i * step);
      });
      add_dots<R, N, Step>(grad, p.in, c.in_row, p.in_step, c.offsets + from, grads + from, n);
    }
  }
}

template <int R, int N, int Step>
void band(const Conv& conv, Place place, float* grads, int64_t vectors) {
  for (; vectors >= N; vectors -= N) {
    tile<R, N, Step>(conv, place, grads);
    place.in += N * place.in_step;
    place.out += N * place.out_step;
  }
  if constexpr (N > 1) {
    if (vectors > 0) band<R, N / 2, Step>(conv, place, grads, vectors);
  }
}

template <int R, int Step>
void bands(const Conv& conv, Place place, float* grads, int64_t vectors) {
  for (; conv.rows - place.row >= R; place.row += R) {
    band<R, kTile / R, Step>(conv, place, grads, vectors);
    place.in += R * conv.in_row;
    place.out += R * conv.out_row;
  }
  if constexpr (R > 1) {
    if (place.row < conv.rows) bands<R / 2, Step>(conv, place, grads, vectors);
  }
}

// Narrow maps: several rows a tile, since the sum over a vector's lanes costs ten additions.
template <int Step>
void plane(const Conv& conv, const Place& place, float* grads, int64_t vectors) {
  vectors > kTile / 2   ? bands<1, Step>(conv, place, grads, vectors)
  : vectors > kTile / 4 ? bands<2, Step>(conv, place, grads, vectors)
                        : bands<4, Step>(conv, place, grads, vectors);
}

}  // namespace

void conv_grad(const Conv& conv, const float* in, const float* out, float* grads, int64_t first,
               int64_t last) {
  const int64_t vectors = conv.images / kLanes;
  if (conv.in_column == conv.images && conv.out_column == conv.images) {
    const Place place{in, out, 0, kLanes, kLanes, first, last};
    return plane<1>(conv, place, grads, conv.columns * vectors);
  }
  for (int64_t v = 0; v < vectors; ++v) {
    const Place place{in + v * kLanes, out + v * kLanes, 0, conv.in_column, conv.out_column,
                      first, last};
    plane<0>(conv, place, grads, conv.columns);
  }
}

}  // namespace st::ST_LEVEL
