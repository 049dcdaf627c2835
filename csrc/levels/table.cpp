// This level's kernels in one table.
#include "level.h"

namespace st::ST_LEVEL {

Sums hypersparse_sums(const float*, int64_t, float);
void hypersparse_add(const float*, float*, int64_t, float, float);
void hypersparse_set(const float*, float*, int64_t, float, float);
Found find_32(const uint32_t*, int64_t, const KeyRange&, uint32_t*);
Found find_16(const uint16_t*, int64_t, const KeyRange&, uint32_t*);
bool mask_64(uint64_t*, const uint8_t*, int64_t, uint64_t);
bool mask_32(uint32_t*, const uint8_t*, int64_t, uint32_t);
bool mask_16(uint16_t*, const uint8_t*, int64_t, uint16_t);
bool sgd(const Sgd&, float*, const float*, float*, const uint8_t*, int64_t);
void conv(const Conv&, const float*, const float*, float*, const Part&);
void conv_one(const Conv&, const float*, const float*, float*, const Part&);
void conv_grad(const Conv&, const float*, const float*, float*, int64_t, int64_t);
void pack(const Planes&, const float*, float*, int64_t, int64_t);
void unpack(const Planes&, const float*, float*, int64_t, int64_t);
void blend(const Blend&, const float*, const float*, float*, const Part&);
void pooling(const Pooling&, const float*, float*, const Part&);
void flatten(const Flattening&, const float*, float*, int64_t, int64_t);
Moments moments(const ChannelField&, const float*);
void norm(const ChannelField&, const Channel&, const float*, const float*, float*);
GradSums norm_sums(const ChannelField&, const Channel&, const NormGrad&);
void norm_grad(const ChannelField&, const Channel&, const NormGrad&);
void window(const Windows&, const float*, float*);
void window_grad(const Windows&, const float*, const float*, float*);

const Kernels kernels{hypersparse_sums, hypersparse_add, hypersparse_set, find_32, find_16,
                      mask_64,          mask_32,         mask_16,         sgd,     conv,
                      conv_one,         conv_grad,       pack,            unpack,  blend,
                      pooling,          flatten,         moments,         norm,    norm_sums,
                      norm_grad,        window,          window_grad};

}  // namespace st::ST_LEVEL
