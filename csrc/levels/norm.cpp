// Batch norm of one channel of one block of images, with the sum and ReLU behind it, and its
// gradients. Images that are missing from the last block are left out of every sum.
#include "level.h"
#include "tile.h"

namespace st::ST_LEVEL {
namespace {

// Calls `function(offset, keep)` for each vector of a row; lanes of `keep` are -1 where the image
// is there. `Part`: whether some images are missing.
template <bool Part, class Function>
inline __attribute__((always_inline)) void each(const ChannelField& f, const Function& function) {
  if constexpr (!Part) {
    const int64_t n = f.columns * f.block;
    for (int64_t i = 0; i < n; i += kLanes) function(i, ~Ints{});
    return;
  }
  Ints lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  for (int64_t x = 0; x < f.columns; ++x) {
    for (int64_t i = 0; i < f.block; i += kLanes) {
      function(x * f.block + i, lane < static_cast<int32_t>(f.images - i));
    }
  }
}

inline double total(const Floats& lanes) {
  double sum = 0.0;
  for (int i = 0; i < kLanes; ++i) sum += static_cast<double>(lanes[i]);
  return sum;
}

// Zero where `keep` is, whatever stands there.
template <bool Part>
inline Floats kept(const Floats& x, const Ints& keep) {
  return Part ? (Floats)((Ints)x & keep) : x;
}

inline Floats affine(const Channel& c, const Floats& x) { return (x - c.mean) * c.scale + c.shift; }

// Each row about its own mean, joined by the formula of Chan, Golub and LeVeque: no cancellation
// where the mean is far from zero, and one read from memory.
template <bool Part>
Moments moments_of(const ChannelField& f, const float* x) {
  const double n = static_cast<double>(f.columns * (Part ? f.images : f.block));
  Moments all{0.0, 0.0};
  for (int64_t row = 0; row < f.rows; ++row, x += f.in_pitch) {
    Floats sum = {}, squares = {};
    each<Part>(f, [&](int64_t i, const Ints& keep) __attribute__((always_inline)) {
      sum += kept<Part>(load<Floats>(x + i), keep);
    });
    const double mean = total(sum) / n;
    const Floats middle = spread(static_cast<float>(mean));
    Floats rest = {};
    each<Part>(f, [&](int64_t i, const Ints& keep) __attribute__((always_inline)) {
      const Floats away = kept<Part>(load<Floats>(x + i) - middle, keep);
      squares += away * away;
      rest += away;
    });
    // `middle` is rounded: what is left of the mean comes off the squares.
    const double off = total(rest) / n;
    const double before = static_cast<double>(row), apart = mean - all.mean;
    all.mean += apart / (before + 1.0);
    all.squares += total(squares) - n * off * off + apart * apart * n * before / (before + 1.0);
  }
  return all;
}

// The gradient of what ReLU was given: nothing where its output is not positive.
template <bool Part>
inline __attribute__((always_inline)) Floats through(const Channel& c, const Floats& grad,
                                                     const Floats& x, const float* out,
                                                     const Ints& keep) {
  Floats g = grad;
  if (c.relu) {
    const Floats y = out ? load<Floats>(out) : affine(c, x);
    g = y <= 0.0f ? Floats{} : g;
  }
  return kept<Part>(g, keep);
}

template <bool Part>
GradSums sums_of(const ChannelField& f, const Channel& c, const NormGrad& at) {
  GradSums all{0.0, 0.0};
  for (int64_t row = 0; row < f.rows; ++row) {
    const int64_t in = row * f.in_pitch, out = row * f.out_pitch;
    Floats plain = {}, along = {};
    each<Part>(f, [&](int64_t i, const Ints& keep) __attribute__((always_inline)) {
      const Floats x = load<Floats>(at.in + in + i);
      const float* const y = at.out ? at.out + out + i : nullptr;
      const Floats g = through<Part>(c, load<Floats>(at.grad + out + i), x, y, keep);
      plain += g;
      along += kept<Part>(g * (x - c.mean), keep);
      if (at.masked) store(at.masked + out + i, g);
    });
    all.plain += total(plain);
    all.along += total(along);
  }
  return all;
}

template <bool Part>
void grad_of(const ChannelField& f, const Channel& c, const NormGrad& at) {
  for (int64_t row = 0; row < f.rows; ++row) {
    const int64_t in = row * f.in_pitch, out = row * f.out_pitch;
    each<Part>(f, [&](int64_t i, const Ints& keep) __attribute__((always_inline)) {
      const Floats x = load<Floats>(at.in + in + i);
      const float* const y = at.out ? at.out + out + i : nullptr;
      const Floats g = through<Part>(c, load<Floats>(at.grad + out + i), x, y, keep);
      const Floats result = g * c.scale - ((x - c.mean) * c.along + c.plain);
      store(at.in_grad + in + i, kept<Part>(result, keep));
    });
  }
}

}  // namespace

Moments moments(const ChannelField& f, const float* x) {
  return f.images < f.block ? moments_of<true>(f, x) : moments_of<false>(f, x);
}

void norm(const ChannelField& f, const Channel& c, const float* x, const float* residual, float* out) {
  const int64_t n = f.columns * f.block;
  for (int64_t row = 0; row < f.rows; ++row, x += f.in_pitch, out += f.out_pitch) {
    for (int64_t i = 0; i < n; i += kLanes) {
      Floats y = affine(c, load<Floats>(x + i));
      if (residual) y += load<Floats>(residual + i);
      store(out + i, c.relu ? positive(y) : y);
    }
    if (residual) residual += f.out_pitch;
  }
}

GradSums norm_sums(const ChannelField& f, const Channel& c, const NormGrad& at) {
  return f.images < f.block ? sums_of<true>(f, c, at) : sums_of<false>(f, c, at);
}

void norm_grad(const ChannelField& f, const Channel& c, const NormGrad& at) {
  f.images < f.block ? grad_of<true>(f, c, at) : grad_of<false>(f, c, at);
}

}  // namespace st::ST_LEVEL
