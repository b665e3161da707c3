// SIMD vectors of the instruction set that this file is compiled for, and how each dtype is loaded and stored.
//
// A block is W neighbouring columns: one register of float32 or two registers of float64.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define READOUTS_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define READOUTS_VECTOR_BYTES 32
#else
#define READOUTS_VECTOR_BYTES 16
#endif
#if defined(__AVX512F__) || defined(__aarch64__)
#define READOUTS_REGISTERS 32
#else
#define READOUTS_REGISTERS 16
#endif

#define READOUTS_INLINE inline __attribute__((always_inline))
#define READOUTS_INLINE_LAMBDA __attribute__((always_inline))
#define READOUTS_UNROLL _Pragma("GCC unroll 16")

namespace readouts {
namespace READOUTS_ISA {

constexpr int kBytes = READOUTS_VECTOR_BYTES;
constexpr int W = kBytes / 4;  // columns of a block
constexpr int D = kBytes / 8;  // float64 numbers of a register

typedef float vf __attribute__((vector_size(kBytes)));
typedef float vf_half __attribute__((vector_size(kBytes / 2)));
typedef double vd __attribute__((vector_size(kBytes)));
typedef int32_t vi __attribute__((vector_size(kBytes)));
typedef uint32_t vu __attribute__((vector_size(kBytes)));
typedef int32_t vi_half __attribute__((vector_size(kBytes / 2)));
typedef int64_t vl __attribute__((vector_size(kBytes)));
typedef uint64_t vul __attribute__((vector_size(kBytes)));
typedef uint16_t vh __attribute__((vector_size(kBytes / 2)));

struct float16 {
  uint16_t bits;
};
struct bfloat16 {
  uint16_t bits;
};

template <class V>
READOUTS_INLINE V load_as(const void* source) {
  V value;
  std::memcpy(&value, source, sizeof(V));
  return value;
}

template <class V>
READOUTS_INLINE void store_as(void* target, const V& value) {
  std::memcpy(target, &value, sizeof(V));
}

template <class V, class S>
READOUTS_INLINE V fill(S value) {
  return V{} + value;
}

// Conversions. GCC splits __builtin_convertvector into halves where the two types differ in size.
READOUTS_INLINE vd doubles_of(vf_half value) {
#if defined(__AVX512F__)
  return (vd)_mm512_cvtps_pd((__m256)value);
#elif defined(__AVX2__)
  return (vd)_mm256_cvtps_pd((__m128)value);
#else
  return __builtin_convertvector(value, vd);
#endif
}

READOUTS_INLINE vd doubles_of(vi_half value) {
#if defined(__AVX512F__)
  return (vd)_mm512_cvtepi32_pd((__m256i)value);
#elif defined(__AVX2__)
  return (vd)_mm256_cvtepi32_pd((__m128i)value);
#else
  return __builtin_convertvector(value, vd);
#endif
}

READOUTS_INLINE vf_half floats_of(vd value) {
#if defined(__AVX512F__)
  return (vf_half)_mm512_cvtpd_ps((__m512d)value);
#elif defined(__AVX2__)
  return (vf_half)_mm256_cvtpd_ps((__m256d)value);
#else
  return __builtin_convertvector(value, vf_half);
#endif
}

// Join two halves in registers: through memory the load would wait for both stores.
template <class V, class Half>
READOUTS_INLINE V join(Half low, Half high) {
#if defined(__AVX512F__)
  return (V)_mm512_insertf64x4(_mm512_castpd256_pd512((__m256d)low), (__m256d)high, 1);
#elif defined(__AVX2__)
  return (V)_mm256_insertf128_pd(_mm256_castpd128_pd256((__m128d)low), (__m128d)high, 1);
#else
  typedef int64_t Word __attribute__((vector_size(kBytes)));
  return (V)Word{(int64_t)low, (int64_t)high};
#endif
}

READOUTS_INLINE vl longs_of(vi_half value) {
#if defined(__AVX512F__)
  return (vl)_mm512_cvtepi32_epi64((__m256i)value);
#elif defined(__AVX2__)
  return (vl)_mm256_cvtepi32_epi64((__m128i)value);
#else
  return __builtin_convertvector(value, vl);
#endif
}

READOUTS_INLINE vi_half ints_of(vl value) {
#if defined(__AVX512F__)
  return (vi_half)_mm512_cvtepi64_epi32((__m512i)value);
#else
  return __builtin_convertvector(value, vi_half);
#endif
}

READOUTS_INLINE vu unsigned_of(vh value) {
#if defined(__AVX512F__)
  return (vu)_mm512_cvtepu16_epi32((__m256i)value);
#elif defined(__AVX2__)
  return (vu)_mm256_cvtepu16_epi32((__m128i)value);
#else
  return __builtin_convertvector(value, vu);
#endif
}

READOUTS_INLINE vh halves_of(vu value) {
#if defined(__AVX512F__)
  return (vh)_mm512_cvtepi32_epi16((__m512i)value);
#else
  return __builtin_convertvector(value, vh);
#endif
}

template <class V>
READOUTS_INLINE V vmax(V a, V b) {
  return a > b ? a : b;
}

template <class V>
READOUTS_INLINE V vmin(V a, V b) {
  return a < b ? a : b;
}

// Return whether any bit of a vector is set.
template <class V>
READOUTS_INLINE bool any(V mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi64_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
  return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#else
  vul bits = (vul)mask;
  uint64_t all = 0;
  for (int lane = 0; lane < D; ++lane) all |= bits[lane];
  return all != 0;
#endif
}

// W float64 numbers.
struct Doubles {
  vd v[2];
};

READOUTS_INLINE Doubles load_doubles(const double* source) {
  return {{load_as<vd>(source), load_as<vd>(source + D)}};
}

READOUTS_INLINE void store_doubles(double* target, const Doubles& value) {
  store_as(target, value.v[0]);
  store_as(target + D, value.v[1]);
}

READOUTS_INLINE Doubles widen_floats(vf value) {
  vf_half halves[2];
  std::memcpy(halves, &value, sizeof(value));
  return {{doubles_of(halves[0]), doubles_of(halves[1])}};
}

READOUTS_INLINE vf round_floats(const Doubles& value) {
  return join<vf>(floats_of(value.v[0]), floats_of(value.v[1]));
}

// Round float64 to float32 such that rounding that once more to 16 bits is rounding once ("round to odd").
READOUTS_INLINE vf round_to_odd(const Doubles& value) {
  vf nearest = round_floats(value);
  Doubles back = widen_floats(nearest);
  vi_half over[2], inexact[2];
  for (int half = 0; half < 2; ++half) {
    vl sign = fill<vl>(0x7FFFFFFFFFFFFFFF);
    vd found = (vd)((vl)back.v[half] & sign), exact = (vd)((vl)value.v[half] & sign);
    over[half] = ints_of((vl)(found > exact));
    inexact[half] = ints_of((vl)(found != exact));
  }
  return (vf)(((vi)nearest + join<vi>(over[0], over[1])) | (join<vi>(inexact[0], inexact[1]) & 1));
}

READOUTS_INLINE vf floats_of(vh bits, bfloat16) {
  return (vf)(unsigned_of(bits) << 16);
}

READOUTS_INLINE vf floats_of(vh bits, float16) {
#if defined(__AVX512F__)
  return (vf)_mm512_cvtph_ps((__m256i)bits);
#elif defined(__F16C__)
  return (vf)_mm256_cvtph_ps((__m128i)bits);
#else
  vi wide = (vi)unsigned_of(bits);
  vi sign = (wide & 0x8000) << 16, magnitude = wide & 0x7FFF;
  vi normal = (magnitude << 13) + (112 << 23);
  vf scaled = __builtin_convertvector(magnitude, vf) * 0x1p-24f;
  vi value = magnitude < 0x0400 ? (vi)scaled : (magnitude >= 0x7C00 ? normal + (112 << 23) : normal);
  return (vf)(value | sign);
#endif
}

// Return the 16-bit floats nearest to float32 numbers, ties to even.
READOUTS_INLINE vh halves_of(vf value, bfloat16) {
  vu bits = (vu)value;
  return halves_of((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

READOUTS_INLINE vh halves_of(vf value, float16) {
#if defined(__AVX512F__)
  return (vh)_mm512_cvtps_ph((__m512)value, 0);
#elif defined(__F16C__)
  return (vh)_mm256_cvtps_ph((__m256)value, 0);
#else
  vi bits = (vi)value;
  vi sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7FFFFFFF;
  vi rounded = (magnitude + 0xFFF + ((magnitude >> 13) & 1) - (112 << 23)) >> 13;
  vi small = (vi)((vf)magnitude + 0.5f) - (126 << 23);  // the unit in the last place of 0.5 is 2**-24
  vi result = magnitude < (113 << 23) ? small : rounded;
  result = magnitude >= (143 << 23) ? fill<vi>(0x7C00) : result;
  result = magnitude > (255 << 23) ? fill<vi>(0x7E00) : result;
  return halves_of((vu)(result | sign));
#endif
}

// Lanes of a block as integers of the width of its numbers.
template <class Int, int K>
struct Lanes {
  Int v[K];
};

// How a block of a dtype is loaded, widened, compared and stored. `Block` is the type to compare in.
template <class T>
struct Number {
  using Block = vf;
  using Signed = int32_t;
  using Unsigned = uint32_t;
  using SignedVector = vi;
  using UnsignedVector = vu;
  static constexpr int kParts = 1;
  static constexpr bool kWide = false;
  static constexpr int kDigits = sizeof(T) == 4 ? 24 : std::is_same_v<T, float16> ? 11 : 8;
  static constexpr int32_t kInfinity = 0x7F800000;

  static READOUTS_INLINE Block load(const T* source) {
    if constexpr (sizeof(T) == 4)
      return load_as<vf>(source);
    else
      return floats_of(load_as<vh>(source), T{});
  }

  static READOUTS_INLINE void store(T* target, Block value) {
    if constexpr (sizeof(T) == 4)
      store_as(target, value);
    else
      store_as(target, halves_of(value, T{}));
  }

  static READOUTS_INLINE Doubles load_wide(const T* source) {
    if constexpr (sizeof(T) == 4)
      return {{doubles_of(load_as<vf_half>(source)),
               doubles_of(load_as<vf_half>(source + D))}};
    else
      return widen_floats(load(source));
  }

  static READOUTS_INLINE Doubles widen(Block value) { return widen_floats(value); }

  // Round numbers that were rounded to odd, or are exact, to T; a zero is +0, NaN is the default NaN.
  static READOUTS_INLINE Block narrow(const Doubles& value) {
    vf result = (sizeof(T) == 4 ? round_floats(value) : round_to_odd(value));
    result = result != result ? fill<vf>(__builtin_nanf("")) : result;
    if constexpr (sizeof(T) == 2) result = floats_of(halves_of(result, T{}), T{});
    return result + 0.0f;
  }

  // Return numbers of T with +0 for every zero and the default NaN for every NaN.
  static READOUTS_INLINE Block canonical(Block value) {
    value = value + 0.0f;
    return value != value ? fill<vf>(__builtin_nanf("")) : value;
  }

  static READOUTS_INLINE vi part(Block value, int) { return (vi)value; }
  static READOUTS_INLINE void set_part(Block& block, int, vi value) { block = (vf)value; }
};

template <>
struct Number<double> {
  using Block = Doubles;
  using Signed = int64_t;
  using Unsigned = uint64_t;
  using SignedVector = vl;
  using UnsignedVector = vul;
  static constexpr int kParts = 2;
  static constexpr bool kWide = true;
  static constexpr int kDigits = 53;
  static constexpr int64_t kInfinity = 0x7FF0000000000000;

  static READOUTS_INLINE Block load(const double* source) { return load_doubles(source); }
  static READOUTS_INLINE void store(double* target, const Block& value) { store_doubles(target, value); }
  static READOUTS_INLINE Doubles load_wide(const double* source) { return load_doubles(source); }
  static READOUTS_INLINE Doubles widen(const Block& value) { return value; }

  static READOUTS_INLINE Block narrow(const Doubles& value) { return canonical(value); }

  static READOUTS_INLINE Block canonical(const Doubles& value) {
    Doubles result;
    for (int half = 0; half < 2; ++half) {
      vd part = value.v[half] + 0.0;
      result.v[half] = part != part ? fill<vd>(__builtin_nan("")) : part;
    }
    return result;
  }

  static READOUTS_INLINE vl part(const Block& value, int half) { return (vl)value.v[half]; }
  static READOUTS_INLINE void set_part(Block& block, int half, vl value) { block.v[half] = (vd)value; }
};

// Load and store the first `lanes` columns of a block; the others are 0.
template <class T>
READOUTS_INLINE typename Number<T>::Block load_some(const T* source, int lanes) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>)
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << lanes) - 1), source);
#endif
  T buffer[W] = {};
  for (int lane = 0; lane < lanes; ++lane) buffer[lane] = source[lane];
  return Number<T>::load(buffer);
}

