// The block kernels, compiled once for each processor level (ST_LEVEL: generic, v3, v4).
//
// Files in this folder are serial loops over plain memory. They must not use inline functions or
// templates of the standard library: the linker keeps one copy of those for all levels, and it
// may be the one with instructions that this processor lacks.
#pragma once

#include <stdint.h>

namespace st {

struct Sums {
  double magnitude, activation;
};

// Keys are unsigned numbers in the order of the values: of |x|, or of x itself; NaN is the largest.
struct KeyRange {
  uint32_t low, high;   // both included
  uint32_t infinity;    // bits of +infinity in the upper end of a word
  bool magnitude;       // of |x|
};

struct Found {
  int64_t below, inside;
};

// One sparse convolution of activations that lie as [channel][row][column][image of a block], with
// room around each plane. Strides and offsets count floats. A weight's entry is the offset of the
// input that it multiplies for output (0, 0), and its value. Entries are ordered by group of input
// channels, output channel (as `order` has them), kernel row: `starts` has the border of each such
// run, and the end. Neighbours in that order have almost as many entries, so that the processor
// foresees the ends of the loops over them.
struct Conv {
  int64_t outputs, groups, taps;   // output channels, groups of input channels, kernel rows
  int64_t rows, columns, images;   // of the output; images in a block: 1 or a multiple of 16
  int64_t padding, stride, height; // output row y meets input row y * stride + tap - padding
  int64_t in_row, in_column;       // from one output's inputs to the next's
  int64_t out_plane, out_row, out_column;
  int64_t band;                    // rows of outputs computed together: 1, 2 or 4
  int64_t relu;                    // 0 or 1
  const int32_t* order;            // output channels, those with the most entries first
  const int32_t* starts;           // groups * outputs * taps + 1
  const int32_t* offsets;
  const float* values;
  const float* bias;               // of each output channel, or null
};

// A block of activations, to be laid from or to a tensor of any strides (in floats).
struct Planes {
  int64_t images, block, rows, columns, halo;  // images: the block's own, at most `block`
  int64_t image, channel, row, column;         // strides of the tensor
};

// What of a step is wanted: output channels [first, last), of a convolution those at these places
// of its order, and output rows [top, bottom).
struct Part {
  int64_t first, last, top, bottom;
};

// How a plane lies before and behind a step: floats from one channel and row to the next. Steps
// get the addresses of the first entries inside the halo.
struct Field {
  int64_t plane, row;
};

// out = in * scale + shift, plus other, then ReLU.
struct Blend {
  Field in, other, out;
  int64_t rows, length;  // length: floats of a row, all images of the block
  const float* scale;    // of each channel, or null
  const float* shift;
  int64_t relu;          // 0 or 1
};

// The maximum or the mean of windows; what lies outside of the input counts for neither.
struct Pooling {
  Field in, out;
  int64_t in_rows, in_columns, rows, columns, images;  // images of a block
  int64_t window[2], stride[2], padding[2];
  int64_t largest;        // 1 for the maximum, 0 for the mean
  int64_t count_padding;  // 1: the mean divides by the window's size even at the edge
};

// [channel][row][column] as channels of one pixel each.
struct Flattening {
  Field in, out;
  int64_t rows, columns, images;
};

// One channel of one block of images, from its first entry inside the halo.
struct ChannelField {
  int64_t rows, columns, block, images;  // images: the block's own, at most `block`
  int64_t in_pitch, out_pitch;           // floats from one row to the next, before and behind
};

struct Moments {
  double mean, squares;  // squares: the sum of squared distances from the mean
};

// Batch norm of a channel, (x - mean) * scale + shift, and the constants of its gradient,
// g * scale - (x - mean) * along - plain.
struct Channel {
  float mean, scale, shift, along, plain;
  int64_t relu;  // 0 or 1
};

struct NormGrad {
  const float* grad;  // of the output
  const float* in;
  const float* out;   // tells where ReLU was at zero; null: that is computed from `in`
  float* masked;      // gets the gradient behind ReLU; or null
  float* in_grad;
};

struct GradSums {
  double plain, along;  // of g and of g * (x - mean)
};

// Pooling over windows that do not overlap.
struct Windows {
  int64_t rows, columns, block;          // of the output
  int64_t height, width;                 // of a window
  int64_t in_pitch, out_pitch, largest;  // largest: 1 for the maximum, 0 for the mean
};

struct Sgd {
  float rate, momentum, decay, sign;  // sign: -1 to go uphill
  bool nesterov;
};

// One processor level's kernels.
struct Kernels {
  Sums (*hypersparse_sums)(const float* weights, int64_t n, float steepness);
  void (*hypersparse_add)(const float* weights, float* grads, int64_t n, float steepness,
                          float factor);
  void (*hypersparse_set)(const float* weights, float* grads, int64_t n, float steepness,
                          float factor);
  // Keys below the range are counted; those inside are counted and, given `out` (room for n and
  // one vector of 16 more), written there.
  Found (*find_32)(const uint32_t* bits, int64_t n, const KeyRange& range, uint32_t* out);
  Found (*find_16)(const uint16_t* bits, int64_t n, const KeyRange& range, uint32_t* out);
  // Zero where `keep` is zero; whether a kept entry has all exponent bits set (infinity or NaN).
  bool (*mask_64)(uint64_t* data, const uint8_t* keep, int64_t n, uint64_t exponent);
  bool (*mask_32)(uint32_t* data, const uint8_t* keep, int64_t n, uint32_t exponent);
  bool (*mask_16)(uint16_t* data, const uint8_t* keep, int64_t n, uint16_t exponent);
  // A step of the kept weights; whether one that was looked at is infinite or NaN. `momentum` may
  // be null.
  bool (*sgd)(const Sgd& sgd, float* weights, const float* grads, float* momentum,
              const uint8_t* keep, int64_t n);
  // Part of one block of images; `residual` (or null) lies as `out`.
  void (*conv)(const Conv& conv, const float* in, const float* residual, float* out,
               const Part& part);
  // The same for one image: reads, but does not use, up to 15 floats after the last input.
  void (*conv_one)(const Conv& conv, const float* in, const float* residual, float* out,
                   const Part& part);
  // Adds to `grads` of each entry; `out` holds the gradient of the outputs.
  void (*conv_grad)(const Conv& conv, const float* in, const float* out, float* grads,
                    int64_t first, int64_t last);
  // Channels [first, last) between a tensor and the packed layout, whose halo and missing images
  // become zero.
  void (*pack)(const Planes& planes, const float* tensor, float* packed, int64_t first,
               int64_t last);
  void (*unpack)(const Planes& planes, const float* packed, float* tensor, int64_t first,
                 int64_t last);
  // One block of images; `other` may be null, and each may be `out` where they lie alike.
  void (*blend)(const Blend& blend, const float* in, const float* other, float* out,
                const Part& part);
  void (*pooling)(const Pooling& pooling, const float* in, float* out, const Part& part);
  void (*flatten)(const Flattening& flattening, const float* in, float* out, int64_t first,
                  int64_t last);
  // One channel of one block; `residual` (or null) lies as `out`.
  Moments (*moments)(const ChannelField& field, const float* in);
  void (*norm)(const ChannelField& field, const Channel& channel, const float* in, const float* residual,
               float* out);
  GradSums (*norm_sums)(const ChannelField& field, const Channel& channel, const NormGrad& at);
  // Zero for missing images.
  void (*norm_grad)(const ChannelField& field, const Channel& channel, const NormGrad& at);
  void (*window)(const Windows& windows, const float* in, float* out);
  // What no window covers is not written.
  void (*window_grad)(const Windows& windows, const float* in, const float* out_grad,
                      float* in_grad);
};

namespace generic {
extern const Kernels kernels;
}
namespace v3 {
extern const Kernels kernels;
}
namespace v4 {
extern const Kernels kernels;
}

}  // namespace st
