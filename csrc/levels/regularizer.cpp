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

// factor with the sign of w; zero at exact zeros, which copysign would move.
inline Floats signed_factor(Floats w, float factor) {
  const Words turned = ((Words)w & 0x80000000u) ^ (Words)all(factor);
  return (Floats)(turned & (Words)(w != 0.0f));
}

// Up to x = 1.1, 1.67 times the pruning border, where almost all weights of a sparse network lie,
// polynomials in u = x^2 replace exponential and division. Both are the closest ones (greatest
// deviation least) that are exact at 0: 2.2e-8 for sech^2(x), 1.7e-8 of the value for tanh(x) / x.
constexpr float kNear = 1.21f;
constexpr float kSech2[] = {1.0f,           -0.999998093f, 0.666612506f,
                            -0.377248585f,  0.194288686f,  -0.0905881003f,
                            0.0351844206f,  -0.0095603494f, 0.00128386309f};
constexpr float kTanh[] = {1.0f,          -0.333332211f,  0.133309066f,  -0.0537878275f,
                           0.0212175772f, -0.00754966587f, 0.00201487914f, -0.000277673214f};

template <int kTerms>
inline Floats polynomial(const float (&terms)[kTerms], Floats u) {
  Floats value = all(terms[kTerms - 1]);
  for (int i = kTerms - 2; i >= 0; --i) value = value * u + terms[i];
  return value;
}

// Four vectors, looked at together: a branch for each would be mispredicted four times as often.
constexpr int kGroup = 4;
constexpr int64_t kGroupLanes = kGroup * kLanes;

struct Group {
  Floats w[kGroup], x[kGroup], u[kGroup];  // x = steepness * |w|, u = x^2
  bool near;                               // polynomials serve; perhaps so with a NaN, which stays

  Group(const float* weights, float steepness) {
    // Compared as integers, as floats of at least 0 may be.
    Ints top = {};
    for (int i = 0; i < kGroup; ++i) {
      w[i] = load<Floats>(weights + i * kLanes);
      x[i] = steepness * magnitude(w[i]);
      u[i] = x[i] * x[i];
      top = (Ints)u[i] > top ? (Ints)u[i] : top;
    }
    near = !any(top > (Ints)all(kNear));
  }
};

// A sum in float64 of vectors of float32, in two halves of a vector's width each: GCC splits wider
// vectors by way of memory, which takes as long as all the rest.
struct Total {
  typedef float Part __attribute__((vector_size(2 * kLanes)));
  typedef double WidePart __attribute__((vector_size(4 * kLanes)));
  WidePart low = {}, high = {};

  void add(Floats values) {
    Part parts[2];
    __builtin_memcpy(parts, &values, sizeof values);
    low += __builtin_convertvector(parts[0], WidePart);
    high += __builtin_convertvector(parts[1], WidePart);
  }

  double sum() const {
    const WidePart both = low + high;
    double sum = 0.0;
    for (int i = 0; i < kLanes / 2; ++i) sum += both[i];
    return sum;
  }
};

struct Lanes {
  Floats magnitudes, activations;

  void add(const Group& group) {
    Floats sizes[kGroup], values[kGroup];
    for (int i = 0; i < kGroup; ++i) sizes[i] = magnitude(group.w[i]);
    if (__builtin_expect(group.near, 1)) {
      for (int i = 0; i < kGroup; ++i) values[i] = group.x[i] * polynomial(kTanh, group.u[i]);
    } else {
      for (int i = 0; i < kGroup; ++i) values[i] = tanh_of(group.x[i]);
    }
    magnitudes += (sizes[0] + sizes[1]) + (sizes[2] + sizes[3]);
    activations += (values[0] + values[1]) + (values[2] + values[3]);
  }
};

double total_in_double(const float* weights, int64_t n) {
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += __builtin_fabs(static_cast<double>(weights[i]));
  return sum;
}

// What is written is added to the gradients or takes their place.
template <bool kAdd>
inline void write(float* grads, Floats factors, Floats sech2) {
  store(grads, kAdd ? load<Floats>(grads) + factors * sech2 : factors * sech2);
}

template <bool kAdd>
void gradient(const float* weights, float* grads, int64_t n, float steepness, float factor) {
  int64_t i = 0;
  for (; i + kGroupLanes <= n; i += kGroupLanes) {
    const Group group(weights + i, steepness);
    for (int part = 0; part < kGroup; ++part) {
      const Floats factors = signed_factor(group.w[part], factor);
      float* to = grads + i + part * kLanes;
      if (__builtin_expect(group.near, 1)) {
        write<kAdd>(to, factors, polynomial(kSech2, group.u[part]));
      } else {
        write<kAdd>(to, factors, sech2_of(group.x[part]));
      }
    }
  }
  for (; i < n; i += kLanes) {
    const int64_t part = n - i < kLanes ? n - i : kLanes;
    const Floats w = load_part<Floats>(weights + i, part);
    Floats sum = signed_factor(w, factor) * sech2_of(steepness * magnitude(w));
    if (kAdd) sum += load_part<Floats>(grads + i, part);
    store_part(grads + i, sum, part);
  }
}

}  // namespace

Sums hypersparse_sums(const float* weights, int64_t n, float steepness) {
  // Four groups in float32, the rest in float64: many equal weights round all one way.
  constexpr int64_t kStep = 4 * kGroupLanes;
  Total magnitudes, activations;
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    Lanes lanes = {};
    for (int64_t j = i; j < i + kStep; j += kGroupLanes) lanes.add(Group(weights + j, steepness));
    magnitudes.add(lanes.magnitudes);
    activations.add(lanes.activations);
  }
  for (; i < n; i += kLanes) {
    const int64_t part = n - i < kLanes ? n - i : kLanes;
    const Floats size = magnitude(load_part<Floats>(weights + i, part));
    magnitudes.add(size);
    activations.add(tanh_of(steepness * size));
  }
  Sums sums{magnitudes.sum(), activations.sum()};
  // Finite float32 values can overflow in their sum; float64 tells that from a NaN or infinity.
  if (!__builtin_isfinite(sums.magnitude)) sums.magnitude = total_in_double(weights, n);
  return sums;
}

void hypersparse_add(const float* weights, float* grads, int64_t n, float steepness,
                     float factor) {
  gradient<true>(weights, grads, n, steepness, factor);
}

void hypersparse_set(const float* weights, float* grads, int64_t n, float steepness,
                     float factor) {
  gradient<false>(weights, grads, n, steepness, factor);
}

}  // namespace st::ST_LEVEL
