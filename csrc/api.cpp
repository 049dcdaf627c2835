#include "api.h"

#include "dispatch.h"

int st_abi() { return st::kAbi; }

int st_use_level(int wanted) { return st::use_level(wanted); }
