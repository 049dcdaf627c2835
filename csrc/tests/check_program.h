// A program of every kind of step for the sanitizers: with and without a ring, by whole blocks and
// by parts of them, from several threads at once. Answers are compared with plain loops in double.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "../api.h"

namespace program_check {

using Floats = std::vector<float>;
using Image = std::vector<double>;  // [channel][row][column]

constexpr std::int64_t kPage = 1024;  // floats

inline std::int64_t up(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit * unit; }

struct Buffer {
  std::int64_t channels, side, halo, start, plane, row;

  std::int64_t inner(std::int64_t images) const { return start + halo * (row + images); }
  st::Field field() const { return {plane, row}; }
  std::size_t at(std::int64_t c, std::int64_t y, std::int64_t x) const {
    return static_cast<std::size_t>((c * side + y) * side + x);
  }
};

// What a convolution's structure points to.
struct Weights {
  std::int64_t kernel, stride;
  bool relu;
  Floats dense, values, bias;
  std::vector<std::int32_t> order, starts, offsets;
};

class Net {
 public:
  Net(std::int64_t images, bool ringed, double density)
      : images_(images), density_(density) {
    input_ = place(3, 8, 1, false);
    const int residual = conv(input_, place(4, 8, 1, false), 1, 1, -1, false);
    ring_ = place(5, 8, 1, ringed && images > 1);
    const int wide = conv(input_, ring_, 3, 1, -1, true);
    int at = conv(wide, place(4, 8, 1, false), 3, 1, residual, true);
    at = pooling(at, place(4, 4, 0, false), 2, 2, 0, true, false);
    at = pooling(at, place(4, 4, 1, false), 3, 1, 1, false, true);
    at = blend(at, at, place(4, 4, 1, false));
    at = conv(at, place(6, 2, 0, false), 3, 2, -1, false);
    at = flatten(at, place(24, 1, 0, false));
    output_ = conv(at, place(3, 1, 0, false), 1, 1, -1, false);
    make();
  }
  ~Net() {
    const st::ProgramRun run{program_, 0, nullptr, nullptr};
    st_program_free(&run, 1);
  }
  Net(const Net&) = delete;
  Net& operator=(const Net&) = delete;

  // Results [image][channel].
  Floats run(const Floats& x, std::int64_t batch, int threads, double* seconds) const {
    const Buffer& out = buffers_[static_cast<std::size_t>(output_)];
    Floats found(static_cast<std::size_t>(batch * out.channels), -9.0f);
    const st::PortTensor tensors[2] = {{const_cast<float*>(x.data()), 3 * 64, 64, 8, 1},
                                       {found.data(), out.channels, 1, 1, 1}};
    const st::ProgramRun run{program_, batch, tensors, seconds};
    if (st_program_run(&run, threads) != st::kOk) found.clear();
    return found;
  }

  std::size_t stages() const { return steps_.size() + 2; }

  Image expected(const float* image) const {
    std::vector<Image> values(buffers_.size());
    values[static_cast<std::size_t>(input_)].assign(image, image + 3 * 64);
    for (const auto& step : plain_) step(values);
    return values[static_cast<std::size_t>(output_)];
  }

 private:
  using Plain = std::function<void(std::vector<Image>&)>;

  int place(std::int64_t channels, std::int64_t side, std::int64_t halo, bool ring) {
    Buffer b{channels, side, halo, 0, 0, (side + 2 * halo) * images_};
    b.plane = b.row * (side + 2 * halo);
    if (ring) {  // [row][channel][column][image], rows of whole pages
      b.plane = b.row;
      b.row = up(channels * b.plane, kPage);
      const std::int64_t first = up(floats_, kPage) + halo * b.row;
      b.start = first - halo * b.row;
      rings_.push_back({first, kPeriod * b.row, side * b.row});
      floats_ = first + side * b.row + up(halo * b.row + 16, kPage);
    } else {
      b.start = floats_;
      floats_ += up(channels * b.plane + 16, 16);
    }
    buffers_.push_back(b);
    return static_cast<int>(buffers_.size()) - 1;
  }

