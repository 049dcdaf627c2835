// The C interface, called from Python through ctypes. Raise ST_ABI with every change of it.
#pragma once

#include <stdint.h>

#include "levels/level.h"
#include "spans.h"

#define ST_API extern "C" __attribute__((visibility("default")))

namespace st {

constexpr int kAbi = 8;

enum Status : int { kOk = 0, kNoMemory = 1 };
enum Kind : int { kFloat32 = 0, kBfloat16 = 1, kFloat16 = 2, kFloat64 = 3 };

struct Pair {
  const float* weights;
  float* grads;
  int64_t size;
};

struct MaskRow {
  const uint8_t* keep;
  int64_t size;
  int64_t tensors;  // how many of the list belong to this mask
};

struct MaskedTensor {
  void* data;
  int64_t kind;
};

// A weight tensor's step of SGD, undamped. Its entries, and those of what belongs to it, lie in one
// order.
struct SgdRow {
  float* weights;
  const float* grads;
  float* buffer;  // of momentum, or null
  const uint8_t* keep;
  int64_t size;
  double rate, momentum, decay;
  int64_t nesterov, maximize;
};

// Activations in the packed layout, [block of images][channel][row][column][image], and a tensor.
struct Packed {
  int64_t batch, channels;
  float* packed;
  float* tensor;
  Planes planes;  // `images` is set by the call
};

// A convolution over a batch. Where one image is a block and `phases` is above 1 (the stride), the
// input is first laid out as phases * phases planes a channel, of every `phases`-th row and column:
// then `in_plane` is such a plane and `in_rows`, `in_columns` are those of the unsplit one.
struct ConvCall {
  Conv conv;
  const float* in;
  const float* residual;  // or null
  float* out;
  float* grads;
  int64_t blocks, in_block, out_block;  // blocks of images, and the floats from one to the next
  int64_t channels, phases, in_plane, in_rows, in_columns;
};

enum StepKind : int64_t { kConv = 0, kPooling = 1, kBlend = 2, kFlatten = 3 };

struct StepConv {
  Conv conv;
  int64_t channels, phases, in_plane, in_rows, in_columns;  // as in ConvCall
  int64_t scratch;                                          // floats from the arena's start
};

// A step of a program. Places are floats from the arena's start to the first entry inside the halo,
// or, where a convolution reads, to the first of all.
struct ProgramStep {
  int64_t kind;
  int64_t in, other, out;  // other: -1 where there is none
  int64_t channels, rows;  // of the output
  int64_t work;            // multiply-adds of one block, about
  const void* what;        // StepConv, Pooling, Blend or Flattening; the caller keeps it
};

// An activation that enters or leaves a program.
struct Port {
  int64_t place, channels, rows, columns, halo;  // place: floats to the first of all
};

// Rows [top, bottom) of the results of a step, all channels.
struct ProgramPiece {
  int64_t step, top, bottom;
};

// Floats [start, start + whole) of an arena, of which every `period` may be the same memory: one
// thread that does the pieces in their order reads each row before another takes its place. All
// three are multiples of 1024.
struct ProgramRing {
  int64_t start, period, whole;
};

struct ProgramMake {
  const ProgramStep* steps;
  int64_t count;
  const ProgramPiece* pieces;  // all rows of all steps, in the order in which one thread does them
  int64_t parts;
  const Port* ports;  // inputs, then outputs
  int64_t inputs, outputs;
  int64_t block, arena;  // images of a block; floats of an arena, which starts as zeros
  const ProgramRing* rings;
  int64_t ring_count;
  void** made;           // gets the program
};

struct PortTensor {
  float* data;
  int64_t image, channel, row, column;  // strides in floats
};

struct ProgramRun {
  void* program;
  int64_t batch;
  const PortTensor* tensors;  // one a port
  double* seconds;            // or null; else each step's time is added: inputs, steps, outputs
};

// Batch norm of packed activations; what a function does not name it leaves alone.
struct NormCall {
  int64_t batch, block, channels, rows, columns, in_halo, out_halo;
  const float* in;
  const float* residual;  // lies as `out`; or null
  float* out;             // of norm: written; of its gradients: read, or null (see NormGrad)
  const float* grad;      // lies as `out`
  float* masked;          // lies as `out`; or null
  float* in_grad;         // lies as `in`
  const float* constants;  // five of each channel: mean, scale, shift, along, plain
  double* sums;           // two of each channel
  int64_t relu;
};

// Pooling of packed activations over windows that do not overlap.
struct WindowCall {
  int64_t blocks, channels, block, rows, columns, in_halo;  // of the input
  int64_t height, width, out_halo, largest;                 // of a window
  const float* in;
  float* out;
  const float* grad;  // lies as `out`
  float* in_grad;     // lies as `in`
};

}  // namespace st

