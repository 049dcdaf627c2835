// Exact order statistic over many tensors: a range guessed from a sample, one pass over the data,
// and a selection among the few keys in the range. Where the guess fails, three counting passes.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <vector>

#include "api.h"
#include "dispatch.h"
#include "pool.h"

namespace st {
namespace {

constexpr std::int64_t kBlock = 8192;
constexpr std::int64_t kGrain = 8;
constexpr std::int64_t kSpare = 16;  // a kernel may write this many words past what it keeps

constexpr std::size_t kDigits = 1 << 11;

// The key of 0-based `rank` among `n` keys, which lie in [low, high] and are reordered: counting in
// ever finer steps is three times as fast as std::nth_element on keys in no order.
std::uint32_t select(std::uint32_t* keys, std::int64_t n, std::int64_t rank, std::uint32_t low,
                     std::uint32_t high) {
  while (n > 1024 && low < high) {
    int shift = 0;
    while (((high - low) >> shift) >= kDigits) ++shift;
    std::int64_t counts[kDigits] = {};
    for (std::int64_t i = 0; i < n; ++i) ++counts[(keys[i] - low) >> shift];
    std::uint32_t digit = 0;
    for (; rank >= counts[digit]; ++digit) rank -= counts[digit];
    std::int64_t left = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const std::uint32_t key = keys[i];
      keys[left] = key;
      left += ((key - low) >> shift) == digit;
    }
    n = left;
    low += digit << shift;
    high = std::min(high, low + ((1u << shift) - 1));
  }
  if (low == high) return low;
  std::nth_element(keys, keys + rank, keys + n);
  return keys[rank];
}

// Where the key is to be looked for, and how many keys are expected there.
struct Guess {
  KeyRange range;
  std::int64_t expected;
};

class Selection {
 public:
  Selection(const Span* spans, std::int64_t count, Kind kind, bool magnitude, int threads)
      : spans_(spans),
        blocks_(spans, count, kBlock),
        kind_(kind),
        magnitude_(magnitude),
        threads_(threads) {
    for (std::int64_t i = 0; i < count; ++i) size_ += spans[i].size;
  }

  std::uint32_t key_of_rank(std::int64_t rank) const {
    if (const auto found = by_guess(guess(rank), rank)) return *found;
    return by_counting(rank);
  }

  std::uint32_t bits_of(std::uint32_t key) const {
    if (magnitude_) return key;
    return (key & 0x80000000u) != 0 ? key ^ 0x80000000u : ~key;
  }

 private:
  KeyRange range(std::uint32_t low, std::uint32_t high) const {
    return {low, high, kind_ == kFloat16 ? 0x7c000000u : 0x7f800000u, magnitude_};
  }

  Found find(const Span& span, std::int64_t offset, std::int64_t n, const KeyRange& range,
             std::uint32_t* out) const {
    if (kind_ == kFloat32) {
      return kernels().find_32(static_cast<const std::uint32_t*>(span.data) + offset, n, range,
                               out);
    }
    return kernels().find_16(static_cast<const std::uint16_t*>(span.data) + offset, n, range, out);
  }

  // Keys of about one entry in 256, spread over everything; all of them where there are few.
  std::vector<std::uint32_t> sample() const {
    return kind_ == kFloat32 ? sample_of<std::uint32_t>() : sample_of<std::uint16_t>();
  }

  template <class Item>
  std::vector<std::uint32_t> sample_of() const {
    const std::int64_t wanted = std::clamp<std::int64_t>(size_ / 256, 4096, 16384);
    const std::int64_t step = std::max<std::int64_t>(1, size_ / wanted), n = size_ / step;
    std::vector<Item> items(static_cast<std::size_t>(n));
    std::uint32_t noise = 1;  // within each step, so that no period of the weights is followed
    std::int64_t row = 0, before = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      noise = noise * 1664525u + 1013904223u;
      const std::int64_t at = i * step + (static_cast<std::int64_t>(noise >> 8) * step >> 24);
      for (; at - before >= spans_[row].size; ++row) before += spans_[row].size;
      items[static_cast<std::size_t>(i)] = static_cast<const Item*>(spans_[row].data)[at - before];
    }
    std::vector<std::uint32_t> keys(items.size() + kSpare);
    find(Span{items.data(), n}, 0, n, range(0, ~0u), keys.data());
    keys.resize(items.size());
    return keys;
  }

