// A Kulisch superaccumulator: the exact sum of any float64 numbers, as integer limbs of 32 bits.
#pragma once
#include <cstdint>
#include <cstring>

namespace readouts {
namespace READOUTS_ISA {

constexpr int kLimbs = 68;           // 2**-1074 to 2**1024, and 2**64 numbers of that size
constexpr int kLowest = -1074;       // the exponent of the lowest bit
constexpr int64_t kCarryEvery = 1 << 27;

// A rounded value of an exact sum, with the direction of what was cut off for rounding to odd.
struct Scalar {
  double nearest, odd;
};

class Superaccumulator {
 public:
  void clear() { std::memset(this, 0, sizeof(*this)); }

  // Add a number; NaN and infinities are counted beside the limbs.
  void add(double value) {
    int64_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    int64_t exponent = (bits >> 52) & 0x7FF, mantissa = bits & 0xFFFFFFFFFFFFF;
    if (exponent == 0x7FF) {
      special_ += value;
      has_special_ = true;
      return;
    }
    int64_t place = exponent ? exponent - 1 : 0;
    mantissa |= (int64_t)(exponent != 0) << 52;
    int64_t limb = place >> 5, shift = place & 31, sign = bits < 0 ? -1 : 1;
    __int128 shifted = (__int128)mantissa << shift;
    limbs_[limb] += sign * (int64_t)(shifted & 0xFFFFFFFF);
    limbs_[limb + 1] += sign * (int64_t)((shifted >> 32) & 0xFFFFFFFF);
    limbs_[limb + 2] += sign * (int64_t)(shifted >> 64);
    if (++pending_ == kCarryEvery) carry();
  }

  // Return the sum divided by n, n at least 1.
  Scalar divided(int64_t n) {
    if (has_special_) return special();
    bool negative = make_magnitude();
    if (n == 1) return from_digits(digits_, kLimbs, kLowest, false, negative);
    uint32_t quotient[kLimbs + 4];  // four more limbs, for 53 bits below the lowest
    unsigned __int128 rest = 0;
    for (int limb = kLimbs + 3; limb >= 0; --limb) {
      rest = (rest << 32) | (limb >= 4 ? digits_[limb - 4] : 0);
      quotient[limb] = (uint32_t)(rest / (uint64_t)n);
      rest %= (uint64_t)n;
    }
    return from_digits(quotient, kLimbs + 4, kLowest - 128, rest != 0, negative);
  }

 private:
  int64_t limbs_[kLimbs];
  uint32_t digits_[kLimbs];
  int64_t pending_;
  double special_;
  bool has_special_;

  Scalar special() const {
    double value = special_ != special_ ? __builtin_nan("") : special_;
    return {value, value};
  }

  void carry() {
    int64_t rest = 0;
    for (int limb = 0; limb < kLimbs - 1; ++limb) {
      int64_t total = limbs_[limb] + rest;
      rest = total >> 32;
      limbs_[limb] = total & 0xFFFFFFFF;
    }
    limbs_[kLimbs - 1] += rest;
    pending_ = 0;
  }

  // Write the digits of the magnitude; return whether the sum is negative.
  bool make_magnitude() {
    carry();
    bool negative = limbs_[kLimbs - 1] < 0;
    int64_t rest = 0;
    for (int limb = 0; limb < kLimbs; ++limb) {
      int64_t total = (negative ? -limbs_[limb] : limbs_[limb]) + rest;
      digits_[limb] = (uint32_t)total;
      rest = total >> 32;
    }
    return negative;
  }

  static Scalar from_digits(const uint32_t* digits, int length, int lowest, bool sticky, bool negative) {
    int top = length - 1;
    while (top >= 0 && digits[top] == 0) --top;
    if (top < 0) return {0.0, sticky ? (negative ? -0x1p-1074 : 0x1p-1074) : 0.0};
    int length_of_top = 32 - __builtin_clz(digits[top]);
    int64_t highest = lowest + 32 * (int64_t)top + length_of_top;        // the sum is below 2**highest
    int64_t unit = highest - 53 > -1074 ? highest - 53 : -1074;           // exponent of the last bit that is kept
    int64_t cut = unit - lowest;                                         // number of bits below it
    uint64_t mantissa = 0;
    for (int limb = top; limb >= 0; --limb) {  // the bits from `cut` on: at most 53
      int64_t at = 32 * (int64_t)limb - cut;
      if (at >= 0)
        mantissa |= (uint64_t)digits[limb] << at;
      else if (at > -32)
        mantissa |= digits[limb] >> -at;
    }
    bool half = cut > 0 && (digits[(cut - 1) >> 5] >> ((cut - 1) & 31)) & 1;
    bool below = sticky;
    for (int64_t limb = 0; limb < length && 32 * limb < cut - 1; ++limb) {
      uint64_t kept_from = cut - 1 - 32 * limb;
      below |= (kept_from >= 32 ? digits[limb] : digits[limb] & ((1u << kept_from) - 1)) != 0;
    }
    uint64_t odd = mantissa | (uint64_t)(half || below);
    mantissa += half && (below || (mantissa & 1));
    Scalar result = {scaled(mantissa, unit), scaled(odd, unit)};
    if (negative) result = {-result.nearest, -result.odd};
    return {result.nearest + 0.0, result.odd};
  }

  // Return mantissa * 2**unit, mantissa at most 2**53: exact, or infinite.
  static double scaled(uint64_t mantissa, int64_t unit) {
    double value = (double)mantissa;
    while (unit > 1000) {
      value *= 0x1p1000;
      unit -= 1000;
    }
    if (unit < -1000) {  // 2**unit is at least 2**-1074: nothing is lost
      value *= power(unit + 1000);
      unit = -1000;
    }
    return value * power(unit);
  }

  static double power(int64_t exponent) {
    int64_t bits = (exponent + 1023) << 52;
    double value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
  }
};

}  // namespace READOUTS_ISA
}  // namespace readouts
