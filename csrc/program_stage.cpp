// One stage of a program on one block of images.
#include <algorithm>
#include <chrono>

#include "dispatch.h"
#include "program.h"
#include "split.h"

namespace st {
namespace {

void run_conv(const StepConv& step, const ProgramStep& at, float* arena, const Part& part) {
  const Conv& conv = step.conv;
  const float* in = arena + at.in;
  if (conv.images == 1 && step.phases > 1) {
    split({step.channels, step.phases, step.in_plane, step.in_rows, step.in_columns}, in,
          arena + step.scratch);
    in = arena + step.scratch;
  }
  const float* const other = at.other < 0 ? nullptr : arena + at.other;
  (conv.images == 1 ? kernels().conv_one : kernels().conv)(conv, in, other, arena + at.out, part);
}

void run_step(const ProgramStep& at, float* arena, const Part& part) {
  const float* const in = arena + at.in;
  const float* const other = at.other < 0 ? nullptr : arena + at.other;
  float* const out = arena + at.out;
  switch (at.kind) {
    case kConv:
      return run_conv(*static_cast<const StepConv*>(at.what), at, arena, part);
    case kPooling:
      return kernels().pooling(*static_cast<const Pooling*>(at.what), in, out, part);
    case kBlend:
      return kernels().blend(*static_cast<const Blend*>(at.what), in, other, out, part);
    default:
      return kernels().flatten(*static_cast<const Flattening*>(at.what), in, out, part.first,
                               part.last);
  }
}

template <class Function>
void timed(double* seconds, std::int64_t stage, const Function& function) {
  using Clock = std::chrono::steady_clock;
  if (!seconds) return function();
  const auto start = Clock::now();
  function();
  seconds[stage] += std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

Network::Network(const ProgramMake& make)
    : steps_(make.steps, make.steps + make.count),
      pieces_(make.pieces, make.pieces + make.parts),
      ports_(make.ports, make.ports + make.inputs + make.outputs),
      inputs_(make.inputs),
      block_(make.block),
      arenas_(make.arena, {make.rings, make.rings + make.ring_count}) {}

std::int64_t Network::stages() const {
  return static_cast<std::int64_t>(steps_.size() + ports_.size());
}

std::int64_t Network::channels(std::int64_t stage) const {
  const auto i = static_cast<std::size_t>(stage - inputs_);
  if (stage < inputs_ || i >= steps_.size()) return 1;
  const ProgramStep& step = steps_[i];
  // What splits its input first is not shared: every piece would need the whole input.
  const bool splits = step.kind == kConv && static_cast<const StepConv*>(step.what)->phases > 1;
  return splits && block_ == 1 ? 1 : step.channels;
}

std::int64_t Network::work(std::int64_t stage) const {
  const auto i = static_cast<std::size_t>(stage - inputs_);
  return stage < inputs_ || i >= steps_.size() ? 0 : steps_[i].work;
}

void Network::stage(const ProgramRun& run, std::int64_t stage, std::int64_t block, float* arena,
                    std::int64_t index, std::int64_t of) const {
  const auto count = static_cast<std::int64_t>(steps_.size());
  if (stage < inputs_) return transfer(run, stage, block, arena);
  if (stage >= inputs_ + count) return transfer(run, stage - count, block, arena);
  const ProgramStep& step = steps_[static_cast<std::size_t>(stage - inputs_)];
  run_step(step, arena,
           {step.channels * index / of, step.channels * (index + 1) / of, 0, step.rows});
}

void Network::whole(const ProgramRun& run, std::int64_t block, float* arena,
                    double* seconds) const {
  const auto count = static_cast<std::int64_t>(steps_.size());
  const auto ports = [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      timed(seconds, i, [&] { stage(run, i, block, arena, 0, 1); });
    }
  };
  ports(0, inputs_);
  for (const ProgramPiece& piece : pieces_) {
    timed(seconds, inputs_ + piece.step, [&] {
      const ProgramStep& step = steps_[static_cast<std::size_t>(piece.step)];
      run_step(step, arena, {0, step.channels, piece.top, piece.bottom});
    });
  }
  ports(inputs_ + count, stages());
}

void Network::transfer(const ProgramRun& run, std::int64_t index, std::int64_t block,
                       float* arena) const {
  const Port& port = ports_[static_cast<std::size_t>(index)];
  const PortTensor& tensor = run.tensors[index];
  const std::int64_t images = std::min(block_, run.batch - block * block_);
  const Planes planes{images,       block_,         port.rows,  port.columns,  port.halo,
                      tensor.image, tensor.channel, tensor.row, tensor.column};
  float* const data = tensor.data + block * block_ * tensor.image;
  float* const packed = arena + port.place;
  index < inputs_ ? kernels().pack(planes, data, packed, 0, port.channels)
                  : kernels().unpack(planes, packed, data, 0, port.channels);
}

}  // namespace st
