// Batch norm and pooling of packed activations: channels in parallel, each sum in one order.
#include <algorithm>

#include "api.h"
#include "dispatch.h"
#include "pool.h"

namespace st {
namespace {

constexpr std::int64_t kSmallest = 1 << 18;  // floats; fewer are not worth a second thread

// Where a channel of a block lies, in floats.
struct Lie {
  std::int64_t pitch, plane, corner;

  Lie(std::int64_t rows, std::int64_t columns, std::int64_t halo, std::int64_t block)
      : pitch((columns + 2 * halo) * block),
        plane((rows + 2 * halo) * pitch),
        corner(halo * (pitch + block)) {}
};

template <class Item>
Item* moved(Item* base, std::int64_t floats) {
  return base ? base + floats : nullptr;
}

// One call's channels, and what the block kernels are given for each.
class Norm {
 public:
  explicit Norm(const NormCall& call)
      : call_(call),
        in_(call.rows, call.columns, call.in_halo, call.block),
        out_(call.rows, call.columns, call.out_halo, call.block),
        blocks_((call.batch + call.block - 1) / call.block) {}

  std::int64_t blocks() const { return blocks_; }

  int useful(int threads) const {
    return blocks_ * call_.channels * in_.plane < kSmallest ? 1 : threads;
  }

  ChannelField field(std::int64_t block) const {
    const std::int64_t images = std::min(call_.block, call_.batch - block * call_.block);
    return {call_.rows, call_.columns, call_.block, images, in_.pitch, out_.pitch};
  }

  std::int64_t in(std::int64_t block, std::int64_t channel) const {
    return (block * call_.channels + channel) * in_.plane + in_.corner;
  }

  std::int64_t out(std::int64_t block, std::int64_t channel) const {
    return (block * call_.channels + channel) * out_.plane + out_.corner;
  }

  Channel channel(std::int64_t channel) const {
    const float* const c = call_.constants + 5 * channel;
    return {c[0], c[1], c[2], c[3], c[4], call_.relu};
  }

  NormGrad grad(std::int64_t block, std::int64_t channel) const {
    const std::int64_t from = in(block, channel), to = out(block, channel);
    return {call_.grad + to, call_.in + from, moved<const float>(call_.out, to),
            moved(call_.masked, to), moved(call_.in_grad, from)};
  }

 private:
  const NormCall& call_;
  Lie in_, out_;
  std::int64_t blocks_;
};

// Calls `function(channel)` for all channels.
template <class Function>
void each_channel(const NormCall& call, const Norm& norm, int threads, const Function& function) {
  parallel_for(call.channels, 1, norm.useful(threads), [&](std::int64_t first, std::int64_t last) {
    for (auto c = first; c < last; ++c) function(c);
  });
}

// Calls `function(block, channel)` for all, in the order in which they lie.
template <class Function>
void each_plane(std::int64_t blocks, std::int64_t channels, int threads,
                const Function& function) {
  parallel_for(blocks * channels, 8, threads, [&](std::int64_t first, std::int64_t last) {
    for (auto i = first; i < last; ++i) function(i / channels, i % channels);
  });
}

void moments(const NormCall& call, int threads) {
  const Norm norm(call);
  each_channel(call, norm, threads, [&](std::int64_t c) {
    double mean = 0.0, squares = 0.0, count = 0.0;
    for (std::int64_t b = 0; b < norm.blocks(); ++b) {
      const ChannelField field = norm.field(b);
      const Moments more = kernels().moments(field, call.in + norm.in(b, c));
      const double n = static_cast<double>(field.rows * field.columns * field.images);
      const double apart = more.mean - mean;
      count += n;
      mean += apart * n / count;
      squares += more.squares + apart * apart * n * (count - n) / count;
    }
    call.sums[2 * c] = mean;
    call.sums[2 * c + 1] = squares;
  });
}

void normalise(const NormCall& call, int threads) {
  const Norm norm(call);
  each_plane(norm.blocks(), call.channels, norm.useful(threads), [&](auto b, auto c) {
    const std::int64_t to = norm.out(b, c);
    kernels().norm(norm.field(b), norm.channel(c), call.in + norm.in(b, c),
                   moved(call.residual, to), call.out + to);
  });
}

void sums(const NormCall& call, int threads) {
  const Norm norm(call);
  each_channel(call, norm, threads, [&](std::int64_t c) {
    GradSums all{0.0, 0.0};
    for (std::int64_t b = 0; b < norm.blocks(); ++b) {
      const GradSums more = kernels().norm_sums(norm.field(b), norm.channel(c), norm.grad(b, c));
      all.plain += more.plain;
      all.along += more.along;
    }
    call.sums[2 * c] = all.plain;
    call.sums[2 * c + 1] = all.along;
  });
}

void in_grad(const NormCall& call, int threads) {
  const Norm norm(call);
  each_plane(norm.blocks(), call.channels, norm.useful(threads), [&](auto b, auto c) {
    kernels().norm_grad(norm.field(b), norm.channel(c), norm.grad(b, c));
  });
}

// Calls `function(windows, from, to)`: floats before the planes of input and output.
template <class Function>
void each_windows(const WindowCall& call, int threads, const Function& function) {
  const std::int64_t rows = call.rows / call.height, columns = call.columns / call.width;
  const Lie in(call.rows, call.columns, call.in_halo, call.block);
  const Lie out(rows, columns, call.out_halo, call.block);
  const Windows windows{rows,     columns,   call.block,  call.height, call.width,
                        in.pitch, out.pitch, call.largest};
  if (call.blocks * call.channels * in.plane < kSmallest) threads = 1;
  each_plane(call.blocks, call.channels, threads, [&](auto b, auto c) {
    const std::int64_t at = b * call.channels + c;
    function(windows, at * in.plane + in.corner, at * out.plane + out.corner);
  });
}

}  // namespace
}  // namespace st

int st_moments(const st::NormCall* call, int threads) {
  st::moments(*call, threads);
  return st::kOk;
}

int st_norm(const st::NormCall* call, int threads) {
  st::normalise(*call, threads);
  return st::kOk;
}

int st_norm_sums(const st::NormCall* call, int threads) {
  st::sums(*call, threads);
  return st::kOk;
}

int st_norm_grad(const st::NormCall* call, int threads) {
  st::in_grad(*call, threads);
  return st::kOk;
}

int st_window(const st::WindowCall* call, int threads) {
  st::each_windows(*call, threads, [&](const auto& windows, auto from, auto to) {
    st::kernels().window(windows, call->in + from, call->out + to);
  });
  return st::kOk;
}

int st_window_grad(const st::WindowCall* call, int threads) {
  st::each_windows(*call, threads, [&](const auto& windows, auto from, auto to) {
    const float* const in = call->in ? call->in + from : nullptr;
    st::kernels().window_grad(windows, in, call->grad + to, call->in_grad + from);
  });
  return st::kOk;
}
