// Batch norm and windows for the sanitizers: every buffer ends where its data ends, answers are
// compared with plain loops in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "../api.h"

namespace norm_check {

using Floats = std::vector<float>;

// Planes of one halo; `each` visits the entries of all images, missing ones too.
struct Shape {
  std::int64_t batch, block, channels, rows, columns, halo;

  std::int64_t blocks() const { return (batch + block - 1) / block; }
  std::int64_t pitch() const { return (columns + 2 * halo) * block; }
  std::int64_t plane() const { return (rows + 2 * halo) * pitch(); }
  std::size_t size() const { return static_cast<std::size_t>(blocks() * channels * plane()); }

  std::size_t at(std::int64_t image, std::int64_t c, std::int64_t y, std::int64_t x) const {
    return static_cast<std::size_t>((image / block * channels + c) * plane() +
                                    (y + halo) * pitch() + (x + halo) * block + image % block);
  }

  template <class Function>
  void each(std::int64_t images, const Function& function) const {
    for (std::int64_t i = 0; i < images * channels * rows * columns; ++i) {
      const std::int64_t x = i % columns, y = i / columns % rows;
      const std::int64_t c = i / (columns * rows) % channels;
      function(i / (columns * rows * channels), c, y, x);
    }
  }
};

inline bool close(double a, double b) { return std::fabs(a - b) <= 1e-4 * (1 + std::fabs(b)); }

inline Floats noise(std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.5f);
  Floats made(n);
  for (float& x : made) x = normal(random);
  return made;
}

// Forward and backward; false where an answer is wrong.
inline bool right(const Shape& in, std::int64_t out_halo, bool relu, bool residual, int threads) {
  Shape to = in;
  to.halo = out_halo;
  const auto channels = static_cast<std::size_t>(in.channels);
  const Floats x = noise(in.size(), 1), more = noise(to.size(), 2), grad = noise(to.size(), 3);
  Floats out(to.size(), -9.0f), masked(to.size(), -9.0f), in_grad(in.size(), -9.0f);
  std::vector<double> sums(2 * channels), mean(channels), squares(channels);
  const Floats constants = noise(5 * channels, 4);
  st::NormCall call{in.batch, in.block, in.channels, in.rows, in.columns, in.halo, out_halo,
                    x.data(), residual ? more.data() : nullptr, out.data(), grad.data(),
                    residual ? masked.data() : nullptr, in_grad.data(), constants.data(),
                    sums.data(), relu};
  const auto count = static_cast<double>(in.batch * in.rows * in.columns);
  st_moments(&call, threads);
  const auto of = [&](auto image, auto c, auto y, auto row) -> double {
    return x[in.at(image, c, y, row)];
  };
  in.each(in.batch, [&](auto i, auto c, auto y, auto w) { mean[c] += of(i, c, y, w) / count; });
  in.each(in.batch, [&](auto i, auto c, auto y, auto w) {
    squares[c] += (of(i, c, y, w) - mean[c]) * (of(i, c, y, w) - mean[c]);
  });
  for (std::size_t c = 0; c < channels; ++c) {
    if (!close(sums[2 * c], mean[c]) || !close(sums[2 * c + 1], squares[c])) return false;
  }

  st_norm(&call, threads);
  bool good = true;
  std::vector<double> plain(channels), along(channels);
  const auto wanted = [&](auto i, auto c, auto y, auto w) {
    const float* const k = constants.data() + 5 * c;
    const double found = (of(i, c, y, w) - k[0]) * k[1] + k[2] +
                         (residual ? more[to.at(i, c, y, w)] : 0.0f);
    return relu ? std::max(found, 0.0) : found;
  };
  const auto through = [&](auto i, auto c, auto y, auto w) -> double {
    const auto at = to.at(i, c, y, w);
    return relu && out[at] <= 0.0f ? 0.0 : grad[at];
  };
  in.each(in.batch, [&](auto i, auto c, auto y, auto w) {
    good = good && close(out[to.at(i, c, y, w)], wanted(i, c, y, w));
    plain[c] += through(i, c, y, w);
    along[c] += through(i, c, y, w) * (of(i, c, y, w) - constants[5 * c]);
  });

  if (!residual) call.out = nullptr;  // computed again from the input
  call.residual = nullptr;
  st_norm_sums(&call, threads);
  st_norm_grad(&call, threads);
  for (std::size_t c = 0; c < channels; ++c) {
    good = good && close(sums[2 * c], plain[c]) && close(sums[2 * c + 1], along[c]);
  }
  in.each(in.blocks() * in.block, [&](auto i, auto c, auto y, auto w) {
    const float* const k = constants.data() + 5 * c;
    const double away = of(i, c, y, w) - k[0];
    const double g = i < in.batch ? through(i, c, y, w) : 0.0;
    good = good && close(in_grad[in.at(i, c, y, w)],
                         i < in.batch ? g * k[1] - (away * k[3] + k[4]) : 0.0);
    if (residual) good = good && close(masked[to.at(i, c, y, w)], g);
  });
  return good;
}

// Windows of `height` by `width`, and their gradient.
inline bool windows(const Shape& in, std::int64_t height, std::int64_t width, bool largest,
                    int threads) {
  Shape to = in;
  to.rows = in.rows / height;
  to.columns = in.columns / width;
  to.halo = 2;
  const Floats x = noise(in.size(), 5), grad = noise(to.size(), 6);
  Floats out(to.size(), -9.0f), in_grad(in.size(), 0.0f);
  const st::WindowCall call{in.blocks(), in.channels, in.block, in.rows, in.columns, in.halo,
                            height, width, to.halo, largest, x.data(), out.data(), grad.data(),
                            in_grad.data()};
  st_window(&call, threads);
  st_window_grad(&call, threads);
  std::vector<double> expected(in.size());
  bool good = true;
  to.each(in.blocks() * in.block, [&](auto i, auto c, auto y, auto w) {
    double sum = 0.0;
    std::size_t best = in.at(i, c, y * height, w * width);
    for (std::int64_t k = 0; k < height * width; ++k) {
      const auto at = in.at(i, c, y * height + k / width, w * width + k % width);
      sum += x[at] / static_cast<double>(height * width);
      if (x[at] > x[best]) best = at;
      if (!largest) {
        expected[at] = grad[to.at(i, c, y, w)] / static_cast<double>(height * width);
      }
    }
    if (largest) expected[best] = grad[to.at(i, c, y, w)];
    good = good && close(out[to.at(i, c, y, w)], largest ? x[best] : sum);
  });
  in.each(in.blocks() * in.block, [&](auto i, auto c, auto y, auto w) {
    good = good && close(in_grad[in.at(i, c, y, w)], expected[in.at(i, c, y, w)]);
  });
  return good;
}

inline bool all_right(int threads) {
  for (const std::int64_t block : {16, 32}) {
    for (const std::int64_t batch : {block, block + 3}) {
      const Shape shape{batch, block, 3, 5, 6, 1};
      for (const bool relu : {false, true}) {
        for (const bool residual : {false, true}) {
          if (!right(shape, 2, relu, residual, threads)) return false;
        }
      }
      for (const bool largest : {false, true}) {
        if (!windows(shape, 2, 3, largest, threads)) return false;
        if (!windows({batch, block, 2, 4, 4, 0}, 2, 2, largest, threads)) return false;
      }
    }
  }
  if (threads == 1) return true;
  // Enough for several threads.
  return right({32, 16, 43, 12, 12, 1}, 1, true, true, threads) &&
         windows({32, 16, 43, 12, 12, 1}, 2, 2, true, threads);
}

}  // namespace norm_check
