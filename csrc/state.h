// The state of a graph's columns while its rows are read: exact sums and extremes.
#pragma once
#include "arithmetic.h"
#include "control.h"
#include "rows.h"
#include "superaccumulator.h"

#include <initializer_list>

namespace readouts {
namespace READOUTS_ISA {

constexpr int64_t kTile = 128;  // rows that are certified, or split by pre-rounding, at once
constexpr int kGrid = 46;       // bits between the grids of pre-rounding: 2**7 multiples of one add up exactly

constexpr int kDeep = 12;       // more numbers of a sum, for values that spread over more than three hold

// Arrays of one number for every slot. The sum of a graph is high + low + third, exactly, and, where values spread
// widely, as many `deep` numbers as `depth` says, unless it is not finite (then it is `special`) or a lane is broken
// (then a superaccumulator has to add it again); `part` is that of a tile.
template <class T>
struct State {
  using Signed = typename Number<T>::Signed;
  using Unsigned = typename Number<T>::Unsigned;
  double *part, *high, *low, *third, *special;
  double* deep;  // [kDeep, slots]
  int64_t *depth, *broken;
  int64_t slots;
  Signed* largest;     // as signed integers: the greatest number unless all are negative
  Unsigned* least;     // as unsigned: the greatest of negative numbers, or the least of others
  Unsigned* greatest;  // as unsigned: the least of all unless none is negative

  static int64_t bytes(int64_t slots) { return slots * ((6 + kDeep) * 8 + 3 * sizeof(T) * (sizeof(T) == 2 ? 2 : 1)) + 1024; }

  static State make(Scratch& scratch, int64_t slots) {
    State state;
    for (double** array : {&state.part, &state.high, &state.low, &state.third, &state.special})
      *array = scratch.take<double>(slots);
    state.deep = scratch.take<double>(kDeep * slots);
    state.depth = scratch.take<int64_t>(1);
    state.broken = scratch.take<int64_t>(slots);
    state.slots = slots;
    state.largest = scratch.take<Signed>(slots);
    state.least = scratch.take<Unsigned>(slots);
    state.greatest = scratch.take<Unsigned>(slots);
    return state;
  }

  void clear_sums(int64_t slots) const {
    for (double* array : {high, low, third, special}) std::memset(array, 0, slots * sizeof(double));
    std::memset(broken, 0, slots * sizeof(int64_t));
    *depth = 0;
  }
};

// Largest, least and greatest of one block, in registers.
template <class T>
struct Extremes {
  using N = Number<T>;
  typename N::SignedVector largest[N::kParts];
  typename N::UnsignedVector least[N::kParts], greatest[N::kParts];

  READOUTS_INLINE void clear() {
    for (int part = 0; part < N::kParts; ++part) {
      largest[part] = fill<typename N::SignedVector>((typename N::Signed)((typename N::Unsigned)1 << (8 * sizeof(typename N::Signed) - 1)));
      least[part] = fill<typename N::UnsignedVector>((typename N::Unsigned)~(typename N::Unsigned)0);
      greatest[part] = typename N::UnsignedVector{};
    }
  }

  READOUTS_INLINE void load(const State<T>& state, int64_t slot) {
    for (int part = 0; part < N::kParts; ++part) {
      int64_t at = slot + part * (W / N::kParts);
      largest[part] = load_as<typename N::SignedVector>(state.largest + at);
      least[part] = load_as<typename N::UnsignedVector>(state.least + at);
      greatest[part] = load_as<typename N::UnsignedVector>(state.greatest + at);
    }
  }

  READOUTS_INLINE void store(const State<T>& state, int64_t slot) const {
    for (int part = 0; part < N::kParts; ++part) {
      int64_t at = slot + part * (W / N::kParts);
      store_as(state.largest + at, largest[part]);
      store_as(state.least + at, least[part]);
      store_as(state.greatest + at, greatest[part]);
    }
  }

  READOUTS_INLINE void add(const typename N::Block& block) {
    for (int part = 0; part < N::kParts; ++part) {
      typename N::SignedVector bits = N::part(block, part);
      largest[part] = vmax(largest[part], bits);
      least[part] = vmin(least[part], (typename N::UnsignedVector)bits);
      greatest[part] = vmax(greatest[part], (typename N::UnsignedVector)bits);
    }
  }

