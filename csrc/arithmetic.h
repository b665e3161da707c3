// Exact arithmetic on float64 vectors and scalars: errors of sums and quotients, and the last rounding.
#pragma once
#include <cmath>

#include "vectors.h"

namespace readouts {
namespace READOUTS_ISA {

// Sum of two numbers, and its rounding error (Knuth).
READOUTS_INLINE void two_sum(vd a, vd b, vd& total, vd& error) {
  total = a + b;
  vd part = total - a;
  error = (a - (total - part)) + (b - part);
}

READOUTS_INLINE vd absolute(vd value) { return (vd)((vl)value & 0x7FFFFFFFFFFFFFFF); }

// Return c - a * b where that is exact in float64, as remainders of divisions are.
READOUTS_INLINE vd remainder_of(vd c, vd a, vd b) {
#if defined(__AVX512F__)
  return (vd)_mm512_fnmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__FMA__)
  return (vd)_mm256_fnmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__aarch64__)
  return (vd)vfmsq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else  // the error of the product (Dekker)
  vd product = a * b;
  vd scaled = 134217729.0 * a, a_high = scaled - (scaled - a), a_low = a - a_high;
  scaled = 134217729.0 * b;
  vd b_high = scaled - (scaled - b), b_low = b - b_high;
  vd error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
  return (c - product) - error;
#endif
}

READOUTS_INLINE vd square_root(vd value) {
#if defined(__AVX512F__)
  return (vd)_mm512_sqrt_pd((__m512d)value);
#elif defined(__AVX2__)
  return (vd)_mm256_sqrt_pd((__m256d)value);
#elif defined(__aarch64__)
  return (vd)vsqrtq_f64((float64x2_t)value);
#else
  vd result;
  for (int lane = 0; lane < D; ++lane) result[lane] = std::sqrt(value[lane]);
  return result;
#endif
}

// Return the neighbours of values on the side of `toward`, a number of the size of an error.
READOUTS_INLINE vd neighbour(vd value, vd toward) {
  vl step = (toward > 0.0) == (value > 0.0) ? fill<vl>((int64_t)1) : fill<vl>((int64_t)-1);
  return (vd)((vl)value + step);
}

// Return value + rest, |rest| below a unit in the last place, rounded to an odd last bit unless exact.
READOUTS_INLINE vd to_odd(vd value, vd rest) {
  vl moved = (rest != 0.0) & (((vl)value & 1) == 0);
  return moved ? neighbour(value, rest) : value;
}

// Return the float64 nearest to value + (rest + low + third) / n, ties to even.
READOUTS_INLINE vd nearest(vd value, vd rest, vd low, vd third, vd n) {
  vd total = (rest + low) + third;
  vd side = total > 0.0 ? fill<vd>(2.0) : fill<vd>(-2.0);
  vd other = neighbour(value, total);
  vd over = ((side * rest - absolute(other - value) * n) + side * low) + side * third;
  vl takes = (over > 0.0) | ((over == 0.0) & (((vl)value & 1) != 0));
  return ((total != 0.0) & takes) ? other : value;
}

// An exact sum as three numbers of falling size, not yet rounded.
struct Expansion {
  vd high, low, third;
};

READOUTS_INLINE Expansion normalised(Expansion sum) {
  two_sum(sum.high, sum.low, sum.high, sum.low);
  two_sum(sum.low, sum.third, sum.low, sum.third);
  two_sum(sum.high, sum.low, sum.high, sum.low);
  two_sum(sum.low, sum.third, sum.low, sum.third);
  return sum;
}

// What reductions need of a sum: rounded for a narrower dtype (to odd) or to float64 (nearest).
struct Rounded {
  vd sum, mean, mean64;
};

template <bool kWide>
READOUTS_INLINE Rounded rounded(const Expansion& sum, vd n, bool means) {
  Rounded result;
  if constexpr (kWide)
    result.sum = nearest(sum.high, vd{}, sum.low, sum.third, fill<vd>(1.0));
  else
    result.sum = to_odd(sum.high, sum.low);
  result.mean = result.mean64 = result.sum;
  if (!means) return result;
  vd quotient = sum.high / n;
  quotient = quotient + (remainder_of(sum.high, quotient, n) + sum.low) / n;
  vd rest = remainder_of(sum.high, quotient, n);
  result.mean64 = nearest(quotient, rest, sum.low, sum.third, n);
  result.mean = kWide ? result.mean64 : to_odd(quotient, (rest + sum.low) + sum.third);
  return result;
}

}  // namespace READOUTS_ISA
}  // namespace readouts
