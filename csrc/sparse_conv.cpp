// Sparse convolutions over a batch: parts of the work in parallel, each output summed in one order.
#include <algorithm>
#include <new>
#include <vector>

#include "api.h"
#include "dispatch.h"
#include "pool.h"
#include "split.h"

namespace st {
namespace {

constexpr std::int64_t kSmallest = 1 << 21;  // multiply-adds, about 40 us: worth a second thread
constexpr std::int64_t kVector = 16;         // floats that blocks of one may read too far

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

std::int64_t work(const ConvCall& call) {
  const Conv& conv = call.conv;
  const std::int64_t entries = conv.starts[conv.groups * conv.outputs * conv.taps];
  return entries * conv.rows * conv.columns * conv.images * call.blocks;
}

void forward(const ConvCall& call, int threads) {
  const Conv& conv = call.conv;
  const Kernels& table = kernels();
  const bool one = conv.images == 1;
  if (work(call) < kSmallest) threads = 1;
  std::vector<float> phases;
  const std::int64_t area = one && call.phases > 1 ? call.phases * call.phases * call.in_plane : 0;
  const std::int64_t block = area ? call.channels * area : call.in_block;
  const Split planes{call.channels, call.phases, call.in_plane, call.in_rows, call.in_columns};
  if (area) {
    phases.resize(static_cast<std::size_t>(call.blocks * block + kVector));
    parallel_for(call.blocks, 1, threads, [&](std::int64_t first, std::int64_t last) {
      for (auto i = first; i < last; ++i) {
        split(planes, call.in + i * call.in_block, phases.data() + i * block);
      }
    });
  }
  const float* const in = area ? phases.data() : call.in;
  // Few blocks: each is cut into runs of output channels. Sums do not depend on the cut.
  const std::int64_t cuts = std::min(conv.outputs, call.blocks >= 2 * threads ? 1 : 2L * threads);
  const std::int64_t pieces = threads > 1 ? std::max<std::int64_t>(cuts, 1) : 1;
  parallel_for(call.blocks * pieces, 1, threads, [&](std::int64_t first, std::int64_t last) {
    for (auto i = first; i < last; ++i) {
      const std::int64_t b = i / pieces, piece = i % pieces, at = b * call.out_block;
      (one ? table.conv_one : table.conv)(
          conv, in + b * block, call.residual ? call.residual + at : nullptr, call.out + at,
          {conv.outputs * piece / pieces, conv.outputs * (piece + 1) / pieces, 0, conv.rows});
    }
  });
}

// Each entry's sum is one thread's, over the blocks in order.
void weight_grad(const ConvCall& call, int threads) {
  const Conv& conv = call.conv;
  const Kernels& table = kernels();
  std::fill_n(call.grads, conv.starts[conv.groups * conv.outputs * conv.taps], 0.0f);
  if (work(call) < kSmallest) threads = 1;
  const std::int64_t pieces = threads > 1 ? std::min<std::int64_t>(conv.outputs, 4L * threads) : 1;
  parallel_for(pieces, 1, threads, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t b = 0; b < call.blocks; ++b) {
      table.conv_grad(conv, call.in + b * call.in_block, call.out + b * call.out_block, call.grads,
                      conv.outputs * first / pieces, conv.outputs * last / pieces);
    }
  });
}

template <class Function>
void each_channels(const Packed& call, int threads, const Function& function) {
  const Planes& p = call.planes;
  const std::int64_t plane = (p.rows + 2 * p.halo) * (p.columns + 2 * p.halo) * p.block;
  const std::int64_t blocks = ceil_div(call.batch, p.block);
  const std::int64_t some = 16, runs = ceil_div(call.channels, some);
  if (blocks * call.channels * plane < kSmallest / 8) threads = 1;
  parallel_for(blocks * runs, 1, threads, [&](std::int64_t first, std::int64_t last) {
    for (auto i = first; i < last; ++i) {
      const std::int64_t b = i / runs, from = i % runs * some;
      Planes planes = p;
      planes.images = std::min(p.block, call.batch - b * p.block);
      function(planes, call.tensor + b * p.block * p.image,
               call.packed + b * call.channels * plane, from,
               std::min(call.channels, from + some));
    }
  });
}

template <class Function>
int guarded(const Function& function) {
  try {
    function();
    return kOk;
  } catch (const std::bad_alloc&) {
    return kNoMemory;
  }
}

}  // namespace
}  // namespace st

int st_pack(const st::Packed* packed, int threads) {
  st::each_channels(*packed, threads, [](const auto& planes, auto tensor, auto to, auto... some) {
    st::kernels().pack(planes, tensor, to, some...);
  });
  return st::kOk;
}

int st_unpack(const st::Packed* packed, int threads) {
  st::each_channels(*packed, threads, [](const auto& planes, auto tensor, auto from, auto... some) {
    st::kernels().unpack(planes, from, tensor, some...);
  });
  return st::kOk;
}

int st_conv(const st::ConvCall* call, int threads) {
  return st::guarded([&] { st::forward(*call, threads); });
}

int st_conv_grad(const st::ConvCall* call, int threads) {
  return st::guarded([&] { st::weight_grad(*call, threads); });
}
