#include "arena.h"

#include <algorithm>
#include <new>
#include <utility>

#include <sys/mman.h>
#include <unistd.h>

namespace st {
namespace {

constexpr std::size_t kHuge = 1 << 21;  // bytes of a huge page

char* zeros(void* where, std::size_t bytes, int flags) {
  void* const made =
      mmap(where, bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
  return made == MAP_FAILED ? nullptr : static_cast<char*>(made);
}

// From a border of huge pages on, if there is one within.
char* aligned_zeros(std::size_t bytes) {
  if (bytes < kHuge) return zeros(nullptr, bytes, MAP_PRIVATE);
  char* const made = zeros(nullptr, bytes + kHuge, MAP_PRIVATE);
  if (!made) return nullptr;
  const std::size_t before = (kHuge - reinterpret_cast<std::uintptr_t>(made) % kHuge) % kHuge;
  if (before) munmap(made, before);
  munmap(made + before + bytes, kHuge - before);
  return made + before;
}

#if defined(__linux__)
// Lays one memory of `period` bytes over all of the ring.
bool close_ring(char* from, std::size_t period, std::size_t whole) {
  char* const memory = zeros(nullptr, period, MAP_SHARED);
  if (!memory) return false;
  bool good = true;
  for (std::size_t at = 0; good && at < whole; at += period) {
    // From a size of 0: mapped a second time.
    good = mremap(memory, 0, std::min(period, whole - at), MREMAP_MAYMOVE | MREMAP_FIXED,
                  from + at) != MAP_FAILED;
  }
  munmap(memory, period);
  return good;
}

bool has_pages_of(std::size_t bytes) {
  return sysconf(_SC_PAGESIZE) == static_cast<long>(bytes);
}
#endif

}  // namespace

Arenas::Arenas(std::int64_t floats, std::vector<ProgramRing> rings)
    : bytes_(static_cast<std::size_t>(floats) * sizeof(float)), rings_(std::move(rings)) {
#if defined(__linux__)
  if (!has_pages_of(4096)) rings_.clear();
#else
  rings_.clear();
#endif
}

Arenas::~Arenas() {
  forget_the_parents();
  for (const Idle& idle : idle_) munmap(idle.arena, bytes_);
}

float* Arenas::take(bool whole) {
  whole = whole || rings_.empty();
  {
    std::lock_guard<std::mutex> lock(lock_);
    forget_the_parents();
    const auto found = std::find_if(idle_.begin(), idle_.end(),
                                    [&](const Idle& idle) { return idle.whole == whole; });
    if (found != idle_.end()) {
      float* const arena = found->arena;
      idle_.erase(found);
      return arena;
    }
    idle_.reserve(idle_.capacity() + 1);  // so that giving back cannot fail
  }
  return make(whole);
}

void Arenas::give(float* arena, bool whole) {
  std::lock_guard<std::mutex> lock(lock_);
  idle_.push_back({arena, whole || rings_.empty()});
}

// Rings are memory that a child would share with its parent, so a child does not get them.
void Arenas::forget_the_parents() {
  if (owner_ == getpid()) return;
  owner_ = getpid();
  const auto gone = [](const Idle& idle) { return !idle.whole; };
  idle_.erase(std::remove_if(idle_.begin(), idle_.end(), gone), idle_.end());
}

float* Arenas::make(bool whole) const {
  char* const made = aligned_zeros(bytes_);
  if (!made) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
  if (bytes_ >= kHuge) madvise(made, bytes_, MADV_HUGEPAGE);  // a wish; refused, nothing is lost
#endif
#if defined(__linux__)
  for (const ProgramRing& ring : rings_) {
    if (whole) break;
    const auto bytes = [](std::int64_t floats) { return static_cast<std::size_t>(floats) * 4; };
    if (!close_ring(made + bytes(ring.start), bytes(ring.period), bytes(ring.whole))) {
      munmap(made, bytes_);
      throw std::bad_alloc();
    }
  }
  if (!whole) madvise(made, bytes_, MADV_DONTFORK);
#endif
  return reinterpret_cast<float*>(made);
}

}  // namespace st
