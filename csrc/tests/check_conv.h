// Sparse convolutions for the sanitizers: every buffer ends where its data ends, answers are
// compared with plain loops.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "../api.h"

namespace conv_check {

using Floats = std::vector<float>;
using Offsets = std::vector<std::int32_t>;

// A square convolution, its mask given by a density, in blocks of `images`.
struct Layer {
  std::int64_t channels, outputs, kernel, size, stride, images, blocks, group, band;
  double density;

  std::int64_t halo() const { return kernel / 2; }
  std::int64_t side() const { return size + 2 * halo(); }
  std::int64_t out_size() const { return (size + 2 * halo() - kernel) / stride + 1; }
  std::int64_t groups() const { return (channels + group - 1) / group; }
  std::int64_t phases() const { return images == 1 ? stride : 1; }
  std::int64_t phase_side() const { return (side() + phases() - 1) / phases(); }
  std::int64_t in_block() const { return channels * side() * side() * images; }
  std::int64_t out_block() const { return outputs * out_size() * out_size() * images; }
};

struct Weights {
  Floats dense, values;
  Offsets order, starts, offsets;
};

inline std::int32_t offset_of(const Layer& l, std::int64_t c, std::int64_t y, std::int64_t x) {
  const std::int64_t s = l.phases(), side = l.phase_side();
  const std::int64_t plane = (c * s + y % s) * s + x % s;
  return static_cast<std::int32_t>(((plane * side + y / s) * side + x / s) * l.images);
}

inline Weights weights_of(const Layer& l) {
  std::mt19937 random(3);
  std::bernoulli_distribution kept(l.density);
  std::uniform_real_distribution<float> uniform(0.5f, 1.0f);
  Weights w;
  w.dense.resize(static_cast<std::size_t>(l.outputs * l.channels * l.kernel * l.kernel));
  for (float& value : w.dense) value = kept(random) ? uniform(random) : 0.0f;
  for (std::int64_t o = l.outputs; o-- > 0;) w.order.push_back(static_cast<std::int32_t>(o));
  for (std::int64_t g = 0; g < l.groups(); ++g) {
    for (const std::int64_t o : w.order) {
      for (std::int64_t y = 0; y < l.kernel; ++y) {
        w.starts.push_back(static_cast<std::int32_t>(w.values.size()));
        for (std::int64_t c = g * l.group; c < std::min(l.channels, (g + 1) * l.group); ++c) {
          for (std::int64_t x = 0; x < l.kernel; ++x) {
            const auto at = ((o * l.channels + c) * l.kernel + y) * l.kernel + x;
            const float value = w.dense[static_cast<std::size_t>(at)];
            if (value == 0.0f) continue;
            w.values.push_back(value);
            w.offsets.push_back(offset_of(l, c, y, x));
          }
        }
      }
    }
  }
  w.starts.push_back(static_cast<std::int32_t>(w.values.size()));
  return w;
}

inline st::ConvCall call_of(const Layer& l, const Weights& w) {
  const std::int64_t n = l.out_size(), s = l.images == 1 ? 1 : l.stride;
  st::ConvCall call{};
  call.conv = {l.outputs, l.groups(), l.kernel, n, n, l.images, l.halo(), l.stride, l.size,
               s * l.phase_side() * l.images, s * l.images, n * n * l.images, n * l.images,
               l.images, l.band, 1, w.order.data(), w.starts.data(), w.offsets.data(), w.values.data(), nullptr};
  call.blocks = l.blocks;
  call.in_block = l.in_block();
  call.out_block = l.out_block();
  call.channels = l.channels;
  call.phases = l.phases();
  call.in_plane = l.phase_side() * l.phase_side();
  call.in_rows = call.in_columns = l.side();
  return call;
}

// Calls `term(in index, out index, dense weight index)` for every product of the dense layer.
template <class Function>
void each_product(const Layer& l, const Function& term) {
  const std::int64_t n = l.out_size();
  for (std::int64_t i = 0; i < l.blocks * l.images; ++i) {
    const std::int64_t block = i / l.images, lane = i % l.images;
    for (std::int64_t o = 0; o < l.outputs * n * n; ++o) {
      const std::int64_t output = o / (n * n), row = o / n % n, column = o % n;
      for (std::int64_t k = 0; k < l.channels * l.kernel * l.kernel; ++k) {
        const std::int64_t c = k / (l.kernel * l.kernel);
        const std::int64_t y = row * l.stride + k / l.kernel % l.kernel;
        const std::int64_t x = column * l.stride + k % l.kernel;
        const std::int64_t in = (c * l.side() + y) * l.side() + x;
        term(static_cast<std::size_t>(block * l.in_block() + in * l.images + lane),
             static_cast<std::size_t>(block * l.out_block() + o * l.images + lane),
             static_cast<std::size_t>(output * l.channels * l.kernel * l.kernel + k));
      }
    }
  }
}

inline bool close(double a, double b) { return std::fabs(a - b) <= 1e-4 * (1 + std::fabs(b)); }

// Packs random images, convolves them, and their gradient; false where an answer is wrong.
inline bool right(const Layer& l, int threads) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  const std::int64_t area = l.size * l.size, batch = l.blocks * l.images - l.images / 2;
  Floats images(static_cast<std::size_t>(batch * l.channels * area));
  for (float& pixel : images) pixel = normal(random);
  const std::size_t slack = l.images == 1 ? 15 : 0;
  Floats in(static_cast<std::size_t>(l.blocks * l.in_block()) + slack, -9.0f), back(images.size());
  const st::Packed packed{batch, l.channels, in.data(), images.data(),
                          {0, l.images, l.size, l.size, l.halo(), l.channels * area, area, l.size,
                           1}};
  st_pack(&packed, threads);
  st::Packed unpacked = packed;
  unpacked.tensor = back.data();
  st_unpack(&unpacked, threads);
  if (back != images) return false;

