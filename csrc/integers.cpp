// Reductions of integers and bool.
#include "integers.h"

#include "entries.h"

namespace readouts {
namespace READOUTS_ISA {

void reduce_integers_any(DType dtype, DType result, const Graphs& g, int64_t kind, const void* x, void* out,
                         int64_t stride) {
  with_integer(dtype, [&](auto zero) {
    using T = decltype(zero);
    Integers<T> call{static_cast<const T*>(x), g.nodes, g.features, offsets_of(g), g.order, (Kind)kind, out, stride,
                     g.wrong};
    if (result == kFloat64)
      reduce_integers<T, double>(call, g.threads);
    else if (result == kFloat32)
      reduce_integers<T, float>(call, g.threads);
    else if (result == kInt64)
      reduce_integers<T, int64_t>(call, g.threads);
    else
      reduce_integers<T, T>(call, g.threads);
  });
}

}  // namespace READOUTS_ISA
}  // namespace readouts
