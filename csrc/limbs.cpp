#include "limbs.h"

#include <cstring>

namespace readouts {
namespace {

constexpr int64_t kMask = 0xFFFFFFFF, kHalf = 27;
constexpr int64_t kNan = 1, kPlus = 1 << 20, kMinus = (int64_t)1 << 40;

// Add sign * mantissa * 2**place, mantissa below 2**55; bits below place 0 are zeros. `step` leads to the next limb.
inline void deposit(int64_t* limb, int64_t step, int64_t mantissa, int64_t place, int64_t sign) {
  if (place < 0) {
    mantissa >>= -place < 63 ? -place : 63;
    place = 0;
  }
  limb += (place >> 5) * step;
  __int128 shifted = (__int128)mantissa << (place & 31);
  int64_t middle = (int64_t)(shifted >> 32) & kMask, top = (int64_t)(shifted >> 64);
  limb[0] += sign * ((int64_t)shifted & kMask);
  if (middle) limb[step] += sign * middle;
  if (top) limb[2 * step] += sign * top;
}

template <class Int>
int64_t read(const void* rows, int64_t at) {
  Int bits;
  std::memcpy(&bits, static_cast<const char*>(rows) + at * (int64_t)sizeof(Int), sizeof(Int));
  return bits;
}

}  // namespace

bool add_limbs(const void* rows, int64_t bytes, const int64_t* index, int64_t nodes, int64_t features, int64_t* limbs,
               int64_t count, int64_t graphs, const LimbLayout& layout, int64_t begin, int64_t end) {
  int64_t step = graphs * features, implicit = (int64_t)1 << layout.stored;
  for (int64_t node = 0; node < nodes; ++node) {
    int64_t graph = reinterpret_cast<const volatile int64_t*>(index)[node];
    if ((uint64_t)graph >= (uint64_t)graphs) return false;
    for (int64_t feature = begin; feature < end; ++feature) {
      int64_t at = node * features + feature;
      int64_t bits = bytes == 2 ? read<int16_t>(rows, at) : bytes == 4 ? read<int32_t>(rows, at) : read<int64_t>(rows, at);
      int64_t exponent = (bits >> layout.stored) & layout.top, mantissa = bits & (implicit - 1);
      int64_t* cell = limbs + graph * features + feature;
      if (exponent == layout.top) {
        cell[count * step] |= mantissa ? kNan : bits < 0 ? kMinus : kPlus;
        continue;
      }
      int64_t place = layout.place;
      if (exponent > 0) {
        mantissa |= implicit;
        place += layout.power * (exponent - 1);
      }
      if (layout.power == 1) {
        deposit(cell, step, mantissa, place, bits < 0 ? -1 : 1);
      } else if (layout.stored < kHalf) {
        deposit(cell, step, mantissa * mantissa, place, 1);
      } else {
        int64_t high = mantissa >> kHalf, low = mantissa & (((int64_t)1 << kHalf) - 1);
        deposit(cell, step, low * low, place, 1);
        deposit(cell, step, 2 * low * high, place + kHalf, 1);
        deposit(cell, step, high * high, place + 2 * kHalf, 1);
      }
    }
  }
  return true;
}

}  // namespace readouts
