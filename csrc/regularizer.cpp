// HyperSparse over all weights: sums per block, added in order; gradients, added or written.
#include <new>
#include <vector>

#include "api.h"
#include "dispatch.h"
#include "pool.h"

namespace st {
namespace {

constexpr std::int64_t kBlock = 4096;  // entries; 16 KB of weights
constexpr std::int64_t kGrain = 8;     // blocks a thread takes at once, about 10 microseconds

void sums(const Span* spans, std::int64_t count, float steepness, double* out, int threads) {
  const Blocks blocks(spans, count, kBlock);
  std::vector<Sums> parts(static_cast<std::size_t>(blocks.count()));
  const Kernels& table = kernels();
  parallel_for(blocks.count(), kGrain, threads, [&](std::int64_t first, std::int64_t last) {
    blocks.each(first, last, [&](auto index, auto row, auto offset, auto length) {
      const float* weights = static_cast<const float*>(spans[row].data) + offset;
      parts[static_cast<std::size_t>(index)] = table.hypersparse_sums(weights, length, steepness);
    });
  });
  Sums total{0.0, 0.0};
  for (const Sums& part : parts) {
    total.magnitude += part.magnitude;
    total.activation += part.activation;
  }
  out[0] = total.magnitude;
  out[1] = total.activation;
}

using Write = void (*)(const float*, float*, std::int64_t, float, float);

void gradient(const Pair* pairs, std::int64_t count, float steepness, float factor, Write write,
              int threads) {
  const Blocks blocks(pairs, count, kBlock);
  parallel_for(blocks.count(), kGrain, threads, [&](std::int64_t first, std::int64_t last) {
    blocks.each(first, last, [&](auto, auto row, auto offset, auto length) {
      write(pairs[row].weights + offset, pairs[row].grads + offset, length, steepness, factor);
    });
  });
}

}  // namespace
}  // namespace st

int st_hypersparse_sums(const st::Span* spans, int64_t count, float steepness, double* out,
                        int threads) try {
  st::sums(spans, count, steepness, out, threads);
  return st::kOk;
} catch (const std::bad_alloc&) {
  return st::kNoMemory;
}

int st_hypersparse_add(const st::Pair* pairs, int64_t count, float steepness, float factor,
                       int threads) try {
  st::gradient(pairs, count, steepness, factor, st::kernels().hypersparse_add, threads);
  return st::kOk;
} catch (const std::bad_alloc&) {
  return st::kNoMemory;
}

int st_hypersparse_set(const st::Pair* pairs, int64_t count, float steepness, float factor,
                       int threads) try {
  st::gradient(pairs, count, steepness, factor, st::kernels().hypersparse_set, threads);
  return st::kOk;
} catch (const std::bad_alloc&) {
  return st::kNoMemory;
}
