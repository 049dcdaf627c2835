#include "dispatch.h"

#include <atomic>

namespace st {
namespace {

struct Choice {
  const Kernels* kernels;
  int level;
};

Choice choose([[maybe_unused]] int wanted) {
#if defined(ST_HAVE_v4)
  if (wanted >= kV4 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return {&v4::kernels, kV4};
  }
#endif
#if defined(ST_HAVE_v3)
  if (wanted >= kV3 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi2")) {
    return {&v3::kernels, kV3};
  }
#endif
  return {&generic::kernels, kGeneric};
}

std::atomic<const Kernels*>& active() {
  static std::atomic<const Kernels*> table{choose(kV4).kernels};
  return table;
}

}  // namespace

const Kernels& kernels() { return *active().load(std::memory_order_acquire); }

int use_level(int wanted) {
  const Choice choice = choose(wanted);
  active().store(choice.kernels, std::memory_order_release);
  return choice.level;
}

}  // namespace st
