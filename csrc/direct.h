// Sums of rows in any order, read once as they lie and added to a float64 sum for every graph.
#pragma once
#include "forward.h"

namespace readouts {
namespace READOUTS_ISA {

// One block of columns: W sums for every graph, which stay in the cache while all rows are read.
template <class T>
struct DirectBlock {
  const Forward<T>& call;
  const int64_t* index;
  double* sums;  // [graphs, W]
  int64_t column, features;
  int lanes;

  // Begin with 0 or, for rows that are added to others, with what the output holds.
  void begin() const {
    if (!call.updates) {
      std::memset(sums, 0, call.offsets.graphs * W * sizeof(double));
      return;
    }
    for (int64_t graph = 0; graph < call.offsets.graphs; ++graph) {
      Doubles value = Number<T>::widen(load_block(call.out + graph * features + column, lanes));
      for (int half = 0; half < 2; ++half) value.v[half] += 0.0;  // -0 becomes +0
      store_doubles(sums + graph * W, value);
    }
  }

  READOUTS_INLINE void add_row(int64_t row) const {
    double* sum = sums + index[row] * W;
    if constexpr (sizeof(T) == 4) {
      if (features <= 4) {
        for (int64_t feature = 0; feature < features; ++feature) sum[feature] += (double)call.x[row * features + feature];
        return;
      }
    }
    Doubles value = Number<T>::widen(load_block(call.x + row * features + column, lanes));
    Doubles total = load_doubles(sum);
    total.v[0] += value.v[0];
    total.v[1] += value.v[1];
    store_doubles(sum, total);
  }

  // Add all rows. Graphs whose sums were rounded are marked in `broken`.
  void add(unsigned char* broken) const {
    for (int64_t start = 0; start < call.sources; start += kTile) {
      int64_t stop = vmin(start + kTile, call.sources);
      clear_inexact();
      for (int64_t row = start; row < stop; ++row) {
        __builtin_prefetch(call.x + (row + kAhead) * features + column);  // may lie anywhere
        add_row(row);
      }
      if (__builtin_expect(is_inexact(), 0))
        for (int64_t row = start; row < stop; ++row) __atomic_store_n(broken + index[row], 1, __ATOMIC_RELAXED);
    }
  }

  void write(const unsigned char* broken) const {
    for (int64_t graph = 0; graph < call.offsets.graphs; ++graph) {
      int64_t nodes = call.offsets.nodes(graph);
      if (broken[graph] || (nodes == 0 && call.updates)) continue;
      Doubles sum = load_doubles(sums + graph * W), mean = sum;
      if (nodes > 0 && call.has(kMean))
        for (int half = 0; half < 2; ++half) mean.v[half] = certified_mean<T>(sum.v[half], fill<vd>((double)nodes));
      T* out = call.out + graph * call.reductions * features + column;
      for (int64_t entry = 0; entry < call.reductions; ++entry)
        store_block(out + call.entries[entry].block * features,
                    Number<T>::narrow(call.entries[entry].kind == kSum ? sum : mean), lanes);
    }
  }
};

// Reduce to sums and means; `broken` [graphs] marks the graphs that are left to do in another way.
template <class T>
void reduce_directly(const Forward<T>& call, const int64_t* index, unsigned char* broken, int threads) {
  Columns columns(call.features);
  int64_t blocks = columns.blocks(), size = call.offsets.graphs * W;
  double* sums = thread_scratch(blocks * size * sizeof(double)).template take<double>(blocks * size);
  int64_t units = vmax<int64_t>(columns.full(), 1);  // the last block may overlap the one before: one thread has both
  int parts = (int)vmin<int64_t>(threads, units);
  auto for_blocks = [&](const auto& task) {
    auto work = [&](int part) {
      ControlWord word;
      int64_t stop = part + 1 == parts ? blocks : units * (part + 1) / parts;
      for (int64_t block = units * part / parts; block < stop; ++block)
        task(DirectBlock<T>{call, index, sums + block * size, columns.column(block), call.features, columns.lanes()});
    };
    if (parts == 1)
      work(0);
    else
      parallel(parts, work);
  };
  for_blocks([&](const DirectBlock<T>& block) {
    block.begin();
    block.add(broken);
  });
  for_blocks([&](const DirectBlock<T>& block) { block.write(broken); });  // broken graphs are known in all columns
}

}  // namespace READOUTS_ISA
}  // namespace readouts
