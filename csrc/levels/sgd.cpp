// A step of SGD for the kept weights of one block. Groups without any are not read.
#include <string.h>

#include "level.h"

namespace st::ST_LEVEL {
namespace {

constexpr int kGroup = 16;  // weights of one cache line
constexpr int kPiece = 4096;
constexpr int kAhead = 16;
constexpr uint32_t kExponent = 0x7f800000u;

template <bool kMomentum, bool kNesterov>
inline uint32_t move(const Sgd& sgd, float* __restrict weights, const float* __restrict grads,
                     float* __restrict momentum, const uint8_t* __restrict keep, int64_t n) {
  uint32_t bad = 0;
  for (int64_t i = 0; i < n; ++i) {
    const bool kept = keep[i] != 0;
    float step = sgd.sign * grads[i] + sgd.decay * weights[i];
    if (kMomentum) {
      const float moved = sgd.momentum * momentum[i] + step;
      step = kNesterov ? step + sgd.momentum * moved : moved;
      momentum[i] = kept ? moved : momentum[i];
    }
    const float moved = weights[i] - sgd.rate * step;
    weights[i] = kept ? moved : weights[i];
    uint32_t bits;
    memcpy(&bits, &weights[i], sizeof bits);
    bad |= static_cast<uint32_t>((bits & kExponent) == kExponent);
  }
  return bad;
}

template <bool kMomentum, bool kNesterov>
bool block(const Sgd& sgd, float* weights, const float* grads, float* momentum,
           const uint8_t* keep, int64_t n) {
  uint32_t bad = 0;
  for (int64_t start = 0; start < n; start += kPiece) {
    const int64_t length = n - start < kPiece ? n - start : kPiece;
    // Listed first, without a branch, so that memory can be asked for before it is needed.
    int32_t groups[kPiece / kGroup + kAhead];
    int64_t count = 0, i = 0;
    for (; i + kGroup <= length; i += kGroup) {
      uint64_t any[2];
      memcpy(any, keep + start + i, sizeof any);
      groups[count] = static_cast<int32_t>(i);
      count += (any[0] | any[1]) != 0;
    }
    for (int64_t ahead = count; ahead < count + kAhead; ++ahead) groups[ahead] = 0;
    for (int64_t k = 0; k < count; ++k) {
      const int64_t next = start + groups[k + kAhead];
      __builtin_prefetch(weights + next, 1);
      __builtin_prefetch(grads + next);
      if (kMomentum) __builtin_prefetch(momentum + next, 1);
      const int64_t at = start + groups[k];
      bad |= move<kMomentum, kNesterov>(sgd, weights + at, grads + at,
                                        kMomentum ? momentum + at : nullptr, keep + at, kGroup);
    }
    const int64_t at = start + i;
    bad |= move<kMomentum, kNesterov>(sgd, weights + at, grads + at,
                                      kMomentum ? momentum + at : nullptr, keep + at, length - i);
  }
  return bad != 0;
}

}  // namespace

bool sgd(const Sgd& sgd, float* weights, const float* grads, float* momentum, const uint8_t* keep,
         int64_t n) {
  if (momentum == nullptr) return block<false, false>(sgd, weights, grads, momentum, keep, n);
  return sgd.nesterov ? block<true, true>(sgd, weights, grads, momentum, keep, n)
                      : block<true, false>(sgd, weights, grads, momentum, keep, n);
}

}  // namespace st::ST_LEVEL
