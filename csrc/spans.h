// Tensors as runs of memory, cut into blocks that depend on their sizes alone.
#pragma once

#include <cstdint>
#include <vector>

namespace st {

struct Span {
  const void* data;
  std::int64_t size;  // entries
};

// Blocks of at most `block` entries; none spans two rows. The cut does not depend on the number
// of threads, so neither do sums that are kept per block and added in order.
class Blocks {
 public:
  template <class Row>
  Blocks(const Row* rows, std::int64_t count, std::int64_t block) : block_(block) {
    starts_.reserve(static_cast<std::size_t>(count) + 1);
    starts_.push_back(0);
    for (std::int64_t row = 0; row < count; ++row) {
      sizes_.push_back(rows[row].size);
      starts_.push_back(starts_.back() + (rows[row].size + block - 1) / block);
    }
  }

  std::int64_t count() const { return starts_.back(); }

  // Calls `function(index, row, offset, length)` for each block of [first, last).
  template <class Function>
  void each(std::int64_t first, std::int64_t last, const Function& function) const {
    std::size_t row = 0;
    for (std::size_t high = sizes_.size(); row + 1 < high;) {  // the row of block `first`
      const std::size_t middle = (row + high) / 2;
      (starts_[middle] <= first ? row : high) = middle;
    }
    for (std::int64_t index = first; index < last; ++index) {
      while (starts_[row + 1] <= index) ++row;
      const std::int64_t offset = (index - starts_[row]) * block_;
      const std::int64_t left = sizes_[row] - offset;
      function(index, static_cast<std::int64_t>(row), offset, left < block_ ? left : block_);
    }
  }

 private:
  std::int64_t block_;
  std::vector<std::int64_t> sizes_, starts_;
};

}  // namespace st
