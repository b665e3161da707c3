// Order statistics and their gradients.
#include "order.h"

#include "entries.h"

namespace readouts {
namespace READOUTS_ISA {

template <class T>
Order<T> order_of(const Graphs& g, const void* x) {
  return {static_cast<const T*>(x), g.nodes, g.features, offsets_of(g), g.order, g.wrong};
}

void select_any(DType dtype, DType result, const Graphs& g, const void* x, const int64_t* ranks, int64_t count,
                void* out, void* means) {
  with_float(dtype, [&](auto zero) {
    using T = decltype(zero);
    select(order_of<T>(g, x), ranks, count, static_cast<T*>(out), static_cast<T*>(means), g.threads);
  });
  with_integer(dtype, [&](auto zero) {
    using T = decltype(zero);
    if (result == kFloat64)
      select(order_of<T>(g, x), ranks, count, static_cast<T*>(out), static_cast<double*>(means), g.threads);
    else
      select(order_of<T>(g, x), ranks, count, static_cast<T*>(out), static_cast<float*>(means), g.threads);
  });
}

void keep_any(DType dtype, const Graphs& g, const void* x, const void* bounds, const int64_t* cut,
              const int64_t* kept_ptr, void* kept) {
  auto work = [&](auto zero) {
    using T = decltype(zero);
    keep(order_of<T>(g, x), static_cast<const T*>(bounds), cut, kept_ptr, static_cast<T*>(kept), g.threads);
  };
  with_float(dtype, work);
  with_integer(dtype, work);
}

void trim_backward_any(DType dtype, const Graphs& g, const void* x, const void* bounds, const int64_t* cut,
                       const void* grad, void* result) {
  with_float(dtype, [&](auto zero) {
    using T = decltype(zero);
    trim_backward(order_of<T>(g, x), static_cast<const T*>(bounds), cut, static_cast<const T*>(grad),
                  static_cast<T*>(result), g.threads);
  });
}

}  // namespace READOUTS_ISA
}  // namespace readouts
