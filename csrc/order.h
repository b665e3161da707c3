// Order statistics: columns of small graphs are sorted by a network, those of large graphs searched by counting.
//
// Numbers become keys, integers in the same order with -0 below +0; a NaN is the least or the greatest key of its
// column. One register of keys is P columns.
#pragma once
#include <limits>
#include <type_traits>

#include "forward.h"

namespace readouts {
namespace READOUTS_ISA {

constexpr int64_t kSorted = 512;  // nodes up to which the columns of a graph are sorted

template <class T, class = void>
struct Keys {
  using N = Number<T>;
  using Vector = typename N::SignedVector;
  using Int = typename N::Signed;
  static constexpr int P = W / N::kParts;
  static constexpr Int kGreatest = (Int)(~(typename N::Unsigned)0 >> 1), kLeast = -kGreatest - 1;
  static constexpr int kBits = 8 * sizeof(Int);
  // bits that a 16-bit float does not have as float32
  static constexpr int kUnused = std::is_same_v<T, bfloat16> ? 16 : std::is_same_v<T, float16> ? 13 : 0;

  static READOUTS_INLINE Vector load(const T* source, int lanes) {
    if constexpr (N::kWide) {
      if (__builtin_expect(lanes == P, 1)) return load_as<vl>(source);
      double buffer[P] = {};
      for (int lane = 0; lane < lanes; ++lane) buffer[lane] = source[lane];
      return load_as<vl>(buffer);
    } else {
      return (Vector)load_block(source, lanes);
    }
  }

  static READOUTS_INLINE void store(T* target, Vector bits, int lanes) {
    if constexpr (N::kWide) {
      if (__builtin_expect(lanes == P, 1)) {
        store_as(target, bits);
        return;
      }
      double buffer[P];
      store_as(buffer, bits);
      for (int lane = 0; lane < lanes; ++lane) target[lane] = buffer[lane];
    } else {
      store_block(target, (vf)bits, lanes);
    }
  }

  static READOUTS_INLINE Vector keys(Vector bits) { return bits < 0 ? bits ^ kGreatest : bits; }

  static READOUTS_INLINE Vector bits(Vector keys, Vector unordered) {
    constexpr Int nan = (Int)(N::kInfinity | ((Int)1 << (N::kWide ? 51 : 22)));
    return unordered ? fill<Vector>(nan) : Keys::keys(keys);
  }

  static READOUTS_INLINE Vector has_nan(Vector least, Vector greatest) {
    return (greatest > (Int)N::kInfinity) | (least < (Int)(-(Int)N::kInfinity - 1));
  }

  static READOUTS_INLINE auto numbers(Vector bits) {
    if constexpr (N::kWide)
      return (vd)bits;
    else
      return (vf)bits;
  }

  static READOUTS_INLINE Doubles wide(Vector bits) {
    if constexpr (N::kWide)
      return {{(vd)bits, vd{}}};
    else
      return N::widen((vf)bits);
  }

  // Round float64 to the dtype and store it.
  static READOUTS_INLINE void store_wide(T* target, const Doubles& value, int lanes) {
    auto block = N::narrow(value);
    if constexpr (N::kWide)
      store(target, (vl)block.v[0], lanes);
    else
      store(target, (vi)block, lanes);
  }
};

// Integers are keys as they are, in lanes of 32 bits if they fit.
template <class T>
struct Keys<T, std::enable_if_t<std::is_integral_v<T>>> {
  using Vector = std::conditional_t<sizeof(T) == 8, vl, vi>;
  using Int = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;
  static constexpr int P = sizeof(T) == 8 ? D : W, kBits = 8 * sizeof(T), kUnused = 0;
  static constexpr Int kGreatest = std::numeric_limits<Int>::max(), kLeast = std::numeric_limits<T>::min();

  static READOUTS_INLINE Vector load(const T* source, int lanes) {
    Int buffer[P] = {};
    if (__builtin_expect(lanes == P, 1))
      for (int lane = 0; lane < P; ++lane) buffer[lane] = source[lane];
    else
      for (int lane = 0; lane < lanes; ++lane) buffer[lane] = source[lane];
    return load_as<Vector>(buffer);
  }

  static READOUTS_INLINE void store(T* target, Vector keys, int lanes) {
    Int buffer[P];
    store_as(buffer, keys);
    for (int lane = 0; lane < lanes; ++lane) target[lane] = (T)buffer[lane];
  }

  static READOUTS_INLINE Vector keys(Vector bits) { return bits; }
  static READOUTS_INLINE Vector bits(Vector keys, Vector) { return keys; }
  static READOUTS_INLINE Vector has_nan(Vector, Vector) { return Vector{}; }
  static READOUTS_INLINE Vector numbers(Vector bits) { return bits; }

