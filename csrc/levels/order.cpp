// One block's part of an exact order statistic: count the keys below a range, collect those in it.
#include "level.h"
#include "vector.h"

namespace st::ST_LEVEL {
namespace {

inline Words widen(Words bits) { return bits; }

// bfloat16 is the upper half of a float32; float16 is ordered alike in the upper half.
inline Words widen(Halves bits) { return __builtin_convertvector(bits, Words) << 16; }

template <bool kMagnitude>
inline Words keys_of(Words bits, uint32_t infinity) {
  const Words size = bits & 0x7fffffffu;
  if (kMagnitude) return size;
  const Words flip = (Words)((Ints)bits >> 31) | 0x80000000u;  // negative: all bits turn round
  return size > infinity ? ~Words{} : bits ^ flip;
}

// -1 in the lanes of the keys that lie below a range, and of those inside.
struct Places {
  Ints below, inside;
};

template <bool kMagnitude>
inline Places places(Words keys, uint32_t low, uint32_t width) {
  const Words above = keys - low;
  // Both are below 2^31 for magnitudes: the sign tells, where AVX2 compares no unsigned numbers.
  return {kMagnitude ? (Ints)above < 0 : keys < low, above <= width};
}

template <class Vector, bool kMagnitude, class Item>
Found find(const Item* bits, int64_t n, const KeyRange& range, uint32_t* out) {
  const uint32_t low = range.low, width = range.high - range.low, infinity = range.infinity;
  const int64_t step = 4 * kLanes;
  Ints below = {}, inside = {};
  int64_t written = 0, i = 0;
  for (; i + step <= n; i += step) {
    Words keys[4];
    Ints within[4];
    for (int part = 0; part < 4; ++part) {
      keys[part] = keys_of<kMagnitude>(widen(load<Vector>(bits + i + part * kLanes)), infinity);
      const Places found = places<kMagnitude>(keys[part], low, width);
      below += found.below;
      within[part] = found.inside;
    }
    const Ints together = (within[0] + within[1]) + (within[2] + within[3]);
    inside += together;
    if (out == nullptr || !any(together)) continue;
    for (int part = 0; part < 4; ++part) {  // no branch: most would be mispredicted
      written += store_chosen(out + written, keys[part], within[part]);
    }
  }
  Found found{0, 0};
  for (int lane = 0; lane < kLanes; ++lane) {
    found.below -= below[lane];
    found.inside -= inside[lane];
  }
  for (; i < n; ++i) {
    const uint32_t key = keys_of<kMagnitude>(widen(load_part<Vector>(bits + i, 1)), infinity)[0];
    found.below += key < low;
    if (key - low > width) continue;
    ++found.inside;
    if (out != nullptr) out[written++] = key;
  }
  return found;
}

}  // namespace

Found find_32(const uint32_t* bits, int64_t n, const KeyRange& range, uint32_t* out) {
  return range.magnitude ? find<Words, true>(bits, n, range, out)
                         : find<Words, false>(bits, n, range, out);
}

Found find_16(const uint16_t* bits, int64_t n, const KeyRange& range, uint32_t* out) {
  return range.magnitude ? find<Halves, true>(bits, n, range, out)
                         : find<Halves, false>(bits, n, range, out);
}

}  // namespace st::ST_LEVEL