  // Three standard deviations of a random sample's quantile to either side.
  Guess guess(std::int64_t rank) const {
    const std::vector<std::uint32_t> whole = sample();
    std::vector<std::uint32_t> keys = whole;
    const auto n = static_cast<std::int64_t>(keys.size());
    const double m = static_cast<double>(n);
    const double quantile = (static_cast<double>(rank) + 0.5) / static_cast<double>(size_);
    const double spread = 3.0 * std::sqrt(m * quantile * (1.0 - quantile)) + 2.0;
    const auto low = static_cast<std::int64_t>(std::floor(quantile * m - spread));
    const auto high = static_cast<std::int64_t>(std::ceil(quantile * m + spread));
    const std::uint32_t from = low > 0 ? select(keys.data(), n, low, 0, ~0u) : 0;
    if (low > 0) keys = whole;  // select leaves only a part of them
    const std::uint32_t to = high < n ? select(keys.data(), n, high, 0, ~0u) : ~0u;
    const double expected = 2.0 * spread / m * static_cast<double>(size_);
    return {range(from, to), static_cast<std::int64_t>(expected)};
  }

  // One pass; nothing where the rank lies outside the range or far more inside than expected.
  std::optional<std::uint32_t> by_guess(const Guess& guess, std::int64_t rank) const {
    const KeyRange& range = guess.range;
    const bool one_value = range.low == range.high;  // ties: to count is enough
    const std::int64_t room = one_value ? 0 : std::min(size_, 2 * guess.expected + kBlock);
    // Not a vector: it would write zeros first.
    const std::unique_ptr<std::uint32_t[]> keys(new std::uint32_t[static_cast<std::size_t>(room)]);
    std::atomic<std::int64_t> below{0}, used{0};
    parallel_for(blocks_.count(), kGrain, threads_, [&](std::int64_t first, std::int64_t last) {
      std::uint32_t out[kBlock + kSpare];
      blocks_.each(first, last, [&](auto, auto row, auto offset, auto length) {
        const bool full = one_value || used.load(std::memory_order_relaxed) > room;
        const Found found = find(spans_[row], offset, length, range, full ? nullptr : out);
        below.fetch_add(found.below, std::memory_order_relaxed);
        const std::int64_t at = used.fetch_add(found.inside, std::memory_order_relaxed);
        if (!full && at + found.inside <= room) std::copy_n(out, found.inside, keys.get() + at);
      });
    });
    const std::int64_t n = used.load(), place = rank - below.load();
    if (place < 0 || place >= n) return std::nullopt;
    if (one_value) return range.low;
    if (n > room) return std::nullopt;
    return select(keys.get(), n, place, range.low, range.high);
  }

  // 11, 11 and 10 bits of the key, one counting pass each.
  std::uint32_t by_counting(std::int64_t rank) const {
    std::uint32_t key = 0;
    int known = 0;  // leading bits of the key
    for (const int bits : {11, 11, 10}) {
      const int shift = 32 - known - bits;
      const std::uint32_t high = known == 0 ? ~0u : key + (1u << (32 - known)) - 1;
      const std::vector<std::int64_t> counts = histogram(range(key, high), shift);
      std::size_t digit = 0;
      for (; rank >= counts[digit]; ++digit) rank -= counts[digit];
      key += static_cast<std::uint32_t>(digit) << shift;
      known += bits;
    }
    return key;
  }

  std::vector<std::int64_t> histogram(const KeyRange& range, int shift) const {
    std::vector<std::atomic<std::int64_t>> shared(kDigits);
    parallel_for(blocks_.count(), 4 * kGrain, threads_, [&](std::int64_t first, std::int64_t last) {
      std::uint32_t out[kBlock + kSpare];
      std::int32_t counts[kDigits] = {};
      blocks_.each(first, last, [&](auto, auto row, auto offset, auto length) {
        const Found found = find(spans_[row], offset, length, range, out);
        for (std::int64_t i = 0; i < found.inside; ++i) ++counts[(out[i] - range.low) >> shift];
      });
      for (std::size_t digit = 0; digit < kDigits; ++digit) {
        if (counts[digit] != 0) shared[digit].fetch_add(counts[digit], std::memory_order_relaxed);
      }
    });
    return {shared.begin(), shared.end()};
  }

  const Span* spans_;
  Blocks blocks_;
  Kind kind_;
  bool magnitude_;
  int threads_;
  std::int64_t size_ = 0;
};

void kth(const Span* spans, std::int64_t count, Kind kind, bool magnitude, std::int64_t rank,
         void* out, int threads) {
  const Selection selection(spans, count, kind, magnitude, threads);
  const std::uint32_t bits = selection.bits_of(selection.key_of_rank(rank));
  if (kind == kFloat32) {
    std::memcpy(out, &bits, sizeof bits);
  } else {
    const auto upper = static_cast<std::uint16_t>(bits >> 16);
    std::memcpy(out, &upper, sizeof upper);
  }
}

}  // namespace
}  // namespace st

int st_kth(const st::Span* spans, int64_t count, int kind, int magnitude, int64_t rank, void* out,
           int threads) try {
  st::kth(spans, count, static_cast<st::Kind>(kind), magnitude != 0, rank, out, threads);
  return st::kOk;
} catch (const std::bad_alloc&) {
  return st::kNoMemory;
}
