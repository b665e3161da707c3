// The kernels with untyped arguments, each defined in a file of its own so that they compile side by side.
#pragma once
#include "forward.h"
#include "kernels.h"

namespace readouts {
namespace READOUTS_ISA {

void reduce_any(DType dtype, const Graphs& g, const Reductions& reductions, const void* x, void* out);
void update_any(DType dtype, const Graphs& g, const Reductions& reductions, const void* x, int64_t sources,
                void* target);
void reduce_directly_any(DType dtype, const Graphs& g, const Reductions& reductions, const void* x,
                         const int64_t* index, bool updates, unsigned char* broken, void* out);
void reduce_backward_any(DType dtype, const Graphs& g, const Reductions& reductions, const void* grad, const void* x,
                         const void* out, const int64_t* index, void* result);
void reduce_integers_any(DType dtype, DType result, const Graphs& g, int64_t kind, const void* x, void* out,
                         int64_t stride);
void select_any(DType dtype, DType result, const Graphs& g, const void* x, const int64_t* ranks, int64_t count,
                void* out, void* means);
void keep_any(DType dtype, const Graphs& g, const void* x, const void* bounds, const int64_t* cut,
              const int64_t* kept_ptr, void* kept);
void trim_backward_any(DType dtype, const Graphs& g, const void* x, const void* bounds, const int64_t* cut,
                       const void* grad, void* result);
void weighted_mean_any(DType dtype, const Graphs& g, const void* x, const void* weight, bool shared, double* means,
                       double* totals);
void scale_rows_any(DType dtype, const Graphs& g, const double* table, const int64_t* index, const void* weight,
                    bool shared, void* result);
void weight_gradient_any(DType dtype, const Graphs& g, const double* slopes, const double* means, const int64_t* index,
                         const void* x, const void* weight, void* result);
void shared_weight_gradient_any(DType dtype, const Graphs& g, const double* slopes, const double* means,
                                const int64_t* index, const void* x, const void* weight, void* result);

inline Offsets offsets_of(const Graphs& graphs) { return {graphs.ptr, graphs.graphs}; }

// Call work(T{}) with the C++ type of a floating-point dtype.
template <class Work>
void with_float(DType dtype, const Work& work) {
  if (dtype == kFloat64)
    work(double{});
  else if (dtype == kFloat32)
    work(float{});
  else if (dtype == kFloat16)
    work(float16{});
  else if (dtype == kBFloat16)
    work(bfloat16{});
}

// Call work(T{}) with the C++ type of an integer dtype.
template <class Work>
void with_integer(DType dtype, const Work& work) {
  if (dtype == kInt64)
    work(int64_t{});
  else if (dtype == kInt32)
    work(int32_t{});
  else if (dtype == kInt16)
    work(int16_t{});
  else if (dtype == kInt8)
    work(int8_t{});
  else if (dtype == kUInt8)
    work(uint8_t{});
}

inline Entry* entries_of(const Reductions& reductions, Scratch& scratch) {
  scratch.reserve(reductions.count * sizeof(Entry));
  Entry* entries = scratch.take<Entry>(reductions.count);
  for (int64_t entry = 0; entry < reductions.count; ++entry)
    entries[entry] = {(Kind)reductions.kinds[entry], reductions.blocks[entry]};
  return entries;
}

}  // namespace READOUTS_ISA
}  // namespace readouts
