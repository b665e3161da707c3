// Sums that can be merged: limbs of 32 bits in int64 [L + 1, B, F], as readouts.kernels.limbs defines them.
#pragma once
#include <cstdint>

#include "pool.h"

namespace readouts {

// How to read a number of a dtype, and where its lowest bit lies.
struct LimbLayout {
  int64_t stored;  // bits of the mantissa, but the first
  int64_t top;     // the biased exponent of infinity
  int64_t place;   // of the lowest bit of the least number, or of its square
  int64_t power;   // 1 for numbers, 2 for their squares
};

// Add rows of bit patterns to the limbs of their graphs; features from `begin` to `end`. Returns false where an
// index names no graph.
bool add_limbs(const void* rows, int64_t bytes, const int64_t* index, int64_t nodes, int64_t features, int64_t* limbs,
               int64_t count, int64_t graphs, const LimbLayout& layout, int64_t begin, int64_t end);

}  // namespace readouts
