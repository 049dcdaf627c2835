// Sparse convolution of one block of images: register tiles of outputs, groups of input channels
// whose part of the input stays in the first cache.
#include "level.h"
#include "tile.h"

namespace st::ST_LEVEL {
namespace {

// Entries an output channel has at most on average for rows to be swept channel by channel; 10 was
// not faster.
constexpr int64_t kFew = 6;

// One row of one output channel.
struct Sweep {
  const int32_t* offsets;
  const float* values;
  int64_t n;
  Floats bias;
  bool relu;
};

struct Place {
  const float* in;
  const float* residual;
  float* out;
  int64_t row;                // first output row of the tile
  int64_t in_step, out_step;  // from one vector of outputs to the next
  int64_t first, last;        // output channels
};

template <int R, int N, int In, int Out>
void tile(const Conv& conv, const Place& at) {
  // Copies: what is stored could otherwise change them, for all that the compiler knows.
  const Conv c = conv;
  const Place p = at;
  const int64_t step = Out ? Out * kLanes : p.out_step;
  const Run taps = seen(c, p.row, R);
  for (int64_t group = 0; group < c.groups; ++group) {
    const bool opens = group == 0, closes = group == c.groups - 1 && c.relu != 0;
    const int32_t* starts = c.starts + (group * c.outputs + p.first) * c.taps;
    for (int64_t place = p.first; place < p.last; ++place, starts += c.taps) {
      const int64_t output = c.order[place];
      const int64_t from = starts[taps.first], n = starts[taps.last] - from;
      if (n == 0 && !opens && !closes) continue;
      float* const out = p.out + output * c.out_plane;
      // Each group from zero: one long chain of sums would round two to three times as much.
      Tile<R, N> sums = {};
      add_products<R, N, In>(sums, p.in, c.in_row, p.in_step, c.offsets + from, c.values + from,
                               n);
      if (!opens) {
        sums.each([&](Floats& sum, int r, int i) __attribute__((always_inline)) {
          sum += load<Floats>(out + r * c.out_row + i * step);
        });
      } else {
        const Floats bias = spread(c.bias ? c.bias[output] : 0.0f);
        sums.each([&](Floats& sum, int, int) __attribute__((always_inline)) { sum += bias; });
        if (p.residual) {
          const float* const more = p.residual + output * c.out_plane;
          sums.each([&](Floats& sum, int r, int i) __attribute__((always_inline)) {
            sum += load<Floats>(more + r * c.out_row + i * step);
          });
        }
      }
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
template <int R, int N, int In, int Out>
void band(const Conv& conv, Place place, int64_t vectors) {
  for (; vectors >= N; vectors -= N) {
    tile<R, N, In, Out>(conv, place);
    place.in += N * place.in_step;
    place.out += N * place.out_step;
    if (place.residual) place.residual += N * place.out_step;
  }
  if constexpr (N > 1) {
    if (vectors > 0) band<R, N / 2, In, Out>(conv, place, vectors);
  }
}

template <int R, int In, int Out>
void bands(const Conv& conv, Place place, int64_t vectors, int64_t rows) {
  for (; rows >= R; rows -= R) {
    band<R, kTile / R, In, Out>(conv, place, vectors);
    place.row += R;
    place.in += R * conv.in_row;
    place.out += R * conv.out_row;
    if (place.residual) place.residual += R * conv.out_row;
  }
  if constexpr (R > 1) {
    if (rows > 0) bands<R / 2, In, Out>(conv, place, vectors, rows);
  }
}

template <int In, int Out>
void plane(const Conv& conv, Place place, int64_t vectors, const Part& part) {
  const int64_t rows = part.bottom - part.top;
  place.row = part.top;
  place.in += part.top * conv.in_row;
  place.out += part.top * conv.out_row;
  if (place.residual) place.residual += part.top * conv.out_row;
  switch (conv.band) {
    case 8:
      return bands<8, In, Out>(conv, place, vectors, rows);
    case 4:
      return bands<4, In, Out>(conv, place, vectors, rows);
    case 2:
      return bands<2, In, Out>(conv, place, vectors, rows);
    default:
      return bands<1, In, Out>(conv, place, vectors, rows);
  }
}

// Few entries an output: rows are swept channel by channel. What is written is then one stream, and
// the processor foresees the number of entries; tile by tile, that costs more than the products.
template <int N, int In, int Out>
inline void sweep_some(const Conv& c, const Sweep& s, const float* in, const float* residual,
                       float* out) {
  const int64_t in_step = In ? In * kLanes : c.in_column;
  const int64_t out_step = Out ? Out * kLanes : c.out_column;
  Tile<1, N> sums;
  sums.each([&](Floats& sum, int, int) __attribute__((always_inline)) { sum = s.bias; });
  if (residual) {
    sums.each([&](Floats& sum, int, int i) __attribute__((always_inline)) {
      sum += load<Floats>(residual + i * out_step);
    });
  }
  add_products<1, N, In>(sums, in, 0, in_step, s.offsets, s.values, s.n);
  if (s.relu) {
    sums.each([](Floats& sum, int, int) __attribute__((always_inline)) { sum = positive(sum); });
  }
  sums.each([&](Floats& sum, int, int i) __attribute__((always_inline)) {
    store(out + i * out_step, sum);
  });
}

template <int N, int In, int Out>
void sweep_row(const Conv& c, const Sweep& s, const float* in, const float* residual, float* out,
               int64_t vectors) {
  const int64_t in_step = N * (In ? In * kLanes : c.in_column);
  const int64_t out_step = N * (Out ? Out * kLanes : c.out_column);
  for (; vectors >= N; vectors -= N) {
    sweep_some<N, In, Out>(c, s, in, residual, out);
    in += in_step;
    out += out_step;
    if (residual) residual += out_step;
  }
  if constexpr (N > 1) {
    if (vectors > 0) sweep_row<N / 2, In, Out>(c, s, in, residual, out, vectors);
  }
}

template <int In, int Out>
void sweep(const Conv& conv, const float* in, const float* residual, float* out,
           const Part& part) {
  const Conv c = conv;
  const int64_t vectors = In ? c.columns * c.images / kLanes : c.columns;
  const int64_t lanes = In ? kLanes : c.images;  // a row is swept once for each vector of images
  for (int64_t place = part.first; place < part.last; ++place) {
    const int64_t output = c.order[place];
    const Floats bias = spread(c.bias ? c.bias[output] : 0.0f);
    for (int64_t row = part.top; row < part.bottom; ++row) {
      const Run taps = seen(c, row, 1);
      const int32_t* const starts = c.starts + place * c.taps;
      const int64_t from = starts[taps.first];
      const Sweep s{c.offsets + from, c.values + from, starts[taps.last] - from, bias,
                    c.relu != 0};
      const int64_t at = output * c.out_plane + row * c.out_row;
      for (int64_t lane = 0; lane < lanes; lane += kLanes) {
        sweep_row<kTile, In, Out>(c, s, in + row * c.in_row + lane,
                               residual ? residual + at + lane : nullptr, out + at + lane,
                               vectors);
      }
    }
  }
}

// `In` and `Out`: vectors from one output's inputs, and from one output, to the next; or both 0,
// where they are not those of neighbours, and each vector of images is done apart.
template <int In, int Out>
void run(const Conv& conv, const float* in, const float* residual, float* out, const Part& part) {
  const int64_t entries = conv.starts[conv.groups * conv.outputs * conv.taps];
  if (conv.groups == 1 && entries < kFew * conv.outputs) {
    return sweep<In, Out>(conv, in, residual, out, part);
  }
  if (In) {
    const Place place{in, residual, out, 0, In * kLanes, Out * kLanes, part.first, part.last};
    return plane<In, Out>(conv, place, conv.columns * conv.images / kLanes, part);
  }
  for (int64_t v = 0; v < conv.images / kLanes; ++v) {
    const int64_t shift = v * kLanes;
    const Place place{in + shift, residual ? residual + shift : nullptr, out + shift, 0,
                      conv.in_column, conv.out_column, part.first, part.last};
    plane<In, Out>(conv, place, conv.columns, part);
  }
}

}  // namespace

void conv(const Conv& conv, const float* in, const float* residual, float* out, const Part& part) {
  const bool near = conv.out_column == conv.images;
  if (near && conv.in_column == conv.images) return run<1, 1>(conv, in, residual, out, part);
  if (near && conv.in_column == 2 * conv.images && conv.images == kLanes) {
    return run<2, 1>(conv, in, residual, out, part);
  }
  run<0, 0>(conv, in, residual, out, part);
}

}  // namespace st::ST_LEVEL