// Version of this interface; the loader refuses a library with another one.
ST_API int st_abi();
// See st::use_level.
ST_API int st_use_level(int wanted);
// See st::use_openmp: the address of GOMP_parallel, or null.
ST_API void st_use_openmp(void* parallel);

// The value of 0-based `rank` among all entries (their magnitudes if asked), NaN above all;
// written to `out` in the entries' own kind (not float64). 0 <= rank < number of entries.
ST_API int st_kth(const st::Span* spans, int64_t count, int kind, int magnitude, int64_t rank,
                  void* out, int threads);

// out[0] = sum |w|, out[1] = sum tanh(steepness |w|), over all spans of float32.
ST_API int st_hypersparse_sums(const st::Span* spans, int64_t count, float steepness, double* out,
                               int threads);
// grad += factor * sign(w) * sech^2(steepness |w|), in place.
ST_API int st_hypersparse_add(const st::Pair* pairs, int64_t count, float steepness, float factor,
                              int threads);
// grad = the same; what it held is not read.
ST_API int st_hypersparse_set(const st::Pair* pairs, int64_t count, float steepness, float factor,
                              int threads);

// Store +0 where a mask is 0, in every tensor of the mask; bad[i] = 1 where tensor i keeps an
// infinity or a NaN (else unchanged).
ST_API int st_mask(const st::MaskRow* rows, int64_t count, const st::MaskedTensor* tensors,
                   uint8_t* bad, int threads);

// Move the kept weights; the others, and their part of the buffer, stay as they are. bad[i] = 1
// where row i has an infinity or a NaN among the weights that were looked at (else unchanged).
ST_API int st_sgd(const st::SgdRow* rows, int64_t count, uint8_t* bad, int threads);

// A tensor's entries into the packed layout, whose halo and missing images become zero.
ST_API int st_pack(const st::Packed* packed, int threads);
ST_API int st_unpack(const st::Packed* packed, int threads);

// Writes the outputs, not their halo. For blocks of one image up to 15 floats after the input are
// read.
ST_API int st_conv(const st::ConvCall* call, int threads);
// grads[i] = the gradient of entry i, where `out` holds that of the outputs. Not for blocks of one.
ST_API int st_conv_grad(const st::ConvCall* call, int threads);

// A program keeps arenas between calls; runs of one program may overlap.
ST_API int st_program_make(const st::ProgramMake* make, int threads);
ST_API int st_program_run(const st::ProgramRun* run, int threads);
ST_API int st_program_free(const st::ProgramRun* run, int threads);
// sums = mean of each channel and its sum of squared distances from it, over all images.
ST_API int st_moments(const st::NormCall* call, int threads);
// out = (in - mean) * scale + shift, plus residual, then ReLU where asked.
ST_API int st_norm(const st::NormCall* call, int threads);
// With g = grad where ReLU let it pass: sums = those of g and of g * (in - mean); masked = g.
ST_API int st_norm_sums(const st::NormCall* call, int threads);
// in_grad = g * scale - (in - mean) * along - plain, zero for the missing images.
ST_API int st_norm_grad(const st::NormCall* call, int threads);

// Writes the outputs, not their halo.
ST_API int st_window(const st::WindowCall* call, int threads);
// Writes what a window covers; ties go to the first, as in PyTorch.
ST_API int st_window_grad(const st::WindowCall* call, int threads);