  static READOUTS_INLINE Doubles wide(Vector keys) {
    if constexpr (sizeof(T) == 8) {
      return {{__builtin_convertvector(keys, vd), vd{}}};
    } else {
      Int buffer[P];
      store_as(buffer, keys);
      return {{doubles_of(load_as<vi_half>(buffer)), doubles_of(load_as<vi_half>(buffer + D))}};
    }
  }
};

// A block of columns of one graph.
template <class T, class R>
struct Column {
  const R& rows;
  int64_t begin, end, column;
  int lanes;
  int64_t nodes() const { return end - begin; }
  READOUTS_INLINE typename Keys<T>::Vector bits(int64_t position) const {
    rows.prefetch(position, column, Keys<T>::P);
    return Keys<T>::load(rows.at(position) + column, lanes);
  }
  READOUTS_INLINE typename Keys<T>::Vector key(int64_t position) const { return Keys<T>::keys(bits(position)); }
};

template <class T>
struct Order {
  const T* x;
  int64_t nodes, features;
  Offsets offsets;
  const int64_t* order;
  bool* wrong;
};

// Sort n registers, lane by lane, by merge exchange (Batcher's network; Knuth, TAOCP 3, 5.2.2, algorithm M).
template <class Vector>
READOUTS_INLINE void sort(Vector* keys, int64_t n) {
  int64_t top = 1;
  while (2 * top < n) top *= 2;
  for (int64_t p = top; p > 0; p /= 2)
    for (int64_t q = top, r = 0, d = p; d > 0; d = q - p, q /= 2, r = p)
      for (int64_t start = r; start < n - d; start += 2 * p)
        for (int64_t i = start, stop = vmin(start + p, n - d); i < stop; ++i) {
          Vector a = keys[i], b = keys[i + d];
          keys[i] = vmin(a, b);
          keys[i + d] = vmax(a, b);
        }
}

// Write the sorted keys of a column; return the lanes with a NaN.
template <class T, class R>
typename Keys<T>::Vector sort_column(const Column<T, R>& column, typename Keys<T>::Vector* keys) {
  for (int64_t position = column.begin; position < column.end; ++position)
    keys[position - column.begin] = column.key(position);
  sort(keys, column.nodes());
  return Keys<T>::has_nan(keys[0], keys[column.nodes() - 1]);
}

// Return the key with `rank` smaller or equal ones before it, two bits in a pass, from the first.
template <class T, class R>
typename Keys<T>::Vector search(const Column<T, R>& column, int64_t rank) {
  using K = Keys<T>;
  using Vector = typename K::Vector;
  using Int = typename K::Int;
  Vector base = fill<Vector>(K::kLeast);  // a multiple of the step with at most `rank` keys below it
  int shift = K::kBits;
  while (shift > K::kUnused) {
    shift -= 2;
    Vector step = fill<Vector>((Int)((Int)1 << shift)), one = base + step, two = one + step, three = two + step;
    Vector below_one{}, below_two{}, below_three{};
    for (int64_t position = column.begin; position < column.end; ++position) {
      Vector key = column.key(position);
      below_one -= key < one;
      below_two -= key < two;
      below_three -= key < three;
    }
    Vector wanted = fill<Vector>((Int)rank);
    base += (wanted >= below_one) & step;
    base += (wanted >= below_two) & step;
    base += (wanted >= below_three) & step;
  }
  return base < 0 ? base | (Int)(((Int)1 << shift) - 1) : base;  // the bits that are not used
}

// Return the key of a rank, given that of the rank before.
template <class T, class R>
typename Keys<T>::Vector successor(const Column<T, R>& column, typename Keys<T>::Vector chosen, int64_t rank) {
  using Vector = typename Keys<T>::Vector;
  using Int = typename Keys<T>::Int;
  Vector reached{}, following = fill<Vector>(Keys<T>::kGreatest);
  for (int64_t position = column.begin; position < column.end; ++position) {
    Vector key = column.key(position);
    Vector greater = key > chosen;
    reached += greater + 1;
    following = vmin(following, greater ? key : fill<Vector>(Keys<T>::kGreatest));
  }
  return reached > (Int)rank ? chosen : following;
}

// Write the order statistics of a column to out [K, F], and the mean of the first two unless `mean` is null.
template <class T, class U, class R>
void select_column(const Column<T, R>& column, const int64_t* ranks, int64_t count, int64_t features, T* out, U* mean,
                   typename Keys<T>::Vector* keys) {
  using K = Keys<T>;
  using Vector = typename K::Vector;
  int64_t last = column.nodes() - 1;
  auto put = [&](int64_t k, Vector key, Vector unordered) {
    K::store(out + k * features + column.column, K::bits(key, unordered), column.lanes);
  };
  if (last < kSorted) {
    Vector unordered = sort_column(column, keys);
    for (int64_t k = 0; k < count; ++k) put(k, keys[vmin(vmax<int64_t>(ranks[k], 0), last)], unordered);
  } else {
    Vector least = column.key(column.begin), greatest = least;
    for (int64_t position = column.begin; position < column.end; ++position) {
      Vector key = column.key(position);
      least = vmin(least, key);
      greatest = vmax(greatest, key);
    }
    Vector unordered = K::has_nan(least, greatest), chosen = least;
    int64_t previous = 0;
    for (int64_t k = 0; k < count; ++k) {
      int64_t rank = vmin(vmax<int64_t>(ranks[k], 0), last);
      if (rank == last)
        chosen = greatest;
      else if (rank == 0)
        chosen = least;
      else if (rank == previous + 1)
        chosen = successor<T>(column, chosen, rank);
      else if (rank != previous)
        chosen = search<T>(column, rank);
      previous = rank;
      put(k, chosen, unordered);
    }
  }
  if (!mean) return;
  Doubles low = K::wide(K::load(out + column.column, column.lanes));
  Doubles high = K::wide(K::load(out + features + column.column, column.lanes)), result;
  for (int half = 0; half < 2; ++half) {
    vd total = low.v[half] + high.v[half];
    result.v[half] = (total - total) == 0.0 ? total * 0.5 : low.v[half] * 0.5 + high.v[half] * 0.5;
  }
  if constexpr (std::is_same_v<T, U>)
    K::store_wide(mean + column.column, result, column.lanes);
  else
    store_block(mean + column.column, Number<U>::narrow(result), column.lanes);
}

// Call work(graph, column, keys) for every block of columns of every graph with nodes.
template <class T, class Work>
void for_columns(const Order<T>& call, int threads, const Work& work) {
  constexpr int P = Keys<T>::P;
  ColumnsOf<P> columns(call.features);
  int64_t blocks = columns.blocks(), length = call.nodes * blocks;
  Plan plan(call.offsets, threads);
  auto run = [&](const auto& rows) {
    parallel(plan.threads, [&](int part) {
      ControlWord word;
      using Vector = typename Keys<T>::Vector;
      Vector* keys = thread_scratch(kSorted * sizeof(Vector)).template take<Vector>(kSorted);
      int64_t from = length / plan.threads * part;
      int64_t to = part + 1 == plan.threads ? length : length / plan.threads * (part + 1);
      int64_t low = 0, high = call.offsets.graphs;  // the first graph that ends after `from`
      while (low < high) {
        int64_t middle = (low + high) / 2;
        if (call.offsets[middle + 1] * blocks <= from)
          low = middle + 1;
        else
          high = middle;
      }
      for (int64_t graph = low; graph < call.offsets.graphs && call.offsets[graph] * blocks < to; ++graph) {
        int64_t begin = call.offsets[graph], end = call.offsets[graph + 1];
        for (int64_t block = 0; block < blocks && begin < end; ++block) {
          bool overlaps = block > 0 && columns.column(block) < block * P;  // then one thread writes both
          int64_t start = begin * blocks + (block - overlaps) * (end - begin);
          if (start < from || start >= to) continue;
          using R = std::remove_cv_t<std::remove_reference_t<decltype(rows)>>;
          work(graph, Column<T, R>{rows, begin, end, columns.column(block), columns.lanes()}, keys);
        }
      }
    });
  };
  if (call.order)
    run(Listed<T>{call.x, call.features, call.nodes, call.order, call.wrong});
  else
    run(Contiguous<T>{call.x, call.features});
}

// Write order statistics [B, K, F] of given ranks [B, K], and means [B, F] of the first two unless null.
template <class T, class U>
void select(const Order<T>& call, const int64_t* ranks, int64_t count, T* out, U* means, int threads) {
  for (int64_t graph = 0; graph < call.offsets.graphs; ++graph) {
    if (call.offsets.nodes(graph)) continue;
    std::memset(out + graph * count * call.features, 0, count * call.features * sizeof(T));
    if (means) std::memset(means + graph * call.features, 0, call.features * sizeof(U));
  }
  for_columns(call, threads, [&](int64_t graph, const auto& column, auto* keys) {
    select_column(column, ranks + graph * count, count, call.features, out + graph * count * call.features,
                  means ? means + graph * call.features : nullptr, keys);
  });
}

// Write the values that trimming keeps, in any order, to the rows of `kept` from kept_ptr[graph] on.
// bounds [B, 2, F] are the least and the greatest of them, cut [B] how many are left out at either end.
template <class T>
void keep(const Order<T>& call, const T* bounds, const int64_t* cut, const int64_t* kept_ptr, T* kept, int threads) {
  using K = Keys<T>;
  using Vector = typename K::Vector;
  int64_t features = call.features;
  for_columns(call, threads, [&](int64_t graph, const auto& column, Vector* keys) {
    int64_t n = column.nodes(), left_out = cut[graph], wanted = (int64_t)((uint64_t)n - 2 * (uint64_t)left_out);
    if (left_out < 0 || left_out > n / 2 || kept_ptr[graph] < 0 || kept_ptr[graph] > call.nodes - wanted) {
      __atomic_store_n(call.wrong, true, __ATOMIC_RELAXED);
      return;
    }
    T* target = kept + kept_ptr[graph] * features + column.column;
    if (n <= kSorted) {
      Vector unordered = sort_column(column, keys);
      for (int64_t rank = 0; rank < wanted; ++rank)
        K::store(target + rank * features, K::bits(keys[left_out + rank], unordered), column.lanes);
      return;
    }
    const T* low_row = bounds + 2 * graph * features + column.column;
    const T* high_row = low_row + features;
    auto low = K::numbers(K::load(low_row, column.lanes)), high = K::numbers(K::load(high_row, column.lanes));
    Vector reached{};
    int64_t places[K::P] = {};
    for (int64_t position = column.begin; position < column.end; ++position) {
      Vector bits = column.bits(position);
      auto value = K::numbers(bits);
      reached += (Vector)(value > low) + 1;
      Vector inside = (Vector)(value > low) & (Vector)(value < high);
      if (!any(inside)) continue;
      const T* row = column.rows.at(position) + column.column;
      for (int lane = 0; lane < column.lanes; ++lane)
        if (inside[lane] && places[lane] < wanted) target[places[lane]++ * features + lane] = row[lane];
    }
    for (int lane = 0; lane < column.lanes; ++lane) {
      int64_t lower = places[lane] + reached[lane] - left_out;
      for (int64_t rank = places[lane]; rank < wanted; ++rank)
        target[rank * features + lane] = rank < lower ? low_row[lane] : high_row[lane];
    }
  });
}

// Write the gradient of trimmed means: nodes tied at a bound share what is kept of it.
template <class T>
void trim_backward(const Order<T>& call, const T* bounds, const int64_t* cut, const T* grad, T* result,
                   int threads) {
  using K = Keys<T>;
  using Vector = typename K::Vector;
  constexpr int halves = Number<T>::kWide ? 1 : 2;
  int64_t features = call.features;
  for_columns(call, threads, [&](int64_t graph, const auto& column, Vector*) {
    const T* row = bounds + 2 * graph * features + column.column;
    Vector low_bits = K::load(row, column.lanes), high_bits = K::load(row + features, column.lanes);
    Doubles low = K::wide(low_bits), high = K::wide(high_bits);
    Doubles slope = K::wide(K::load(grad + graph * features + column.column, column.lanes));
    vd left_out = fill<vd>((double)cut[graph]), kept = fill<vd>((double)(column.nodes() - 2 * cut[graph]));
    vd share_low[2], share_high[2];
    auto ties = [](vd a, vd b) READOUTS_INLINE_LAMBDA { return (a == b) | ((a != a) & (b != b)); };
    for (int half = 0; half < halves; ++half) {
      vl tied_low{}, tied_high{}, below{}, above{};
      for (int64_t position = column.begin; position < column.end; ++position) {
        vd value = K::wide(column.bits(position)).v[half];
        tied_low -= ties(value, low.v[half]);
        tied_high -= ties(value, high.v[half]);
        below -= value < low.v[half];
        above -= value > high.v[half];
      }
      auto number = [](vl count) READOUTS_INLINE_LAMBDA { return __builtin_convertvector(count, vd); };
      vl one_value = ties(low.v[half], high.v[half]);
      vd kept_low = one_value ? kept : number(below) + number(tied_low) - left_out;
      vd kept_high = one_value ? vd{} : number(above) + number(tied_high) - left_out;
      slope.v[half] = slope.v[half] / kept;
      share_low[half] = slope.v[half] * kept_low / vmax(number(tied_low), fill<vd>(1.0));
      share_high[half] = slope.v[half] * kept_high / vmax(number(tied_high), fill<vd>(1.0));
    }
    for (int64_t position = column.begin; position < column.end; ++position) {
      int64_t node = column.rows.node(position);
      Doubles value = K::wide(K::load(call.x + node * features + column.column, column.lanes)), total{};
      for (int half = 0; half < halves; ++half) {
        vd number = value.v[half];
        total.v[half] = ((number > low.v[half]) & (number < high.v[half])) ? slope.v[half] : vd{};
        total.v[half] = ties(number, high.v[half]) ? share_high[half] : total.v[half];
        total.v[half] = ties(number, low.v[half]) ? share_low[half] : total.v[half];
      }
      K::store_wide(result + node * features + column.column, total, column.lanes);
    }
  });
}

}  // namespace READOUTS_ISA
}  // namespace readouts
