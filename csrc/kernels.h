// The kernels of one instruction set, as functions of untyped arguments.
#pragma once
#include <cstdint>

namespace readouts {

enum DType : int32_t { kFloat64, kFloat32, kFloat16, kBFloat16, kInt64, kInt32, kInt16, kInt8, kUInt8 };

struct Graphs {
  const int64_t* ptr;  // checked offsets [B + 1] that nobody else can write to
  int64_t graphs, nodes, features;
  const int64_t* order;  // null where the nodes lie graph by graph
  int threads;
  bool flag_works;
  bool* wrong;  // set where an index named nothing
};

struct Reductions {
  const int64_t* kinds;   // ascending
  const int64_t* blocks;  // of the output
  int64_t count;
};

struct Kernels {
  const char* name;
  bool (*supported)();
  bool (*flag_works)();
  void (*reduce)(DType, const Graphs&, const Reductions&, const void* x, void* out);
  void (*update)(DType, const Graphs&, const Reductions&, const void* x, int64_t sources, void* target);
  void (*reduce_directly)(DType, const Graphs&, const Reductions&, const void* x, const int64_t* index, bool updates,
                          unsigned char* broken, void* out);
  void (*reduce_backward)(DType, const Graphs&, const Reductions&, const void* grad, const void* x, const void* out,
                          const int64_t* index, void* result);
  void (*reduce_integers)(DType, DType result, const Graphs&, int64_t kind, const void* x, void* out, int64_t stride);
  void (*select)(DType, DType result, const Graphs&, const void* x, const int64_t* ranks, int64_t count, void* out,
                 void* means);
  void (*keep)(DType, const Graphs&, const void* x, const void* bounds, const int64_t* cut, const int64_t* kept_ptr,
               void* kept);
  void (*trim_backward)(DType, const Graphs&, const void* x, const void* bounds, const int64_t* cut, const void* grad,
                        void* result);
  void (*weighted_mean)(DType, const Graphs&, const void* x, const void* weight, bool shared, double* means,
                        double* totals);
  void (*scale_rows)(DType, const Graphs&, const double* table, const int64_t* index, const void* weight, bool shared,
                     void* result);
  void (*weight_gradient)(DType, const Graphs&, const double* slopes, const double* means, const int64_t* index,
                          const void* x, const void* weight, void* result);
  void (*shared_weight_gradient)(DType, const Graphs&, const double* slopes, const double* means,
                                 const int64_t* index, const void* x, const void* weight, void* result);
};

}  // namespace readouts
