// The HyperSparse sums and gradient of one block.
#include "level.h"
#include "vector.h"

namespace st::ST_LEVEL {
namespace {

constexpr float kLog2E = 1.44269504f;
constexpr float kLn2High = 0.693359375f;  // 9 bits, so that its products with integers are exact
constexpr float kLn2Low = -2.12194440e-4f;
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
constexpr float kLowest = -87.0f;      // exp of it is still a normal number, 1e-38

// exp(y) = scale * (1 + rest), for y <= 0; below kLowest as at kLowest.
struct Exponential {
  Floats scale, rest;
};

inline Exponential exponential(Floats y) {
  y = y > kLowest ? y : all(kLowest);
  const Floats shifted = y * kLog2E + kRound;
  const Floats whole = shifted - kRound;
  const Floats r = y - whole * kLn2High - whole * kLn2Low;
  // Taylor to the seventh power: 5e-9 of the value at the ends, |r| = ln(2) / 2.
  const Floats tail =
      1.0f / 2 +
      r * (1.0f / 6 +
           r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720 + r * (1.0f / 5040)))));
  const Ints scale = ((Ints)shifted << 23) + 0x3f800000;  // the integer lies in the lowest bits
  return {(Floats)scale, r + r * r * tail};
}

// exp(-2x) - 1 for x >= 0, which keeps all digits near zero.
inline Floats below_one(const Exponential& e) { return e.scale * e.rest + (e.scale - 1.0f); }

inline Floats tanh_of(Floats x) {
  const Floats minus = below_one(exponential(-2.0f * x));
  return -minus / (2.0f + minus);
}

// sech^2(x) for x >= 0: 1 - tanh^2 is best near zero and loses all digits in the tail, where
// 4 e / (1 + e)^2 with e = exp(-2x) is exact to rounding.
inline Floats sech2_of(Floats x) {
  const Exponential e = exponential(-2.0f * x);
  const Floats minus = below_one(e), inverse = 1.0f / (2.0f + minus);
  const Floats square = inverse * inverse, tanh2 = minus * minus * square;
  return tanh2 < 0.25f ? 1.0f - tanh2 : 4.0f * (e.scale * e.rest + e.scale) * square;
}

// factor * sign(w) * sech^2(steepness |w|); nothing at exact zeros, which copysign would move.
inline Floats slope(Floats w, float steepness, float factor) {
  const Words size = (Words)(factor * sech2_of(steepness * magnitude(w)));
  return (Floats)((size ^ ((Words)w & 0x80000000u)) & (Words)(w != 0.0f));
}

inline double total(const Doubles& lanes) {
  double sum = 0.0;
  for (int i = 0; i < kLanes; ++i) sum += lanes[i];
  return sum;
}

struct Lanes {
  Floats magnitudes, activations;

  void add(Floats w, float steepness) {
    const Floats x = magnitude(w);
    magnitudes += x;
    activations += tanh_of(steepness * x);
  }
};

double total_in_double(const float* weights, int64_t n) {
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += __builtin_fabs(static_cast<double>(weights[i]));
  return sum;
}

}  // namespace

Sums hypersparse_sums(const float* weights, int64_t n, float steepness) {
  // Eight additions in float32, the rest in float64: many equal weights round all one way.
  constexpr int64_t kRun = 8, kStep = 2 * kRun * kLanes;
  Doubles magnitudes = {}, activations = {};
  const auto fold = [&](const Lanes& lanes) {
    magnitudes += __builtin_convertvector(lanes.magnitudes, Doubles);
    activations += __builtin_convertvector(lanes.activations, Doubles);
  };
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    Lanes first = {}, second = {};  // two chains hide the latency
    for (int64_t j = i; j < i + kStep; j += 2 * kLanes) {
      first.add(load<Floats>(weights + j), steepness);
      second.add(load<Floats>(weights + j + kLanes), steepness);
    }
    fold(first);
    fold(second);
  }
  for (; i < n; i += kLanes) {
    Lanes rest = {};
    rest.add(load_part<Floats>(weights + i, n - i < kLanes ? n - i : kLanes), steepness);
    fold(rest);
  }
  Sums sums{total(magnitudes), total(activations)};
  // Finite float32 values can overflow in their sum; float64 tells that from a NaN or infinity.
  if (!__builtin_isfinite(sums.magnitude)) sums.magnitude = total_in_double(weights, n);
  return sums;
}

void hypersparse_add(const float* weights, float* grads, int64_t n, float steepness,
                     float factor) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Floats w = load<Floats>(weights + i);
    store(grads + i, load<Floats>(grads + i) + slope(w, steepness, factor));
  }
  if (const int64_t part = n - i; part > 0) {
    const Floats w = load_part<Floats>(weights + i, part);
    store_part(grads + i, load_part<Floats>(grads + i, part) + slope(w, steepness, factor), part);
  }
}

}  // namespace st::ST_LEVEL
