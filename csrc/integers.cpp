// Reductions of integers and bool.
#include "integers.h"

#include "entries.h"

namespace readouts {
namespace READOUTS_ISA {

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

}  // namespace READOUTS_ISA
}  // namespace readouts