template <class T>
READOUTS_INLINE void store_some(T* target, const typename Number<T>::Block& value, int lanes) {
  T buffer[W];
  Number<T>::store(buffer, value);
  for (int lane = 0; lane < lanes; ++lane) target[lane] = buffer[lane];
}

// Columns of a matrix in blocks of W; the last block overlaps its neighbour where W does not divide them,
// and is shorter where there are fewer columns. Scratch arrays have W slots for every block.
template <int kWidth>
struct ColumnsOf {
  int64_t features;
  explicit ColumnsOf(int64_t features) : features(features) {}
  int64_t full() const { return (int64_t)((uint64_t)features / kWidth); }
  int64_t blocks() const { return (int64_t)((uint64_t)(features + kWidth - 1) / kWidth); }
  int64_t slots() const { return blocks() * kWidth; }
  int lanes() const { return (int)(features < kWidth ? features : kWidth); }
  int64_t column(int64_t block) const {
    int64_t last = features - kWidth, first = block * kWidth;
    return last < 0 ? 0 : first < last ? first : last;
  }
};
using Columns = ColumnsOf<W>;

template <class T>
READOUTS_INLINE typename Number<T>::Block load_block(const T* source, int lanes) {
  return __builtin_expect(lanes == W, 1) ? Number<T>::load(source) : load_some(source, lanes);
}

template <class T>
READOUTS_INLINE void store_block(T* target, const typename Number<T>::Block& value, int lanes) {
  if (__builtin_expect(lanes == W, 1))
    Number<T>::store(target, value);
  else
    store_some(target, value, lanes);
}

}  // namespace READOUTS_ISA
}  // namespace readouts
