#include "api.h"

#include "dispatch.h"
#include "pool.h"

int st_abi() { return st::kAbi; }

int st_use_level(int wanted) { return st::use_level(wanted); }

void st_use_openmp(void* parallel) { st::use_openmp(reinterpret_cast<st::Parallel>(parallel)); }