  const Buffer& of(int buffer) const { return buffers_[static_cast<std::size_t>(buffer)]; }

  void step(st::StepKind kind, int from, int other, int to, std::int64_t rows, const void* what) {
    const Buffer& in = of(from);
    const bool convolves = kind == st::kConv;
    steps_.push_back({kind, convolves ? in.start : in.inner(images_),
                      other < 0 ? -1 : of(other).inner(images_), of(to).inner(images_),
                      of(to).channels, rows, std::int64_t{1} << 20, what});
  }

  int conv(int from, int to, std::int64_t kernel, std::int64_t stride, int other, bool relu) {
    const Buffer in = of(from), out = of(to);
    weights_.push_back(weights(in, out, kernel, stride, relu));
    const Weights& w = weights_.back();
    const std::int64_t phases = images_ == 1 ? stride : 1, whole = in.side + 2 * in.halo;
    const std::int64_t part = (whole + phases - 1) / phases;
    const std::int64_t row = phases > 1 ? part : stride * in.row;
    const std::int64_t column = phases > 1 ? 1 : stride * images_;
    convs_.push_back({{out.channels, 1, kernel, out.side, out.side, images_, kernel / 2, stride,
                       in.side, row, column, out.plane, out.row, images_, 1, relu, w.order.data(),
                       w.starts.data(), w.offsets.data(), w.values.data(), w.bias.data()},
                      in.channels, phases, part * part, whole, whole, 0});
    step(st::kConv, from, other, to, out.side, &convs_.back());
    plain_.push_back([=, &w](std::vector<Image>& v) { plain_conv(w, from, other, to, v); });
    return to;
  }

  Weights weights(const Buffer& in, const Buffer& out, std::int64_t kernel, std::int64_t stride,
                  bool relu) {
    std::bernoulli_distribution kept(density_);
    std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
    Weights w{kernel, stride, relu, {}, {}, {}, {}, {}, {}};
    w.dense.resize(static_cast<std::size_t>(out.channels * in.channels * kernel * kernel));
    for (float& value : w.dense) value = kept(random_) ? uniform(random_) : 0.0f;
    for (std::int64_t o = 0; o < out.channels; ++o) w.bias.push_back(uniform(random_));
    for (std::int64_t o = out.channels; o-- > 0;) w.order.push_back(static_cast<std::int32_t>(o));
    for (const std::int64_t o : w.order) {
      for (std::int64_t y = 0; y < kernel; ++y) {
        w.starts.push_back(static_cast<std::int32_t>(w.values.size()));
        for (std::int64_t i = 0; i < in.channels * kernel; ++i) {
          const std::int64_t c = i / kernel, x = i % kernel;
          const auto k = static_cast<std::size_t>(((o * in.channels + c) * kernel + y) * kernel + x);
          if (w.dense[k] == 0.0f) continue;
          w.values.push_back(w.dense[k]);
          w.offsets.push_back(offset(in, c, y + in.halo - kernel / 2, x + in.halo - kernel / 2,
                                     images_ == 1 ? stride : 1));
        }
      }
    }
    w.starts.push_back(static_cast<std::int32_t>(w.values.size()));
    return w;
  }

  std::int32_t offset(const Buffer& in, std::int64_t c, std::int64_t y, std::int64_t x,
                      std::int64_t phases) const {
    if (phases == 1) return static_cast<std::int32_t>(c * in.plane + y * in.row + x * images_);
    const std::int64_t part = (in.side + 2 * in.halo + phases - 1) / phases;
    const std::int64_t plane = (c * phases + y % phases) * phases + x % phases;
    return static_cast<std::int32_t>((plane * part + y / phases) * part + x / phases);
  }

