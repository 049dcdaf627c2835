// Which processor level's kernels run.
#pragma once

#include "levels/level.h"

namespace st {

enum Level : int { kGeneric = 0, kV3 = 3, kV4 = 4 };

const Kernels& kernels();

// Use the highest level that is built, that this processor has and that is not above `wanted`.
// Returns the level. For tests and benchmarks; the highest of all is the default.
int use_level(int wanted);

}  // namespace st
