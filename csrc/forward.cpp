// Sum, mean, max, min, variance and standard deviation of floating-point numbers.
#include "forward.h"

#include "entries.h"

namespace readouts {
namespace READOUTS_ISA {

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

void update_any(DType dtype, const Graphs& g, const Reductions& reductions, const void* x, int64_t sources,
                void* target) {
  Scratch scratch;
  const Entry* entries = entries_of(reductions, scratch);
  with_float(dtype, [&](auto zero) {
    using T = decltype(zero);
    reduce(Forward<T>{static_cast<const T*>(x), g.nodes, g.features, offsets_of(g), g.order, entries, reductions.count,
                      static_cast<T*>(target), g.flag_works, g.wrong, true, sources},
           g.threads);
  });
}

}  // namespace READOUTS_ISA
}  // namespace readouts
