// Vectors of the level's width, by the compiler's own vector types.
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace st::ST_LEVEL {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));

template <class Vector, class Item>
inline Vector load(const Item* from) {
  Vector vector;
  __builtin_memcpy(&vector, from, sizeof vector);
  return vector;
}

// The first `n` items, zeros after them.
template <class Vector, class Item>
inline Vector load_part(const Item* from, int64_t n) {
  Vector vector = {};
  __builtin_memcpy(&vector, from, static_cast<size_t>(n) * sizeof(Item));
  return vector;
}

template <class Vector, class Item>
inline void store(Item* to, const Vector& vector) {
  __builtin_memcpy(to, &vector, sizeof vector);
}

template <class Vector, class Item>
inline void store_part(Item* to, const Vector& vector, int64_t n) {
  __builtin_memcpy(to, &vector, static_cast<size_t>(n) * sizeof(Item));
}

inline Floats all(float value) { return Floats{} + value; }

inline Floats magnitude(Floats x) { return (Floats)((Words)x & 0x7fffffffu); }

// Whether any lane is negative; lanes of a mask are 0 or -1.
inline bool any(Ints mask) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)mask) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_epi8((__m256i)mask) != 0;
#else
  uint64_t parts[sizeof mask / 8], found = 0;
  __builtin_memcpy(parts, &mask, sizeof mask);
  for (uint64_t part : parts) found |= part;
  return (found & 0x8000000080000000u) != 0;
#endif
}

#if defined(__AVX2__) && !defined(__AVX512F__)
// For each choice among eight lanes, the chosen ones in order.
struct ChosenLanes {
  uint64_t packed[256];  // a byte for each lane
  constexpr ChosenLanes() : packed() {
    for (int chosen = 0; chosen < 256; ++chosen) {
      for (int lane = 0, place = 0; lane < 8; ++lane) {
        if (((chosen >> lane) & 1) != 0) packed[chosen] |= uint64_t(lane) << (8 * place++);
      }
    }
  }
};
static constexpr ChosenLanes kChosenLanes;  // a table: pext and pdep are slow up to AMD's Zen 2
#endif

// Writes the chosen lanes to `out`, which has room for a whole vector; returns their number.
inline int64_t store_chosen(uint32_t* out, Words words, Ints mask) {
#if defined(__AVX512F__)
  const __mmask16 chosen = _mm512_movepi32_mask((__m512i)mask);
  _mm512_storeu_si512(out, _mm512_maskz_compress_epi32(chosen, (__m512i)words));
  return __builtin_popcount(chosen);
#elif defined(__AVX2__)
  const int chosen = _mm256_movemask_ps((__m256)mask);
  const __m128i lanes = _mm_loadl_epi64((const __m128i*)(kChosenLanes.packed + chosen));
  const __m256i moved =
      _mm256_permutevar8x32_epi32((__m256i)words, _mm256_cvtepu8_epi32(lanes));
  _mm256_storeu_si256((__m256i*)out, moved);
  return __builtin_popcount(chosen);
#else
  int64_t n = 0;
  for (int lane = 0; lane < kLanes; ++lane) {  // no branch: written always, kept where chosen
    out[n] = words[lane];
    n -= mask[lane];
  }
  return n;
#endif
}

}  // namespace st::ST_LEVEL
