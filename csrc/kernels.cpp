// All kernels for the instruction set READOUTS_ISA, which the build sets together with the compiler's flags.
#include "kernels.h"

#include "backward.h"
#include "integers.h"
#include "order.h"
#include "weighted.h"

namespace readouts {
namespace READOUTS_ISA {
namespace {

Offsets offsets_of(const Graphs& graphs) { return {graphs.ptr, graphs.graphs}; }

template <class T>
Order<T> order_of(const Graphs& g, const void* x) {
  return {static_cast<const T*>(x), g.nodes, g.features, offsets_of(g), g.order, g.wrong};
}

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

Entry* entries_of(const Reductions& reductions, Scratch& scratch) {
  scratch.reserve(reductions.count * sizeof(Entry));
  Entry* entries = scratch.take<Entry>(reductions.count);
  for (int64_t entry = 0; entry < reductions.count; ++entry)
    entries[entry] = {(Kind)reductions.kinds[entry], reductions.blocks[entry]};
  return entries;
}

void reduce_any(DType dtype, const Graphs& g, const Reductions& reductions, const void* x, void* out) {
  Scratch scratch;
  const Entry* entries = entries_of(reductions, scratch);
  with_float(dtype, [&](auto zero) {
    using T = decltype(zero);
    reduce(Forward<T>{static_cast<const T*>(x), g.nodes, g.features, offsets_of(g), g.order, entries, reductions.count,
                      static_cast<T*>(out), g.flag_works, g.wrong},
           g.threads);
  });
}

void reduce_backward_any(DType dtype, const Graphs& g, const Reductions& reductions, const void* grad, const void* x,
                         const void* out, const int64_t* index, void* result) {
  Scratch scratch;
  const Entry* entries = entries_of(reductions, scratch);
  with_float(dtype, [&](auto zero) {
    using T = decltype(zero);
    reduce_backward(Backward<T>{static_cast<const T*>(grad), static_cast<const T*>(x), static_cast<const T*>(out),
                                g.nodes, g.features, offsets_of(g), g.order, index, entries, reductions.count,
                                static_cast<T*>(result), g.flag_works, g.wrong},
                    g.threads);
  });
}

void reduce_integers_any(DType dtype, DType result, const Graphs& g, int64_t kind, const void* x, void* out) {
  with_integer(dtype, [&](auto zero) {
    using T = decltype(zero);
    Integers<T> call{static_cast<const T*>(x), g.nodes, g.features, offsets_of(g), g.order, (Kind)kind, out, g.wrong};
    if (result == kFloat64)
      reduce_integers<T, double>(call, g.threads);
    else
      reduce_integers<T, float>(call, g.threads);
  });
}

void select_any(DType dtype, const Graphs& g, const void* x, const int64_t* ranks, int64_t count, void* out,
                void* means) {
  with_float(dtype, [&](auto zero) {
    using T = decltype(zero);
    select(order_of<T>(g, x), ranks, count, static_cast<T*>(out), static_cast<T*>(means), g.threads);
  });
}

void keep_any(DType dtype, const Graphs& g, const void* x, const void* bounds, const int64_t* cut,
              const int64_t* kept_ptr, void* kept) {
  with_float(dtype, [&](auto zero) {
    using T = decltype(zero);
    keep(order_of<T>(g, x), static_cast<const T*>(bounds), cut, kept_ptr, static_cast<T*>(kept), g.threads);
  });
}

void trim_backward_any(DType dtype, const Graphs& g, const void* x, const void* bounds, const int64_t* cut,
                       const void* grad, void* result) {
  with_float(dtype, [&](auto zero) {
    using T = decltype(zero);
    trim_backward(order_of<T>(g, x), static_cast<const T*>(bounds), cut, static_cast<const T*>(grad),
                  static_cast<T*>(result), g.threads);
  });
}

void weighted_sum_any(DType dtype, const Graphs& g, const void* x, const void* weight, bool shared, double* out) {
  with_float(dtype, [&](auto zero) {
    using T = decltype(zero);
    weighted_sum(WeightedSum<T>{static_cast<const T*>(x), g.nodes, g.features, offsets_of(g), g.order, out, g.wrong},
                 static_cast<const T*>(weight), shared, g.threads);
  });
}

void scale_rows_any(DType dtype, const Graphs& g, const double* table, const int64_t* index, const void* weight,
                    bool shared, void* result) {
  with_float(dtype, [&](auto zero) {
    using T = decltype(zero);
    Table rows{table, index, g.graphs, g.features, g.wrong};
    auto scale = shared ? scale_rows<T, true> : scale_rows<T, false>;
    share_nodes(g.nodes, g.threads, [&](int64_t begin, int64_t end) {
      scale(rows, static_cast<const T*>(weight), static_cast<T*>(result), begin, end);
    });
  });
}

void weight_gradient_any(DType dtype, const Graphs& g, const double* slopes, const double* means, const int64_t* index,
                         const void* x, const void* weight, void* result) {
  with_float(dtype, [&](auto zero) {
    using T = decltype(zero);
    Table rows{slopes, index, g.graphs, g.features, g.wrong};
    share_nodes(g.nodes, g.threads, [&](int64_t begin, int64_t end) {
      weight_gradient(rows, means, static_cast<const T*>(x), static_cast<const T*>(weight), static_cast<T*>(result),
                      begin, end);
    });
  });
}

void row_dot_any(DType dtype, const Graphs& g, const double* table, const int64_t* index, const void* x,
                 double* result) {
  with_float(dtype, [&](auto zero) {
    using T = decltype(zero);
    Table rows{table, index, g.graphs, g.features, g.wrong};
    share_nodes(g.nodes, g.threads, [&](int64_t begin, int64_t end) {
      row_dot(rows, static_cast<const T*>(x), result, begin, end);
    });
  });
}

bool is_supported() {
#if defined(__AVX512F__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
#elif defined(__AVX2__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#else
  return true;
#endif
}

// Return whether the inexact flag reports what vectors of this instruction set round, and nothing else.
bool test_flag() {
  ControlWord word;
  volatile double one = 1.0, small = 0x1p-60;
  double memory[2 * D];
  asm volatile("" ::"r"(memory) : "memory");  // known outside, so that the barriers hold for it
  auto add = [&](double second) {
    for (int lane = 0; lane < D; ++lane) {
      memory[lane] = one;
      memory[D + lane] = lane == D - 1 ? second : one;
    }
    clear_inexact();
    vd total = load_as<vd>(memory) + load_as<vd>(memory + D);
    store_as(memory, total);
    return is_inexact();
  };
  return add(small) && !add(one) && !add(-1.0) && add(-small);
}

}  // namespace

extern const Kernels kernels;
const Kernels kernels = {READOUTS_ISA_NAME,   is_supported, test_flag, reduce_any,        reduce_backward_any,
                         reduce_integers_any, select_any,   keep_any,  trim_backward_any, weighted_sum_any,
                         scale_rows_any,      weight_gradient_any, row_dot_any};

}  // namespace READOUTS_ISA
}  // namespace readouts
