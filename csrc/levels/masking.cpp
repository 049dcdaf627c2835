// Zero one block of a tensor where its mask is zero, and look for infinity and NaN on the way.
#include "level.h"

namespace st::ST_LEVEL {
namespace {

// By bits, not by a product: infinity times zero is NaN, and a product keeps the sign of zero.
template <class Word>
inline bool mask(Word* __restrict data, const uint8_t* __restrict keep, int64_t n, Word exponent) {
  Word bad = 0;
  for (int64_t i = 0; i < n; ++i) {
    const Word kept = keep[i] != 0 ? data[i] : Word{0};
    data[i] = kept;
    bad |= static_cast<Word>((kept & exponent) == exponent);
  }
  return bad != 0;
}

}  // namespace

bool mask_64(uint64_t* data, const uint8_t* keep, int64_t n, uint64_t exponent) {
  return mask(data, keep, n, exponent);
}

bool mask_32(uint32_t* data, const uint8_t* keep, int64_t n, uint32_t exponent) {
  return mask(data, keep, n, exponent);
}

bool mask_16(uint16_t* data, const uint8_t* keep, int64_t n, uint16_t exponent) {
  return mask(data, keep, n, exponent);
}

}  // namespace st::ST_LEVEL
