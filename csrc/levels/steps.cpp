// The light steps of a program on one block of images: sums and scales, pooling, flattening.
#include "level.h"
#include "tile.h"

namespace st::ST_LEVEL {
namespace {

struct Line {
  float scale, shift;
  bool relu;
};

template <class Number>
inline Number blended(Number x, Number more, const Line& line) {
  const Number sum = x * line.scale + line.shift + more;
  return line.relu ? (sum < 0.0f ? Number{} : sum) : sum;
}

void blend_row(const Line& line, const float* in, const float* other, float* out, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Floats more = other ? load<Floats>(other + i) : Floats{};
    store(out + i, blended(load<Floats>(in + i), more, line));
  }
  for (; i < n; ++i) out[i] = blended(in[i], other ? other[i] : 0.0f, line);
}

// A window's part inside the input.
struct Span {
  int64_t first, last;
};

inline Span inside(const Pooling& p, int axis, int64_t at, int64_t size) {
  const int64_t from = at * p.stride[axis] - p.padding[axis], to = from + p.window[axis];
  return {from < 0 ? 0 : from, to > size ? size : to};
}

// What the mean divides by: places outside of input and padding never count.
inline float share(const Pooling& p, const Span& y, const Span& x, int64_t row, int64_t column) {
  int64_t count = (y.last - y.first) * (x.last - x.first);
  if (p.count_padding) {
    const int64_t top = row * p.stride[0], left = column * p.stride[1];
    const int64_t rows = p.in_rows + 2 * p.padding[0] - top;
    const int64_t columns = p.in_columns + 2 * p.padding[1] - left;
    count = (rows < p.window[0] ? rows : p.window[0]) *
            (columns < p.window[1] ? columns : p.window[1]);
  }
  return 1.0f / static_cast<float>(count);
}

inline Floats larger(Floats a, Floats b) { return a > b ? a : a == a ? b : a; }  // a NaN stays
inline float larger(float a, float b) { return a > b || a != a ? a : b; }

// The largest item, or the sum; rows are summed by themselves, lest large windows lose digits.
template <class Number>
inline Number fold(const Pooling& p, const float* plane, const Span& y, const Span& x) {
  Number sum = Number{} - (p.largest ? __builtin_inff() : 0.0f);
  for (int64_t row = y.first; row < y.last; ++row) {
    const float* from = plane + row * p.in.row + x.first * p.images;
    Number line = p.largest ? sum : Number{};
    for (int64_t column = x.first; column < x.last; ++column, from += p.images) {
      Number item;
      __builtin_memcpy(&item, from, sizeof item);
      line = p.largest ? larger(line, item) : line + item;
    }
    sum = p.largest ? line : sum + line;
  }
  return sum;
}

void pool_row(const Pooling& p, const float* plane, float* out, int64_t row) {
  const Span y = inside(p, 0, row, p.in_rows);
  for (int64_t column = 0; column < p.columns; ++column, out += p.images) {
    const Span x = inside(p, 1, column, p.in_columns);
    const float scale = p.largest ? 1.0f : share(p, y, x, row, column);
    int64_t i = 0;
    for (; i + kLanes <= p.images; i += kLanes) {
      store(out + i, fold<Floats>(p, plane + i, y, x) * scale);
    }
    for (; i < p.images; ++i) out[i] = fold<float>(p, plane + i, y, x) * scale;
  }
}

// The usual case, the largest of 2x2 pixels of one image: no loop over windows.
void largest_of_four(const Pooling& p, const float* in, float* out) {
  for (int64_t x = 0; x < p.columns; ++x) {
    const float* const a = in + 2 * x;
    const float* const b = a + p.in.row;
    out[x] = larger(larger(a[0], a[1]), larger(b[0], b[1]));
  }
}

// The same of a block of images.
void largest_of_four_each(const Pooling& p, const float* in, float* out) {
  const int64_t n = p.images, row = p.in.row;
  for (int64_t x = 0; x < p.columns; ++x, in += 2 * n, out += n) {
    for (int64_t i = 0; i < n; i += kLanes) {
      const Floats a = larger(load<Floats>(in + i), load<Floats>(in + n + i));
      const Floats b = larger(load<Floats>(in + row + i), load<Floats>(in + row + n + i));
      store(out + i, larger(a, b));
    }
  }
}

}  // namespace

void blend(const Blend& b, const float* in, const float* other, float* out, const Part& part) {
  for (int64_t c = part.first; c < part.last; ++c) {
    const Line line{b.scale ? b.scale[c] : 1.0f, b.shift ? b.shift[c] : 0.0f, b.relu != 0};
    for (int64_t y = part.top; y < part.bottom; ++y) {
      blend_row(line, in + c * b.in.plane + y * b.in.row,
                other ? other + c * b.other.plane + y * b.other.row : nullptr,
                out + c * b.out.plane + y * b.out.row, b.length);
    }
  }
}

void pooling(const Pooling& p, const float* in, float* out, const Part& part) {
  const bool plain = p.largest && p.window[0] == 2 && p.window[1] == 2 && p.stride[0] == 2 &&
                     p.stride[1] == 2 && p.padding[0] + p.padding[1] == 0;
  const bool one = plain && p.images == 1;
  for (int64_t c = part.first; c < part.last; ++c) {
    for (int64_t y = part.top; y < part.bottom; ++y) {
      const float* const plane = in + c * p.in.plane;
      float* const to = out + c * p.out.plane + y * p.out.row;
      if (!plain) {
        pool_row(p, plane, to, y);
      } else {
        (one ? largest_of_four : largest_of_four_each)(p, plane + 2 * y * p.in.row, to);
      }
    }
  }
}

void flatten(const Flattening& f, const float* in, float* out, int64_t first, int64_t last) {
  const int64_t area = f.rows * f.columns;
  for (int64_t to = first; to < last; ++to) {
    const int64_t pixel = to % area;
    const float* const from = in + to / area * f.in.plane + pixel / f.columns * f.in.row +
                              pixel % f.columns * f.images;
    __builtin_memcpy(out + to * f.out.plane, from, static_cast<size_t>(f.images) * sizeof(float));
  }
}

}  // namespace st::ST_LEVEL
