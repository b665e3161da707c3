// Gradients of the elementary reductions.
#include "backward.h"

#include "entries.h"

namespace readouts {
namespace READOUTS_ISA {

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

}  // namespace READOUTS_ISA
}  // namespace readouts
