// Masks on weights and optimizer state: each block of a mask is read once for all its tensors.
#include <new>
#include <vector>

#include "api.h"
#include "dispatch.h"
#include "pool.h"

namespace st {
namespace {

constexpr std::int64_t kBlock = 8192;  // entries; the block of the mask stays in the first cache
constexpr std::int64_t kGrain = 8;

bool mask_block(const Kernels& table, const MaskedTensor& tensor, const std::uint8_t* keep,
                std::int64_t offset, std::int64_t n) {
  auto* const half = static_cast<std::uint16_t*>(tensor.data);
  switch (tensor.kind) {
    case kBfloat16:
      return table.mask_16(half + offset, keep, n, 0x7f80);
    case kFloat16:
      return table.mask_16(half + offset, keep, n, 0x7c00);
    case kFloat64:
      return table.mask_64(static_cast<std::uint64_t*>(tensor.data) + offset, keep, n,
                           0x7ff0000000000000);
    default:
      return table.mask_32(static_cast<std::uint32_t*>(tensor.data) + offset, keep, n, 0x7f800000);
  }
}

void mask(const MaskRow* rows, std::int64_t count, const MaskedTensor* tensors, std::uint8_t* bad,
          int threads) {
  std::vector<std::int64_t> starts{0};
  for (std::int64_t row = 0; row < count; ++row) {
    starts.push_back(starts.back() + rows[row].tensors);
  }
  const Blocks blocks(rows, count, kBlock);
  const Kernels& table = kernels();
  parallel_for(blocks.count(), kGrain, threads, [&](std::int64_t first, std::int64_t last) {
    blocks.each(first, last, [&](auto, auto row, auto offset, auto length) {
      const auto start = starts[static_cast<std::size_t>(row)];
      for (auto i = start; i < start + rows[row].tensors; ++i) {
        if (mask_block(table, tensors[i], rows[row].keep + offset, offset, length)) {
          __atomic_store_n(&bad[i], std::uint8_t{1}, __ATOMIC_RELAXED);  // several blocks may
        }
      }
    });
  });
}

}  // namespace
}  // namespace st

int st_mask(const st::MaskRow* rows, int64_t count, const st::MaskedTensor* tensors, uint8_t* bad,
            int threads) try {
  st::mask(rows, count, tensors, bad, threads);
  return st::kOk;
} catch (const std::bad_alloc&) {
  return st::kNoMemory;
}
