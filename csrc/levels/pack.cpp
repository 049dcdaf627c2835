// Between tensors of any strides and the packed layout, by squares of kLanes images.
#include "level.h"
#include "vector.h"

namespace st::ST_LEVEL {
namespace {

#if defined(__AVX512F__)
#define ST_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define ST_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX2__)
#define ST_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define ST_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define ST_LOW 0, 4, 1, 5
#define ST_HIGH 2, 6, 3, 7
#endif

inline Floats zip_low(Floats a, Floats b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, ST_LOW);
#else
  return __builtin_shuffle(a, b, Ints{ST_LOW});
#endif
}

inline Floats zip_high(Floats a, Floats b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, ST_HIGH);
#else
  return __builtin_shuffle(a, b, Ints{ST_HIGH});
#endif
}

// Zipping the upper half with the lower, log2(kLanes) times, turns rows into columns.
inline void transpose(Floats (&square)[kLanes]) {
#pragma GCC unroll 4
  for (int width = 1; width < kLanes; width *= 2) {
    Floats next[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = zip_low(square[i], square[i + kLanes / 2]);
      next[2 * i + 1] = zip_high(square[i], square[i + kLanes / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) square[i] = next[i];
  }
}

// A square of `n` neighbours in the tensor by at most kLanes images.
struct Square {
  int64_t tensor;      // floats before its first entry
  int64_t to[kLanes];  // floats before each neighbour's images in the packed layout
  int64_t n, images;   // missing images are zero
};

inline bool is_whole(const Square& s) { return s.n == kLanes && s.images == kLanes; }

inline void pack_square(const float* from, int64_t apart, float* packed, const Square& s) {
  const float* const first = from + s.tensor;
  Floats square[kLanes];
  if (is_whole(s)) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) square[i] = load<Floats>(first + i * apart);
    transpose(square);
#pragma GCC unroll 16
    for (int j = 0; j < kLanes; ++j) store(packed + s.to[j], square[j]);
    return;
  }
  for (int i = 0; i < kLanes; ++i) {
    square[i] = i < s.images ? load_part<Floats>(first + i * apart, s.n) : Floats{};
  }
  transpose(square);
  for (int j = 0; j < s.n; ++j) store(packed + s.to[j], square[j]);
}

inline void unpack_square(const float* packed, float* tensor, int64_t apart, const Square& s) {
  float* const first = tensor + s.tensor;
  Floats square[kLanes];
  if (is_whole(s)) {
#pragma GCC unroll 16
    for (int j = 0; j < kLanes; ++j) square[j] = load<Floats>(packed + s.to[j]);
    transpose(square);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) store(first + i * apart, square[i]);
    return;
  }
  for (int j = 0; j < kLanes; ++j) {
    square[j] = j < s.n ? load<Floats>(packed + s.to[j]) : Floats{};
  }
  transpose(square);
  for (int i = 0; i < s.images; ++i) store_part(first + i * apart, square[i], s.n);
}

struct Packed {
  int64_t pitch, plane;  // floats of a row and of a channel, halo included
};

inline Packed packed_of(const Planes& p) {
  const int64_t pitch = (p.columns + 2 * p.halo) * p.block;
  return {pitch, (p.rows + 2 * p.halo) * pitch};
}

inline void clear(float* from, int64_t n) {
  __builtin_memset(from, 0, static_cast<size_t>(n) * sizeof(float));
}

void clear_halo(const Planes& p, float* plane) {
  const Packed size = packed_of(p);
  const int64_t side = p.halo * p.block;
  clear(plane, p.halo * size.pitch);
  clear(plane + (p.halo + p.rows) * size.pitch, p.halo * size.pitch);
  for (int64_t y = p.halo; y < p.halo + p.rows; ++y) {
    clear(plane + y * size.pitch, side);
    clear(plane + (y + 1) * size.pitch - side, side);
  }
}

// Pixel after pixel of a plane: floats before each in the packed plane. It counts, as a division a
// pixel takes longer than moving it.
class Walk {
 public:
  Walk(const Planes& p, int64_t plane)
      : columns_(p.columns), block_(p.block), gap_(2 * p.halo * p.block),
        at_(plane + p.halo * (packed_of(p).pitch + p.block)) {}

  int64_t next() {
    const int64_t here = at_;
    at_ += block_;
    if (++column_ == columns_) {
      column_ = 0;
      at_ += gap_;
    }
    return here;
  }

