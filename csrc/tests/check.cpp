// A stand-alone check of every function at every level, for the sanitizers: buffers end exactly
// where their data ends, calls come from several threads, answers are compared with plain loops.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "../api.h"
#include "../pool.h"
#include "check_conv.h"
#include "check_norm.h"
#include "check_program.h"

namespace {

void check(bool good, const char* what) {
  if (good) return;
  std::fprintf(stderr, "wrong: %s\n", what);
  std::exit(1);
}

using Layers = std::vector<std::vector<float>>;

Layers layers(unsigned seed, bool ties) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 0.1f);
  Layers made;
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{17}, std::size_t{4096},
                                 std::size_t{30011}}) {
    made.emplace_back(size);
    for (float& w : made.back()) w = ties ? std::round(normal(random) * 20) : normal(random);
  }
  return made;
}

std::vector<st::Span> spans(const Layers& weights) {
  std::vector<st::Span> rows;
  for (const auto& w : weights) rows.push_back({w.data(), static_cast<std::int64_t>(w.size())});
  return rows;
}

void check_order(const Layers& weights, int threads) {
  std::vector<float> sorted;
  for (const auto& w : weights) sorted.insert(sorted.end(), w.begin(), w.end());
  for (const int magnitude : {0, 1}) {
    if (magnitude) std::for_each(sorted.begin(), sorted.end(), [](float& w) { w = std::fabs(w); });
    std::sort(sorted.begin(), sorted.end());
    const auto rows = spans(weights);
    const std::size_t last = sorted.size() - 1;
    for (const std::size_t rank : {std::size_t{0}, last / 50, last / 2, last - last / 50, last}) {
      float found = -1.0f;
      st_kth(rows.data(), static_cast<int64_t>(rows.size()), st::kFloat32, magnitude,
             static_cast<int64_t>(rank), &found, threads);
      check(found == sorted[rank], "st_kth");
    }
  }
}

void check_hypersparse(const Layers& weights, int threads) {
  const float s = 3.0f, factor = 0.5f;
  const auto rows = spans(weights);
  const auto count = static_cast<int64_t>(rows.size());
  double sums[2], magnitude = 0.0, activation = 0.0;
  st_hypersparse_sums(rows.data(), count, s, sums, threads);
  Layers grads = weights;
  std::vector<st::Pair> pairs;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    for (const float w : weights[i]) {
      magnitude += std::fabs(w);
      activation += std::tanh(static_cast<double>(s) * std::fabs(w));
    }
    pairs.push_back({weights[i].data(), grads[i].data(), rows[i].size});
  }
  check(std::fabs(sums[0] - magnitude) <= 1e-6 * magnitude, "sum of magnitudes");
  check(std::fabs(sums[1] - activation) <= 1e-6 * activation, "sum of activations");
  Layers written = weights;
  std::vector<st::Pair> targets = pairs;
  for (std::size_t i = 0; i < weights.size(); ++i) targets[i].grads = written[i].data();
  st_hypersparse_set(targets.data(), count, s, factor, threads);
  st_hypersparse_add(pairs.data(), count, s, factor, threads);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    for (std::size_t j = 0; j < weights[i].size(); ++j) {
      const double w = weights[i][j], bend = std::cosh(s * w), sign = w > 0 ? 1 : w < 0 ? -1 : 0;
      const double expected = factor * sign / (bend * bend);
      check(std::fabs(grads[i][j] - (w + expected)) <= 1e-6 * (1 + std::fabs(w)), "gradient");
      check(std::fabs(written[i][j] - expected) <= 1e-6, "written gradient");
    }
  }
}

template <class Word>
void check_mask(std::int64_t kind, Word infinity, int threads) {
  for (const int size : {0, 1, 63, 20001}) {
    const auto n = static_cast<std::size_t>(size);
    std::vector<Word> first(n, 1), second(n, infinity);
    std::vector<std::uint8_t> keep(n), bad(2, 0);
    for (std::size_t i = 0; i < n; ++i) keep[i] = i % 3 == 0;
    const st::MaskRow row{keep.data(), static_cast<int64_t>(n), 2};
    const st::MaskedTensor tensors[2]{{first.data(), kind}, {second.data(), kind}};
    st_mask(&row, 1, tensors, bad.data(), threads);
    for (std::size_t i = 0; i < n; ++i) {
      check(first[i] == (keep[i] ? 1 : 0), "masked weight");
      check(second[i] == (keep[i] ? infinity : 0), "masked state");
    }
    check(bad[0] == 0 && bad[1] == (n > 0), "finite flag");
  }
}

void check_sgd(int threads) {
  for (const std::size_t n : {0u, 1u, 15u, 16u, 33u, 9001u}) {
    std::vector<float> weights(n, 2.0f), grads(n, 3.0f), buffer(n, 4.0f);
    std::vector<std::uint8_t> keep(n), bad(1, 0);
    for (std::size_t i = 0; i < n; ++i) keep[i] = i % 40 == 0;
    const st::SgdRow row{weights.data(), grads.data(), buffer.data(), keep.data(),
                         static_cast<int64_t>(n), 0.5, 0.5, 0.25, 1, 0};
    st_sgd(&row, 1, bad.data(), threads);
    for (std::size_t i = 0; i < n; ++i) {  // step 3.5, buffer 5.5, moved by 0.5 * (3.5 + 2.75)
      check(weights[i] == (keep[i] ? 2.0f - 3.125f : 2.0f), "moved weight");
      check(buffer[i] == (keep[i] ? 5.5f : 4.0f), "momentum");
    }
    check(bad[0] == 0, "finite");
    if (n == 0) continue;
    grads[0] = std::numeric_limits<float>::infinity();
    st_sgd(&row, 1, bad.data(), threads);
    check(bad[0] == 1, "infinite");
  }
}

void check_pool(int threads) {
  std::vector<std::atomic<int>> seen(1000);
  st::parallel_for(1000, 7, threads, [&](std::int64_t first, std::int64_t last) {
    st::parallel_for(last - first, 2, threads, [&](std::int64_t from, std::int64_t to) {
      for (auto i = from; i < to; ++i) ++seen[static_cast<std::size_t>(first + i)];
    });
  });
  check(std::all_of(seen.begin(), seen.end(), [](const auto& n) { return n == 1; }), "each once");
}

void check_everything() {
  for (const int threads : {1, 2, 4}) {
    for (int round = 0; round < 20; ++round) check_pool(threads);
    for (const bool ties : {false, true}) {
      const Layers weights = layers(7, ties);
      check_order(weights, threads);
      check_hypersparse(weights, threads);
    }
    check(conv_check::all_right(threads), "sparse convolution");
    check(norm_check::all_right(threads), "batch norm or windows");
    check(program_check::all_right(threads), "program");
    check_sgd(threads);
    check_mask<std::uint64_t>(st::kFloat64, 0x7ff0000000000000, threads);
    check_mask<std::uint32_t>(st::kFloat32, 0x7f800000, threads);
    check_mask<std::uint16_t>(st::kBfloat16, 0x7f80, threads);
    check_mask<std::uint16_t>(st::kFloat16, 0x7c00, threads);
  }
}

}  // namespace

int main() {
  check(st_abi() == st::kAbi, "version");
  for (const int level : {0, 3, 4}) {
    st_use_level(level);
    std::vector<std::thread> callers;
    for (int i = 0; i < 3; ++i) callers.emplace_back(check_everything);
    for (auto& caller : callers) caller.join();
  }
  std::puts("all right");
  return 0;
}