  const Weights w = weights_of(l);
  Floats out(static_cast<std::size_t>(l.blocks * l.out_block()), -9.0f);
  st::ConvCall call = call_of(l, w);
  call.in = in.data();
  call.out = out.data();
  if (st_conv(&call, threads) != st::kOk) return false;
  std::vector<double> sums(out.size()), grads(w.dense.size());
  each_product(l, [&](auto i, auto o, auto k) { sums[o] += double{w.dense[k]} * in[i]; });
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (!close(out[i], std::max(sums[i], 0.0))) return false;
  }
  if (l.images == 1) return true;

  Floats found(w.values.size(), -9.0f);
  call.grads = found.data();
  if (st_conv_grad(&call, threads) != st::kOk) return false;
  each_product(l, [&](auto i, auto o, auto k) { grads[k] += double{out[o]} * in[i]; });
  double expected = 0.0, total = 0.0;  // each entry weighted by its value, which tells them apart
  for (std::size_t k = 0; k < grads.size(); ++k) expected += grads[k] * w.dense[k];
  for (std::size_t k = 0; k < found.size(); ++k) total += double{found[k]} * w.values[k];
  return close(total, expected);
}

inline bool all_right(int threads) {
  for (const std::int64_t images : {1, 16, 32}) {
    for (const std::int64_t stride : {1, 2}) {
      for (const std::int64_t kernel : {1, 3}) {
        for (const double density : {0.0, 0.1, 0.3, 1.0}) {
          const Layer layer{5, 4, kernel, 7, stride, images, 2, images == 1 ? 5 : 2, 2, density};
          if (!right(layer, threads)) return false;
        }
      }
    }
    if (!right({17, 3, 1, 1, 1, images, 3, 17, 1, 0.5}, threads)) return false;  // linear
    for (const std::int64_t band : {1, 4}) {
      if (images > 1 && !right({3, 4, 3, 9, 1, images, 1, 3, band, 0.5}, threads)) return false;
    }
    if (threads != 2) continue;
    const std::int64_t blocks = images == 1 ? 16 : 32 / images;  // enough work for two threads
    if (!right({20, 12, 3, 12, 1, images, blocks, 20, 1, 0.5}, threads)) return false;
  }
  return true;
}

}  // namespace conv_check