  READOUTS_INLINE void add(const Extremes& other) {
    for (int part = 0; part < N::kParts; ++part) {
      largest[part] = vmax(largest[part], other.largest[part]);
      least[part] = vmin(least[part], other.least[part]);
      greatest[part] = vmax(greatest[part], other.greatest[part]);
    }
  }

  // Return the maximum or the minimum: NaN where there is one, -0 below +0.
  READOUTS_INLINE typename N::Block value(bool maximum) const {
    using Vector = typename N::SignedVector;
    typename N::Block result;
    for (int part = 0; part < N::kParts; ++part) {
      Vector infinity = fill<Vector>((typename N::Signed)N::kInfinity);
      Vector low = (Vector)least[part], high = (Vector)greatest[part];
      Vector chosen = maximum ? (largest[part] >= 0 ? largest[part] : low) : (high < 0 ? high : low);
      Vector magnitude = high < 0 ? (high & ~(Vector)sign()) : Vector{};
      Vector unordered = (largest[part] > infinity) | (magnitude > infinity);
      N::set_part(result, part, unordered ? (Vector)nan() : chosen);
    }
    return result;
  }

 private:
  static READOUTS_INLINE typename N::SignedVector sign() {
    return fill<typename N::SignedVector>((typename N::Signed)((typename N::Unsigned)1 << (8 * sizeof(typename N::Signed) - 1)));
  }
  static READOUTS_INLINE typename N::SignedVector nan() {
    constexpr int quiet = N::kWide ? 51 : 22;
    return fill<typename N::SignedVector>((typename N::Signed)(N::kInfinity | ((typename N::Signed)1 << quiet)));
  }
};

// Registers that a block needs, and how many blocks are read side by side.
template <class T, bool kSums, bool kExtremes>
constexpr int blocks_at_once() {
  int cost = (kSums ? 2 : 0) + (kExtremes ? 3 * Number<T>::kParts : 0);
  int room = READOUTS_REGISTERS * 3 / 4;
  return cost * 8 <= room ? 8 : cost * 4 <= room ? 4 : cost * 2 <= room ? 2 : 1;
}

// Read the rows from `begin` to `end` of NB neighbouring blocks, U rows at once.
template <class T, bool kSums, bool kExtremes, int NB, int U, class R>
READOUTS_INLINE void scan_blocks(const R& rows, int64_t begin, int64_t end, int64_t column, int lanes,
                                 const State<T>& state, int64_t slot, bool clear_sums, bool clear_extremes) {
  using N = Number<T>;
  Doubles sum[U][NB];
  Extremes<T> extremes[NB];
  READOUTS_UNROLL
  for (int b = 0; b < NB; ++b) {
    if constexpr (kSums) {
      READOUTS_UNROLL
      for (int u = 0; u < U; ++u) sum[u][b] = Doubles{};
      if (!clear_sums) sum[0][b] = load_doubles(state.part + slot + b * W);
    }
    if constexpr (kExtremes) {
      if (clear_extremes)
        extremes[b].clear();
      else
        extremes[b].load(state, slot + b * W);
    }
  }
  auto take = [&](int64_t position, int u) READOUTS_INLINE_LAMBDA {
    const T* row = rows.at(position) + column;
    READOUTS_UNROLL
    for (int b = 0; b < NB; ++b) {
      typename N::Block block;
      if constexpr (kExtremes || sizeof(T) == 2) {
        block = NB == 1 ? load_block(row + b * W, lanes) : N::load(row + b * W);
        if constexpr (kExtremes) extremes[b].add(block);
      }
      if constexpr (kSums) {
        Doubles wide;
        if constexpr (sizeof(T) == 2)
          wide = N::widen(block);
        else if (NB == 1 && lanes < W)
          wide = N::widen(load_some(row, lanes));
        else
          wide = N::load_wide(row + b * W);
        sum[u][b].v[0] += wide.v[0];
        sum[u][b].v[1] += wide.v[1];
      }
    }
  };
  int64_t position = begin;
  for (; position + U <= end; position += U) {
    READOUTS_UNROLL
    for (int u = 0; u < U; ++u) {
      rows.prefetch(position + u, column, NB * W);
      take(position + u, u);
    }
  }
  if constexpr (U > 1)
    for (; position < end; ++position) take(position, 0);
  READOUTS_UNROLL
  for (int b = 0; b < NB; ++b) {
    if constexpr (kSums) {
      READOUTS_UNROLL
      for (int u = 1; u < U; ++u) {
        sum[0][b].v[0] += sum[u][b].v[0];
        sum[0][b].v[1] += sum[u][b].v[1];
      }
      store_doubles(state.part + slot + b * W, sum[0][b]);
    }
    if constexpr (kExtremes) extremes[b].store(state, slot + b * W);
  }
}

// Read the rows from `begin` to `end`, all columns: add to `part` as it comes, compare the extremes.
template <class T, bool kSums, bool kExtremes, class R>
__attribute__((noinline)) void scan(const R& rows, int64_t begin, int64_t end, const State<T>& state, bool clear_sums,
                          bool clear_extremes) {
  constexpr int NB = blocks_at_once<T, kSums, kExtremes>();
  Columns columns(rows.features);
  int64_t full = columns.full(), block = 0;
  for (; block + NB <= full; block += NB)
    scan_blocks<T, kSums, kExtremes, NB, NB == 1 ? 4 : 1>(rows, begin, end, block * W, W, state, block * W, clear_sums,
        clear_extremes);
  if constexpr (NB > 4)
    for (; block + 4 <= full; block += 4)
      scan_blocks<T, kSums, kExtremes, 4, 1>(rows, begin, end, block * W, W, state, block * W, clear_sums,
        clear_extremes);
  if constexpr (NB > 2)
    for (; block + 2 <= full; block += 2)
      scan_blocks<T, kSums, kExtremes, 2, 2>(rows, begin, end, block * W, W, state, block * W, clear_sums,
        clear_extremes);
  for (; block < columns.blocks(); ++block)
    scan_blocks<T, kSums, kExtremes, 1, 4>(rows, begin, end, columns.column(block), columns.lanes(), state, block * W,
                                           clear_sums, clear_extremes);
}

// Values to be added up: those of x, or the squares of their deviations from a mean; kDigits bits each.
template <class T>
struct Values {
  static constexpr int kDigits = Number<T>::kDigits;
  template <class R>
  READOUTS_INLINE Doubles operator()(const R& rows, int64_t position, int64_t column, int lanes, int64_t) const {
    return Number<T>::widen(load_block(rows.at(position) + column, lanes));
  }
};

READOUTS_INLINE Doubles squares_of(Doubles value, const Doubles& centre) {
  for (int half = 0; half < 2; ++half) {
    vd deviation = value.v[half] - centre.v[half];
    value.v[half] = deviation * deviation;
  }
  return value;
}

template <class T>
struct Squares {
  static constexpr int kDigits = 53;
  const double* mean;  // [slots]
  template <class R>
  READOUTS_INLINE Doubles operator()(const R& rows, int64_t position, int64_t column, int lanes, int64_t slot) const {
    return squares_of(Number<T>::widen(load_block(rows.at(position) + column, lanes)), load_doubles(mean + slot));
  }
};

// Add what three numbers do not hold to the deep ones, or mark the lane as broken.
template <class S>
__attribute__((noinline)) void absorb_deep(const S& state, int64_t slot, vd value) {
  vl lost = value != value;  // after an overflow
  value = lost ? vd{} : value;
  for (int64_t level = 0; level < kDeep && any(value != 0.0); ++level) {
    double* row = state.deep + level * state.slots;
    if (level == *state.depth) {
      std::memset(row, 0, state.slots * sizeof(double));
      ++*state.depth;
    }
    vd total, error;
    two_sum(load_as<vd>(row + slot), value, total, error);
    store_as(row + slot, total);
    value = error;
  }
  store_as(state.broken + slot, load_as<vl>(state.broken + slot) | lost | (value != 0.0));
}

// Add float64 numbers to a sum without an error, or mark the lane as broken.
template <class S>
READOUTS_INLINE void absorb(const S& state, int64_t slot, vd value) {
  vd high, low, third, error;
  two_sum(load_as<vd>(state.high + slot), value, high, error);
  two_sum(load_as<vd>(state.low + slot), error, low, error);
  two_sum(load_as<vd>(state.third + slot), error, third, error);
  store_as(state.high + slot, high);
  store_as(state.low + slot, low);
  store_as(state.third + slot, third);
  if (__builtin_expect(any(error != 0.0), 0)) absorb_deep(state, slot, error);
}

// Return the three leading numbers of a sum with deep ones. Those that follow are smaller than half of a unit in the
// last place of the third, which is zero only if they are: they decide no rounding of a mean over fewer than 2**50.
template <class S>
__attribute__((noinline)) Expansion compacted(const S& state, int64_t slot) {
  vd parts[3 + kDeep] = {load_as<vd>(state.high + slot), load_as<vd>(state.low + slot),
                         load_as<vd>(state.third + slot)};
  int64_t count = 3 + *state.depth;
  for (int64_t at = 3; at < count; ++at) parts[at] = load_as<vd>(state.deep + (at - 3) * state.slots + slot);
  vl broken = load_as<vl>(state.broken + slot), moved = fill<vl>((int64_t)-1);
  for (int64_t pass = 0; pass < 2 * count && any(moved); ++pass) {
    moved = vl{};
    for (int64_t at = count - 1; at > 0; --at) {
      vd total;
      two_sum(parts[at - 1], parts[at], total, parts[at]);
      moved |= total != parts[at - 1];
      parts[at - 1] = total;
    }
    moved &= ~broken;
  }
  store_as(state.broken + slot, broken | moved);
  return {parts[0], parts[1], parts[2]};
}

READOUTS_INLINE vd one_and_half(vl exponents) {  // times a power of two, given with its bias
  exponents = vmin(vmax(exponents, fill<vl>((int64_t)1)), fill<vl>((int64_t)2045));
  return (vd)((exponents << 52) | (int64_t)0x8000000000000);
}

// Split off what lies on the grid of a constant.
READOUTS_INLINE vd split(vd& value, vd constant) {
  vd part = (value + constant) - constant;
  value = value - part;
  return part;
}

// Add the values of a block on LEVELS grids, which hold them without a rest.
template <int LEVELS, class S, class R, class G>
READOUTS_INLINE void add_levels(const R& rows, int64_t begin, int64_t end, int64_t column, int lanes, const G& generate,
                                const S& state, int64_t slot, const vl exponents[2]) {
  vd constant[LEVELS][2], total[LEVELS][2];
  READOUTS_UNROLL
  for (int level = 0; level < LEVELS; ++level)
    for (int half = 0; half < 2; ++half) {
      constant[level][half] = one_and_half(exponents[half] - level * kGrid);
      total[level][half] = vd{};
    }
  for (int64_t position = begin; position < end; ++position) {
    Doubles value = generate(rows, position, column, lanes, slot);
    READOUTS_UNROLL
    for (int half = 0; half < 2; ++half) {
      READOUTS_UNROLL
      for (int level = 0; level + 1 < LEVELS; ++level)
        total[level][half] += split(value.v[half], constant[level][half]);
      total[LEVELS - 1][half] += value.v[half];
    }
  }
  for (int half = 0; half < 2; ++half) {
    READOUTS_UNROLL
    for (int level = 0; level < LEVELS; ++level) absorb(state, slot + half * D, total[level][half]);
  }
}

// The same for four grids and more: one half after the other, so that constants and sums stay in registers.
template <int LEVELS, class S, class R, class G>
__attribute__((noinline)) void add_many_levels(const R& rows, int64_t begin, int64_t end, int64_t column, int lanes,
                                               const G& generate, const S& state, int64_t slot,
                                               const vl exponents[2]) {
  for (int half = 0; half < 2; ++half) {
    vd constant[LEVELS], total[LEVELS];
    READOUTS_UNROLL
    for (int level = 0; level < LEVELS; ++level) {
      constant[level] = one_and_half(exponents[half] - level * kGrid);
      total[level] = vd{};
    }
    for (int64_t position = begin; position < end; ++position) {
      vd value = generate(rows, position, column, lanes, slot).v[half];
      READOUTS_UNROLL
      for (int level = 0; level + 1 < LEVELS; ++level) total[level] += split(value, constant[level]);
      total[LEVELS - 1] += value;
    }
    READOUTS_UNROLL
    for (int level = 0; level < LEVELS; ++level) absorb(state, slot + half * D, total[level]);
  }
}

// Add the values of a block that hold NaN or infinities, or need more than seven grids; `tile` is scratch memory
// for kTile * W numbers.
template <class S, class R, class G>
__attribute__((noinline)) void add_any(const R& rows, int64_t begin, int64_t end, int64_t column, int lanes,
                                       const G& generate, const S& state, int64_t slot, double* tile) {
  constexpr int64_t infinity = 0x7FF0000000000000;
  int64_t count = end - begin;
  vl size[2] = {}, left[2] = {};
  vd special[2] = {load_as<vd>(state.special + slot), load_as<vd>(state.special + slot + D)};
  for (int64_t row = 0; row < count; ++row) {
    Doubles value = generate(rows, begin + row, column, lanes, slot);
    for (int half = 0; half < 2; ++half) {
      vl finite = (vl)absolute(value.v[half]) < infinity;
      special[half] = finite ? special[half] : special[half] + value.v[half];
      value.v[half] = finite ? value.v[half] : vd{};
      size[half] = vmax(size[half], (vl)absolute(value.v[half]));
      left[half] |= (vl)value.v[half];
    }
    store_doubles(tile + row * W, value);
  }
  for (int half = 0; half < 2; ++half) {
    int64_t at = slot + half * D;
    store_as(state.special + at, special[half]);
    vl exponents = (size[half] >> 52) + 8;
    store_as(state.broken + at, load_as<vl>(state.broken + at) | (exponents > 2045));
    while (any((left[half] << 1) & ~load_as<vl>(state.broken + at))) {
      vd constant = one_and_half(exponents), total{};
      left[half] = vl{};
      for (int64_t row = 0; row < count; ++row) {
        double* place = tile + row * W + half * D;
        vd value = load_as<vd>(place);
        total += split(value, constant);
        store_as(place, value);
        left[half] |= (vl)value;
      }
      absorb(state, at, total);
      exponents = vmax(exponents - kGrid, fill<vl>((int64_t)0));
    }
  }
}

// The biased float64 exponents of the largest and the least magnitudes of a block, zeros left out; 2047 for NaN and
// infinities.
struct Exponents {
  vl top[2], bottom[2];
};

template <class R, class T, class G>
READOUTS_INLINE Exponents find_exponents(const R& rows, const T*, int64_t begin, int64_t end, int64_t column, int lanes,
                                         const G& generate, int64_t slot) {
  vl largest[2] = {}, least[2] = {fill<vl>((int64_t)-1), fill<vl>((int64_t)-1)};
  for (int64_t position = begin; position < end; ++position) {
    Doubles value = generate(rows, position, column, lanes, slot);
    READOUTS_UNROLL
    for (int half = 0; half < 2; ++half) {
      vl size = (vl)absolute(value.v[half]);
      largest[half] = vmax(largest[half], size);
      least[half] = (vl)vmin((vul)least[half], (vul)(size - 1));
    }
  }
  Exponents result;
  for (int half = 0; half < 2; ++half) {
    result.top[half] = largest[half] >> 52;
    vl bottom = (vl)((vul)(least[half] + 1) >> 52);
    result.bottom[half] = (least[half] == -1) ? result.top[half] : bottom;
  }
  return result;
}

// The same from the bits of floats that are read as float32.
template <class R, class T>
READOUTS_INLINE Exponents find_exponents(const R& rows, const T*, int64_t begin, int64_t end, int64_t column, int lanes,
                                         const Values<T>&, int64_t, std::enable_if_t<!Number<T>::kWide>* = nullptr) {
  vi largest{}, least = fill<vi>(-1);
  for (int64_t position = begin; position < end; ++position) {
    vi size = (vi)load_block(rows.at(position) + column, lanes) & 0x7FFFFFFF;
    largest = vmax(largest, size);
    least = (vi)vmin((vu)least, (vu)(size - 1));
  }
  vi top = vmax(largest >> 23, fill<vi>(1));
  vi bottom = vmax((least + 1) >> 23, fill<vi>(1));
  bottom = (least == -1) ? top : bottom;
  Exponents result;
  for (int half = 0; half < 2; ++half) {
    vl wide = longs_of(load_as<vi_half>((const char*)&top + half * sizeof(vi_half)));
    result.top[half] = wide == 255 ? fill<vl>((int64_t)2047) : wide + 896;
    result.bottom[half] = longs_of(load_as<vi_half>((const char*)&bottom + half * sizeof(vi_half))) + 896;
  }
  return result;
}

// Add one block of a tile by pre-rounding (Demmel and Nguyen 2015): every number is split on grids kGrid bits apart,
// from the largest magnitude down to the last bit of the least. The sums on each grid are exact.
template <class S, class R, class G>
void add_split(const R& rows, int64_t begin, int64_t end, int64_t column, int lanes, const G& generate, const S& state,
               int64_t slot, double* tile) {
  Exponents found = find_exponents(rows, rows.x, begin, end, column, lanes, generate, slot);
  vl exponents[2], depth{}, hard{};
  for (int half = 0; half < 2; ++half) {
    exponents[half] = found.top[half] + 8;
    hard |= found.top[half] > 2037;  // NaN, infinities, and what would overflow
    vl bottom = vmax(vmin(found.bottom[half], found.top[half]), fill<vl>((int64_t)1));
    depth = vmax(depth, found.top[half] - bottom + (G::kDigits + 7));  // from 2**7 times the largest to the last bit
  }
  if (__builtin_expect(any(hard) || any(depth > 7 * kGrid + 6), 0))
    add_any(rows, begin, end, column, lanes, generate, state, slot, tile);
  else if (any(depth > 5 * kGrid + 6))
    add_many_levels<7>(rows, begin, end, column, lanes, generate, state, slot, exponents);
  else if (any(depth > 4 * kGrid + 6))
    add_many_levels<5>(rows, begin, end, column, lanes, generate, state, slot, exponents);
  else if (any(depth > 3 * kGrid + 6))
    add_many_levels<4>(rows, begin, end, column, lanes, generate, state, slot, exponents);
  else if (any(depth > 2 * kGrid + 6))
    add_levels<3>(rows, begin, end, column, lanes, generate, state, slot, exponents);
  else if (any(depth > kGrid + 6))
    add_levels<2>(rows, begin, end, column, lanes, generate, state, slot, exponents);
  else
    add_levels<1>(rows, begin, end, column, lanes, generate, state, slot, exponents);
}

// Add `part`, which is exact, to the three numbers.
template <class T>
READOUTS_INLINE void fold(const State<T>& state, int64_t slots) {
  for (int64_t slot = 0; slot < slots; slot += D) {
    vd part = load_as<vd>(state.part + slot);
    vl finite = (part - part) == 0.0;
    vd special = load_as<vd>(state.special + slot);
    store_as(state.special + slot, finite ? special : special + part);
    absorb(state, slot, finite ? part : vd{});
  }
}

// Whether sums are tried as they come. After a tile that was rounded the next ones are split at once.
struct Mode {
  bool flag_works;
  int split_next = 0, span = 1;
  bool tries() { return flag_works && (split_next == 0 || --split_next == 0); }
  void failed() { split_next = span = span < 1024 ? 2 * span : span; }
  void worked() { span = 1; }
};

// Take in the rows from `begin` to `end` of a graph: exact sums of the values, and extremes.
template <class T, bool kSums, bool kExtremes, class R>
void gather(const R& rows, int64_t begin, int64_t end, const State<T>& state, double* tile, Mode& mode) {
  Columns columns(rows.features);
  int64_t slots = columns.slots();
  int64_t step = rows.features > 16 * W ? vmax<int64_t>(8, 16384 / rows.features) : kTile;  // rows read at once
  if constexpr (kSums) state.clear_sums(slots);
  for (int64_t start = begin; start < end; start += kTile) {
    int64_t stop = vmin(start + kTile, end);
    bool tries = kSums && !Number<T>::kWide && mode.tries();
    if (tries) clear_inexact();
    for (int64_t at = start; at < stop; at += step) {
      int64_t until = vmin(at + step, stop);
      if (tries)
        scan<T, kSums, kExtremes>(rows, at, until, state, at == start, at == begin);
      else if constexpr (kExtremes)
        scan<T, false, true>(rows, at, until, state, false, at == begin);
    }
    if constexpr (kSums) {
      if (tries && !is_inexact()) {
        fold(state, slots);
        mode.worked();
        continue;
      }
      if (tries) mode.failed();
      for (int64_t block = 0; block < columns.blocks(); ++block)
        add_split(rows, start, stop, columns.column(block), columns.lanes(), Values<T>{}, state, block * W, tile);
    }
  }
}

}  // namespace READOUTS_ISA
}  // namespace readouts
