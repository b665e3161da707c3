// The table of kernels of the instruction set READOUTS_ISA, which the build sets together with the compiler's flags.
#include "entries.h"

namespace readouts {
namespace READOUTS_ISA {
namespace {

bool is_supported() {
#if defined(__AVX512F__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
#elif defined(__AVX2__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#else
  return true;
#endif
}

// Return whether the inexact flag reports what vectors of this instruction set round, and nothing else.
bool test_flag() {
  ControlWord word;
  volatile double one = 1.0, small = 0x1p-60;
  double memory[2 * D];
  asm volatile("" ::"r"(memory) : "memory");  // known outside, so that the barriers hold for it
  auto add = [&](double second) {
    for (int lane = 0; lane < D; ++lane) {
      memory[lane] = one;
      memory[D + lane] = lane == D - 1 ? second : one;
    }
    clear_inexact();
    vd total = load_as<vd>(memory) + load_as<vd>(memory + D);
    store_as(memory, total);
    return is_inexact();
  };
  return add(small) && !add(one) && !add(-1.0) && add(-small);
}

}  // namespace

extern const Kernels kernels;
const Kernels kernels = {READOUTS_ISA_NAME,   is_supported,        test_flag,
                         reduce_any,          update_any,          reduce_directly_any,
                         reduce_backward_any, reduce_integers_any,
                         select_any,          keep_any,
                         trim_backward_any,   weighted_mean_any,
                         scale_rows_any,      weight_gradient_any,
                         shared_weight_gradient_any};

}  // namespace READOUTS_ISA
}  // namespace readouts