 private:
  const int64_t columns_, block_, gap_;
  int64_t at_, column_ = 0;
};

// Calls `function(square)` for the images of a block; the square's first image is the first.
template <class Function>
inline void each_image(const Planes& p, Square square, const Function& function) {
  for (int64_t image = 0; image < p.block; image += kLanes) {
    const int64_t left = p.images - image;
    square.images = left < 0 ? 0 : left < kLanes ? left : kLanes;
    function(square);
    square.tensor += kLanes * p.image;
    for (int64_t& to : square.to) to += kLanes;
  }
}

inline int64_t at_most(int64_t n, int64_t most) { return n < most ? n : most; }

// Squares of channels that are neighbours in the tensor, at each pixel.
template <class Function>
inline void each_deep_square(const Planes& p, int64_t first, int64_t last,
                             const Function& function) {
  const int64_t plane = packed_of(p).plane;
  Walk walk(p, 0);
  Square square = {};
  for (int64_t y = 0; y < p.rows; ++y) {
    for (int64_t x = 0; x < p.columns; ++x) {
      const int64_t at = walk.next();
      for (int64_t c = first; c < last; c += kLanes) {
        square.n = at_most(last - c, kLanes);
        square.tensor = c + y * p.row + x * p.column;
        for (int64_t j = 0; j < square.n; ++j) square.to[j] = at + (c + j) * plane;
        each_image(p, square, function);
      }
    }
  }
}

// Squares of pixels that are neighbours in the tensor: along the whole plane or a row, or alone.
template <class Function>
inline void each_flat_square(const Planes& p, int64_t first, int64_t last,
                             const Function& function) {
  const bool whole = p.column == 1 && p.row == p.columns;
  const int64_t runs = whole ? 1 : p.rows, length = whole ? p.rows * p.columns : p.columns;
  const int64_t wide = p.column == 1 ? kLanes : 1;
  Square square = {};
  for (int64_t c = first; c < last; ++c) {
    Walk walk(p, c * packed_of(p).plane);
    for (int64_t run = 0; run < runs; ++run) {
      for (int64_t x = 0; x < length; x += wide) {
        square.n = at_most(length - x, wide);
        square.tensor = c * p.channel + run * p.row + x * p.column;
        for (int64_t j = 0; j < square.n; ++j) square.to[j] = walk.next();
        each_image(p, square, function);
      }
    }
  }
}

// Calls `function(square)` for squares whose entries are neighbours in the tensor: along the whole
// plane or a row, or along the channels where those are closer.
template <class Function>
inline void each_square(const Planes& p, int64_t first, int64_t last, const Function& function) {
  if (p.channel == 1 && (p.column != 1 || p.columns == 1)) {
    each_deep_square(p, first, last, function);
  } else {
    each_flat_square(p, first, last, function);
  }
}

// One image a block: rows are copied.
template <class Function>
inline void each_single(const Planes& p, int64_t first, int64_t last, const Function& copy) {
  const Packed size = packed_of(p);
  for (int64_t channel = first; channel < last; ++channel) {
    for (int64_t y = 0; y < p.rows; ++y) {
      const int64_t tensor = channel * p.channel + y * p.row;
      const int64_t packed = channel * size.plane + (p.halo + y) * size.pitch + p.halo;
      for (int64_t x = 0; x < p.columns; ++x) copy(tensor + x * p.column, packed + x);
    }
  }
}

}  // namespace

void pack(const Planes& p, const float* tensor, float* packed, int64_t first, int64_t last) {
  for (int64_t c = first; c < last; ++c) clear_halo(p, packed + c * packed_of(p).plane);
  if (p.block == 1) {
    return each_single(p, first, last,
                       [&](int64_t from, int64_t to) { packed[to] = tensor[from]; });
  }
  each_square(p, first, last, [&](const Square& square) {
    pack_square(tensor, p.image, packed, square);
  });
}

void unpack(const Planes& p, const float* packed, float* tensor, int64_t first, int64_t last) {
  if (p.block == 1) {
    return each_single(p, first, last,
                       [&](int64_t to, int64_t from) { tensor[to] = packed[from]; });
  }
  each_square(p, first, last, [&](const Square& square) {
    unpack_square(packed, tensor, p.image, square);
  });
}

}  // namespace st::ST_LEVEL
