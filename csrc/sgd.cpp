// SGD over kept weights alone: blocks of a mask in parallel, each with its part of every tensor.
#include <new>

#include "api.h"
#include "dispatch.h"
#include "pool.h"
#include "spans.h"

namespace st {
namespace {

constexpr std::int64_t kBlock = 4096;
constexpr std::int64_t kGrain = 8;

void step(const SgdRow* rows, std::int64_t count, std::uint8_t* bad, int threads) {
  const Blocks blocks(rows, count, kBlock);
  const Kernels& table = kernels();
  parallel_for(blocks.count(), kGrain, threads, [&](std::int64_t first, std::int64_t last) {
    blocks.each(first, last, [&](auto, auto index, auto offset, auto length) {
      const SgdRow& row = rows[index];
      const Sgd sgd{static_cast<float>(row.rate), static_cast<float>(row.momentum),
                    static_cast<float>(row.decay), row.maximize ? -1.0f : 1.0f, row.nesterov != 0};
      float* const buffer = row.buffer == nullptr ? nullptr : row.buffer + offset;
      if (table.sgd(sgd, row.weights + offset, row.grads + offset, buffer, row.keep + offset,
                    length)) {
        __atomic_store_n(&bad[index], std::uint8_t{1}, __ATOMIC_RELAXED);  // several blocks may
      }
    });
  });
}

}  // namespace
}  // namespace st

int st_sgd(const st::SgdRow* rows, int64_t count, uint8_t* bad, int threads) try {
  st::step(rows, count, bad, threads);
  return st::kOk;
} catch (const std::bad_alloc&) {
  return st::kNoMemory;
}
