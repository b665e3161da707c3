// Sums and means of floating-point numbers in any order.
#include "direct.h"

#include "entries.h"

namespace readouts {
namespace READOUTS_ISA {

void reduce_directly_any(DType dtype, const Graphs& g, const Reductions& reductions, const void* x,
                         const int64_t* index, bool updates, unsigned char* broken, void* out) {
  Scratch scratch;
  const Entry* entries = entries_of(reductions, scratch);
  auto run = [&](auto zero) {
    using T = decltype(zero);
    reduce_directly(Forward<T>{static_cast<const T*>(x), g.nodes, g.features, offsets_of(g), nullptr, entries,
                               reductions.count, static_cast<T*>(out), g.flag_works, g.wrong, updates, g.nodes},
                    index, broken, g.threads);
  };
  if (dtype == kFloat32)
    run(float{});
  else if (dtype == kFloat16)
    run(float16{});
  else if (dtype == kBFloat16)
    run(bfloat16{});
}

}  // namespace READOUTS_ISA
}  // namespace readouts
