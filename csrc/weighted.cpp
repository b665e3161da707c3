// Weighted sums and their gradients.
#include "weighted.h"

#include "entries.h"

namespace readouts {
namespace READOUTS_ISA {

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

}  // namespace READOUTS_ISA
}  // namespace readouts
