// Sums that multiply while they add, and their gradients: weighted means without a product of the size of x.
#pragma once
#include <algorithm>

#include "forward.h"

namespace readouts {
namespace READOUTS_ISA {

template <class T>
READOUTS_INLINE double number_at(const T* source) {
  if constexpr (sizeof(T) == 2)
    return (double)floats_of(vh{source->bits}, T{})[0];
  else
    return (double)*source;
}

// Return the weights of a block of a node: one for all features, or one for each.
template <class T, bool kShared>
READOUTS_INLINE Doubles weights_at(const T* weight, int64_t node, int64_t features, int64_t column, int lanes) {
  if constexpr (kShared) {
    vd all = fill<vd>(number_at(weight + node));
    return {{all, all}};
  } else {
    return Number<T>::widen(load_block(weight + node * features + column, lanes));
  }
}

// Return a * b, 0 where the weight a is 0, whatever b is.
READOUTS_INLINE Doubles weighted(const Doubles& a, const Doubles& b) {
  Doubles result;
  for (int half = 0; half < 2; ++half) result.v[half] = a.v[half] == 0.0 ? vd{} : a.v[half] * b.v[half];
  return result;
}

// Values times weights, rounded to float64.
template <class T, bool kShared>
struct Products {
  static constexpr int kDigits = Number<T>::kWide ? 53 : 2 * Number<T>::kDigits;
  const T* weight;
  template <class R>
  READOUTS_INLINE Doubles operator()(const R& rows, int64_t position, int64_t column, int lanes, int64_t) const {
    int64_t node = rows.node(position);
    return weighted(weights_at<T, kShared>(weight, node, rows.features, column, lanes),
                    Number<T>::widen(load_block(rows.x + node * rows.features + column, lanes)));
  }
};

template <class T>
struct WeightedMean {
  const T* x;
  const T* weight;  // [N, 1] or [N, F]
  int64_t nodes, features, weights;
  Offsets offsets;
  const int64_t* order;
  double* means;   // [B, F]
  double* totals;  // [B, 1] or [B, F]
  bool* wrong;
};

inline void write_wide(double* row, int64_t features, const Work<double>& work) {
  Columns columns(features);
  for (int64_t block = 0; block < columns.blocks(); ++block)
    store_block(row + columns.column(block), Number<double>::canonical(load_doubles(work.sum + block * W)),
                columns.lanes());
}

// Write the exact sums of what `generate` makes of a graph's rows, rounded to float64.
template <class R, class G>
void sum_wide(const R& rows, int64_t begin, int64_t end, const G& generate, Work<double>& work, double* row) {
  gather_values(rows, begin, end, work, generate);
  finish(rows, begin, end, generate, work, false);
  write_wide(row, rows.features, work);
}

// The same of a graph that is cut among threads.
template <class R, class G>
void sum_pieces(const R& rows, const Offsets& offsets, int64_t graph, const G& generate, int threads, double* row) {
  Pieces<double> pieces(rows.features, true, offsets[graph], offsets.nodes(graph), threads);
  pieces.sum(rows, generate);
  write_wide(row, rows.features, pieces.whole());
}

template <class T>
void divide_by_total(const WeightedMean<T>& call, int64_t graph) {
  double* mean = call.means + graph * call.features;
  const double* total = call.totals + graph * call.weights;
  for (int64_t feature = 0; feature < call.features; ++feature)
    mean[feature] /= total[call.weights == 1 ? 0 : feature];
}

template <class T, bool kShared, class R>
void weighted_mean(const WeightedMean<T>& call, const R& rows, const R& weights, int threads) {
  Plan plan(call.offsets, threads);
  Products<T, kShared> products{call.weight};
  share_graphs(call.offsets, plan, [&](int64_t first, int64_t last) {
    ControlWord word;
    Scratch& scratch = thread_scratch(Work<double>::bytes(call.features) + Work<double>::bytes(call.weights));
    Work<double> work(scratch, call.features, true), narrow(scratch, call.weights, true);
    for (int64_t graph = first; graph < last; ++graph) {
      int64_t begin = call.offsets[graph], end = call.offsets[graph + 1];
      double *mean = call.means + graph * call.features, *total = call.totals + graph * call.weights;
      if (end - begin > plan.limit) continue;
      if (begin == end) {
        std::fill_n(mean, call.features, 0.0);
        std::fill_n(total, call.weights, 1.0);
        continue;
      }
      sum_wide(weights, begin, end, Values<T>{}, narrow, total);
      sum_wide(rows, begin, end, products, work, mean);
      divide_by_total(call, graph);
    }
  });
  for (int64_t graph = 0; plan.limit < call.nodes && graph < call.offsets.graphs; ++graph) {
    if (call.offsets.nodes(graph) <= plan.limit) continue;
    ControlWord word;
    sum_pieces(weights, call.offsets, graph, Values<T>{}, threads, call.totals + graph * call.weights);
    sum_pieces(rows, call.offsets, graph, products, threads, call.means + graph * call.features);
    divide_by_total(call, graph);
  }
}

// Write the exact sums of weights, 1 for no nodes, and those of weighted rows, divided by them.
template <class T, bool kShared>
void weighted_mean(const WeightedMean<T>& call, int threads) {
  if (call.order)
    weighted_mean<T, kShared>(call, Listed<T>{call.x, call.features, call.nodes, call.order, call.wrong},
                              Listed<T>{call.weight, call.weights, call.nodes, call.order, call.wrong}, threads);
  else
    weighted_mean<T, kShared>(call, Contiguous<T>{call.x, call.features}, Contiguous<T>{call.weight, call.weights},
                              threads);
}

// A table of rows of graphs, and which one each node takes.
struct Table {
  const double* rows;  // [B, F]
  const int64_t* index;
  int64_t graphs, features;
  bool* wrong;
  READOUTS_INLINE const double* of(int64_t node) const {
    int64_t graph = reinterpret_cast<const volatile int64_t*>(index)[node];
    if (__builtin_expect((uint64_t)graph >= (uint64_t)graphs, 0)) {
      __atomic_store_n(wrong, true, __ATOMIC_RELAXED);
      graph = 0;
    }
    return rows + graph * features;
  }
};

// Write the row of each node's graph times its weights, rounded once to T.
template <class T, bool kShared>
void scale_rows(const Table& table, const T* weight, T* result, int64_t begin, int64_t end) {
  ControlWord word;
  Columns columns(table.features);
  int lanes = columns.lanes();
  for (int64_t node = begin; node < end; ++node) {
    const double* row = table.of(node);
    for (int64_t block = 0; block < columns.blocks(); ++block) {
      int64_t column = columns.column(block);
      Doubles weights = weights_at<T, kShared>(weight, node, table.features, column, lanes);
      store_block(result + node * table.features + column,
                  Number<T>::narrow(weighted(weights, load_block(row + column, lanes))), lanes);
    }
  }
}

// Write slope * (x - mean) of each node, the gradient of its weights, or of their logarithms where `weight` is there.
template <class T>
void weight_gradient(const Table& slopes, const double* means, const T* x, const T* weight, T* result, int64_t begin,
                     int64_t end) {
  ControlWord word;
  Columns columns(slopes.features);
  int lanes = columns.lanes();
  for (int64_t node = begin; node < end; ++node) {
    const double* slope = slopes.of(node);
    const double* mean = means + (slope - slopes.rows);
    for (int64_t block = 0; block < columns.blocks(); ++block) {
      int64_t column = columns.column(block), at = node * slopes.features + column;
      Doubles value = Number<T>::widen(load_block(x + at, lanes)), centre = load_block(mean + column, lanes);
      Doubles factor = load_block(slope + column, lanes);
      for (int half = 0; half < 2; ++half) value.v[half] = factor.v[half] * (value.v[half] - centre.v[half]);
      if (weight) value = weighted(Number<T>::widen(load_block(weight + at, lanes)), value);
      store_block(result + at, Number<T>::narrow(value), lanes);
    }
  }
}

// Write the inner product of each node's features and the slopes of its graph, less the mean of such products: the
// gradient of a weight for all features, or of its logarithm where `weight` is there. Eight partial sums, then a tree.
template <class T>
void shared_weight_gradient(const Table& slopes, const double* means, const T* x, const T* weight, T* result,
                            int64_t begin, int64_t end) {
  ControlWord word;
  constexpr int kPartial = 8;
  int64_t features = slopes.features;
  for (int64_t node = begin; node < end; ++node) {
    const double* row = slopes.of(node);
    const T* values = x + node * features;
    vd partial[kPartial / D] = {};
    int64_t at = 0;
    for (; at + W <= features; at += W) {
      Doubles value = Number<T>::load_wide(values + at);
      for (int half = 0; half < 2; ++half)
        partial[(at / D + half) % (kPartial / D)] += value.v[half] * load_as<vd>(row + at + half * D);
    }
    double sums[kPartial];
    std::memcpy(sums, partial, sizeof(sums));
    for (; at < features; ++at) sums[at % kPartial] += number_at(values + at) * row[at];
    for (int step = kPartial / 2; step > 0; step /= 2)
      for (int lane = 0; lane < step; ++lane) sums[lane] += sums[lane + step];
    double factor = weight ? number_at(weight + node) : 1.0;
    double value = factor == 0.0 ? 0.0 : factor * (sums[0] - means[(row - slopes.rows) / features]);
    store_block(result + node, Number<T>::narrow(Doubles{{fill<vd>(value), fill<vd>(value)}}), 1);
  }
}

// Call task(begin, end) for a share of the nodes on each thread.
template <class Task>
void share_nodes(int64_t nodes, int threads, const Task& task) {
  parallel(threads, [&](int part) {
    task(nodes / threads * part, part + 1 == threads ? nodes : nodes / threads * (part + 1));
  });
}

}  // namespace READOUTS_ISA
}  // namespace readouts
