// Weighted sums and their gradients.
#include "weighted.h"

#include "entries.h"

namespace readouts {
namespace READOUTS_ISA {

void weighted_mean_any(DType dtype, const Graphs& g, const void* x, const void* weight, bool shared, double* means,
                       double* totals) {
  with_float(dtype, [&](auto zero) {
    using T = decltype(zero);
    WeightedMean<T> call{static_cast<const T*>(x), static_cast<const T*>(weight), g.nodes, g.features,
                         shared ? 1 : g.features,  offsets_of(g),                 g.order, means,
                         totals,                   g.wrong};
    shared ? weighted_mean<T, true>(call, g.threads) : weighted_mean<T, false>(call, g.threads);
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

void shared_weight_gradient_any(DType dtype, const Graphs& g, const double* slopes, const double* means,
                                const int64_t* index, const void* x, const void* weight, void* result) {
  with_float(dtype, [&](auto zero) {
    using T = decltype(zero);
    Table rows{slopes, index, g.graphs, g.features, g.wrong};
    share_nodes(g.nodes, g.threads, [&](int64_t begin, int64_t end) {
      shared_weight_gradient(rows, means, static_cast<const T*>(x), static_cast<const T*>(weight),
                             static_cast<T*>(result), begin, end);
    });
  });
}

}  // namespace READOUTS_ISA
}  // namespace readouts
