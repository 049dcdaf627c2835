// Pooling over windows that do not overlap, of one channel of one block of images.
#include "level.h"
#include "tile.h"

namespace st::ST_LEVEL {
namespace {

// PyTorch's rule: a later value wins if it is larger, or no number.
inline Ints wins(const Floats& value, const Floats& best) {
  return (value > best) | (value != value);
}

template <class Function>
inline void each_window(const Windows& w, const Function& function) {
  for (int64_t y = 0; y < w.rows; ++y) {
    for (int64_t x = 0; x < w.columns; ++x) {
      const int64_t in = y * w.height * w.in_pitch + x * w.width * w.block;
      const int64_t out = y * w.out_pitch + x * w.block;
      for (int64_t i = 0; i < w.block; i += kLanes) function(in + i, out + i);
    }
  }
}

inline int64_t at(const Windows& w, int64_t k) {
  return k / w.width * w.in_pitch + k % w.width * w.block;
}

}  // namespace

void window(const Windows& w, const float* in, float* out) {
  const int64_t n = w.height * w.width;
  const float share = 1.0f / static_cast<float>(n);
  each_window(w, [&](int64_t from, int64_t to) {
    if (w.largest) {
      Floats best = load<Floats>(in + from);
      for (int64_t k = 1; k < n; ++k) {
        const Floats value = load<Floats>(in + from + at(w, k));
        best = wins(value, best) ? value : best;
      }
      store(out + to, best);
      return;
    }
    Floats sum = {};
    for (int64_t y = 0; y < w.height; ++y) {  // rows by themselves, lest large windows lose digits
      Floats line = {};
      for (int64_t x = 0; x < w.width; ++x) line += load<Floats>(in + from + at(w, y * w.width + x));
      sum += line;
    }
    store(out + to, sum * share);
  });
}

void window_grad(const Windows& w, const float* in, const float* out_grad, float* in_grad) {
  const int64_t n = w.height * w.width;
  const float share = 1.0f / static_cast<float>(n);
  each_window(w, [&](int64_t from, int64_t to) {
    const Floats grad = load<Floats>(out_grad + to);
    if (!w.largest) {
      for (int64_t k = 0; k < n; ++k) store(in_grad + from + at(w, k), grad * share);
      return;
    }
    Floats best = load<Floats>(in + from);
    Ints which = {};
    for (int64_t k = 1; k < n; ++k) {
      const Floats value = load<Floats>(in + from + at(w, k));
      const Ints better = wins(value, best);
      best = better ? value : best;
      which = better ? Ints{} + static_cast<int32_t>(k) : which;
    }
    for (int64_t k = 0; k < n; ++k) {
      const Ints here = which == static_cast<int32_t>(k);
      store(in_grad + from + at(w, k), (Floats)((Ints)grad & here));
    }
  });
}

}  // namespace st::ST_LEVEL
