// Sums of rows in any order, read once as they lie and added to a float64 sum for every graph.
#pragma once
#include "forward.h"

namespace readouts {
namespace READOUTS_ISA {

// Add rows to some blocks of the sums [graphs, slots]. Graphs whose sums were rounded are marked in `broken`.
template <class T>
READOUTS_INLINE void add_blocks(const Forward<T>& call, const int64_t* index, double* sums, int64_t first, int64_t last,
                                unsigned char* broken) {
  Columns columns(call.features);
  int64_t slots = columns.slots(), lanes = columns.lanes();
  for (int64_t start = 0; start < call.sources; start += kTile) {
    int64_t stop = vmin(start + kTile, call.sources);
    clear_inexact();
    auto add_row = [&](int64_t row) READOUTS_INLINE_LAMBDA {
      double* sum = sums + index[row] * slots;
      if constexpr (sizeof(T) == 4) {
        if (call.features <= 4) {
          for (int64_t lane = 0; lane < lanes; ++lane) sum[lane] += (double)call.x[row * lanes + lane];
          return;
        }
      }
      for (int64_t block = first; block < last; ++block) {
        Doubles value = Number<T>::widen(load_block(call.x + row * call.features + columns.column(block), (int)lanes));
        Doubles total = load_doubles(sum + block * W);
        total.v[0] += value.v[0];
        total.v[1] += value.v[1];
        store_doubles(sum + block * W, total);
      }
    };
    for (int64_t row = start; row < stop; ++row) add_row(row);
    if (__builtin_expect(is_inexact(), 0))
      for (int64_t row = start; row < stop; ++row) __atomic_store_n(broken + index[row], 1, __ATOMIC_RELAXED);
  }
}

// Begin with 0 or, for sums to which the rows are added, with what the output holds.
template <class T>
void begin_sums(const Forward<T>& call, double* sums, int64_t first, int64_t last) {
  Columns columns(call.features);
  int64_t slots = columns.slots();
  for (int64_t graph = 0; graph < call.offsets.graphs; ++graph)
    for (int64_t block = first; block < last; ++block) {
      Doubles value{};
      if (call.updates) {
        Doubles old = Number<T>::widen(load_block(call.out + graph * call.features + columns.column(block), columns.lanes()));
        for (int half = 0; half < 2; ++half) value.v[half] += old.v[half];  // -0 becomes +0
      }
      store_doubles(sums + graph * slots + block * W, value);
    }
}

// Reduce to sums and means; `broken` [graphs] marks the graphs that are left to do in another way.
template <class T>
void reduce_directly(const Forward<T>& call, const int64_t* index, unsigned char* broken, int threads) {
  Columns columns(call.features);
  int64_t slots = columns.slots(), blocks = columns.blocks();
  Scratch& scratch = thread_scratch((call.offsets.graphs * slots + slots + 16) * sizeof(double));
  double* sums = scratch.take<double>(call.offsets.graphs * slots);
  double* means = scratch.take<double>(slots);
  int parts = (int)vmin<int64_t>(threads, blocks);
  auto add = [&](int part) {
    ControlWord word;
    int64_t first = blocks * part / parts, last = blocks * (part + 1) / parts;
    begin_sums(call, sums, first, last);
    add_blocks(call, index, sums, first, last, broken);
  };
  if (parts == 1)
    add(0);
  else
    parallel(parts, add);
  ControlWord word;
  for (int64_t graph = 0; graph < call.offsets.graphs; ++graph) {
    if (call.offsets.nodes(graph) > 0) {
      if (!broken[graph]) write_certified(call, graph, sums + graph * slots, call.has(kMean) ? means : nullptr);
    } else if (!call.updates) {
      std::memset(call.out + graph * call.reductions * call.features, 0, call.reductions * call.features * sizeof(T));
    }
  }
}

}  // namespace READOUTS_ISA
}  // namespace readouts