  void plain_conv(const Weights& w, int from, int other, int to, std::vector<Image>& v) const {
    const Buffer &in = of(from), &out = of(to);
    Image& made = v[static_cast<std::size_t>(to)];
    made.assign(static_cast<std::size_t>(out.channels * out.side * out.side), 0.0);
    each(out, [&](auto o, auto y, auto x) {
      double sum = w.bias[static_cast<std::size_t>(o)];
      if (other >= 0) sum += v[static_cast<std::size_t>(other)][out.at(o, y, x)];
      for (std::int64_t k = 0; k < in.channels * w.kernel * w.kernel; ++k) {
        const std::int64_t c = k / (w.kernel * w.kernel);
        const std::int64_t row = y * w.stride + k / w.kernel % w.kernel - w.kernel / 2;
        const std::int64_t column = x * w.stride + k % w.kernel - w.kernel / 2;
        if (std::min(row, column) < 0 || std::max(row, column) >= in.side) continue;
        const auto at = static_cast<std::size_t>(o * in.channels * w.kernel * w.kernel + k);
        sum += w.dense[at] * v[static_cast<std::size_t>(from)][in.at(c, row, column)];
      }
      made[out.at(o, y, x)] = w.relu ? std::max(sum, 0.0) : sum;
    });
  }

  int pooling(int from, int to, std::int64_t window, std::int64_t stride, std::int64_t padding,
              bool largest, bool count) {
    const Buffer in = of(from), out = of(to);
    pools_.push_back({in.field(), out.field(), in.side, in.side, out.side, out.side, images_,
                      {window, window}, {stride, stride}, {padding, padding}, largest, count});
    step(st::kPooling, from, -1, to, out.side, &pools_.back());
    plain_.push_back([=](std::vector<Image>& v) {
      Image& made = v[static_cast<std::size_t>(to)];
      made.assign(static_cast<std::size_t>(out.channels * out.side * out.side), 0.0);
      each(out, [&](auto c, auto y, auto x) {
        double sum = 0.0, best = -INFINITY;
        for (std::int64_t k = 0; k < window * window; ++k) {
          const std::int64_t row = y * stride + k / window - padding;
          const std::int64_t column = x * stride + k % window - padding;
          if (std::min(row, column) < 0 || std::max(row, column) >= in.side) continue;
          const double value = v[static_cast<std::size_t>(from)][in.at(c, row, column)];
          sum += value / static_cast<double>(window * window);
          best = std::max(best, value);
        }
        made[out.at(c, y, x)] = largest ? best : sum;
      });
    });
    return to;
  }

  // in * scale + shift + other, then ReLU.
  int blend(int from, int other, int to) {
    const Buffer in = of(from), out = of(to);
    scale_ = {0.5f, -1.0f, 2.0f, 1.5f};
    shift_ = {0.1f, 0.2f, -0.3f, 0.0f};
    blends_.push_back({in.field(), of(other).field(), out.field(), out.side, out.side * images_,
                       scale_.data(), shift_.data(), 1});
    step(st::kBlend, from, other, to, out.side, &blends_.back());
    plain_.push_back([=](std::vector<Image>& v) {
      Image& made = v[static_cast<std::size_t>(to)];
      made.assign(static_cast<std::size_t>(out.channels * out.side * out.side), 0.0);
      each(out, [&](auto c, auto y, auto x) {
        const auto line = static_cast<std::size_t>(c);
        const double value = v[static_cast<std::size_t>(from)][in.at(c, y, x)];
        const double more = v[static_cast<std::size_t>(other)][in.at(c, y, x)];
        made[out.at(c, y, x)] = std::max(value * scale_[line] + shift_[line] + more, 0.0);
      });
    });
    return to;
  }

  int flatten(int from, int to) {
    const Buffer in = of(from);
    flats_.push_back({in.field(), of(to).field(), in.side, in.side, images_});
    step(st::kFlatten, from, -1, to, in.side, &flats_.back());
    plain_.push_back([=](std::vector<Image>& v) {
      v[static_cast<std::size_t>(to)] = v[static_cast<std::size_t>(from)];
    });
    return to;
  }

  template <class Function>
  static void each(const Buffer& b, const Function& function) {
    for (std::int64_t i = 0; i < b.channels * b.side * b.side; ++i) {
      function(i / (b.side * b.side), i / b.side % b.side, i % b.side);
    }
  }

  // The step that fills the ring and the one that reads it advance together. Not in blocks of one
  // image: their sums are rounded by where a piece starts.
  std::vector<st::ProgramPiece> pieces() const {
    std::vector<st::ProgramPiece> made{{0, 0, 8}};
    for (std::int64_t row = 0; images_ > 1 && row <= 8; ++row) {
      if (row < 8) made.push_back({1, row, row + 1});
      if (row > 0) made.push_back({2, row - 1, row});
    }
    for (std::size_t i = images_ > 1 ? 3 : 1; i < steps_.size(); ++i) {
      made.push_back({static_cast<std::int64_t>(i), 0, steps_[i].rows});
    }
    return made;
  }

  void make() {
    const std::int64_t scratch = floats_;
    floats_ = up(floats_ + 4096, kPage);
    for (st::StepConv& step : convs_) step.scratch = scratch;
    const auto port = [&](int buffer) {
      const Buffer& b = of(buffer);
      return st::Port{b.start, b.channels, b.side, b.side, b.halo};
    };
    const st::Port ports[2] = {port(input_), port(output_)};
    const std::vector<st::ProgramPiece> parts = pieces();
    const auto count = [](const auto& things) { return static_cast<std::int64_t>(things.size()); };
    const st::ProgramMake make{steps_.data(), count(steps_), parts.data(), count(parts), ports, 1,
                               1, images_, floats_, rings_.data(), count(rings_), &program_};
    if (st_program_make(&make, 1) != st::kOk) std::abort();
  }

  static constexpr std::int64_t kPeriod = 4;  // rows: three are read while one is written
  const std::int64_t images_;
  const double density_;
  std::mt19937 random_{11};
  std::int64_t floats_ = 0;
  int input_, ring_, output_;
  std::vector<Buffer> buffers_;
  std::vector<st::ProgramRing> rings_;
  std::vector<st::ProgramStep> steps_;
  std::vector<Plain> plain_;
  // Deques: what was added stays where it is.
  std::deque<Weights> weights_;
  std::deque<st::StepConv> convs_;
  std::deque<st::Pooling> pools_;
  std::deque<st::Blend> blends_;
  std::deque<st::Flattening> flats_;
  Floats scale_, shift_;
  void* program_ = nullptr;
};

inline bool right(std::int64_t images, bool ringed, double density, int threads) {
  const Net net(images, ringed, density);
  const std::int64_t batch = 2 * images + images / 2 + 1;
  std::mt19937 random(13);
  std::normal_distribution<float> normal;
  Floats x(static_cast<std::size_t>(batch * 3 * 64));
  for (float& pixel : x) pixel = normal(random);
  const Floats found = net.run(x, batch, threads, nullptr);
  for (std::size_t i = 0; i < found.size(); i += 3 * 5) {  // plain loops are slow
    const Image wanted = net.expected(x.data() + i * 64);
    for (std::size_t c = 0; c < 3; ++c) {
      if (std::fabs(found[i + c] - wanted[c]) > 1e-4 * (1 + std::fabs(wanted[c]))) return false;
    }
  }
  std::vector<double> seconds(net.stages());
  if (found.empty() || net.run(x, batch, 1, seconds.data()) != found) return false;
  if (seconds[1] <= 0.0) return false;
  // One block, shared by all threads; then runs of one program that overlap.
  const Floats one = net.run(x, std::min<std::int64_t>(batch, images), 4, nullptr);
  if (!std::equal(one.begin(), one.end(), found.begin())) return false;
  std::atomic<bool> good{true};
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) {
    callers.emplace_back([&, i] {
      if (net.run(x, batch, 1 + i, nullptr) != found) good = false;
    });
  }
  for (auto& caller : callers) caller.join();
  return good;
}

inline bool all_right(int threads) {
  for (const double density : {0.0, 0.4}) {
    for (const std::int64_t images : {1, 16, 32}) {
      if (!right(images, false, density, threads)) return false;
      if (images > 1 && !right(images, true, density, threads)) return false;
    }
  }
  return true;
}

}  // namespace program_check
