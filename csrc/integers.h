// One reduction of integers or bool: exact sums modulo 2**64, extremes, averages in floating point, rounded once.
#pragma once
#include "forward.h"

namespace readouts {
namespace READOUTS_ISA {

template <class T>
READOUTS_INLINE Doubles load_integers(const T* source, int lanes) {
  double values[W] = {};
  for (int lane = 0; lane < lanes; ++lane) values[lane] = (double)source[lane];
  return load_doubles(values);
}

template <class T>
struct IntegerSquares {
  static constexpr int kDigits = 53;
  const double* mean;
  template <class R>
  READOUTS_INLINE Doubles operator()(const R& rows, int64_t position, int64_t column, int lanes, int64_t slot) const {
    return squares_of(load_integers(rows.at(position) + column, lanes), load_doubles(mean + slot));
  }
};

template <class T>
struct Integers {
  const T* x;
  int64_t nodes, features;
  Offsets offsets;
  const int64_t* order;
  Kind kind;
  void* out;       // a block of the output
  int64_t stride;  // of its rows
  bool* wrong;

  template <class U>
  U* row(int64_t graph) const {
    return static_cast<U*>(out) + graph * stride;
  }
};

template <class T, class U, class R>
void sum_integers(const Integers<T>& call, const R& rows, int64_t graph, int64_t* total) {
  std::memset(total, 0, call.features * sizeof(int64_t));
  for (int64_t position = call.offsets[graph]; position < call.offsets[graph + 1]; ++position) {
    const T* row = rows.at(position);
    for (int64_t feature = 0; feature < call.features; ++feature)
      total[feature] = (int64_t)((uint64_t)total[feature] + (uint64_t)(int64_t)row[feature]);
  }
  for (int64_t feature = 0; feature < call.features; ++feature) call.template row<U>(graph)[feature] = (U)total[feature];
}

template <class T, class U, class R>
void compare_integers(const Integers<T>& call, const R& rows, int64_t graph, T* best) {
  int64_t begin = call.offsets[graph], end = call.offsets[graph + 1];
  if (begin < end)
    std::memcpy(best, rows.at(begin), call.features * sizeof(T));
  else
    std::memset(best, 0, call.features * sizeof(T));
  for (int64_t position = begin + 1; position < end; ++position) {
    const T* row = rows.at(position);
    if (call.kind == kMax)
      for (int64_t feature = 0; feature < call.features; ++feature) best[feature] = vmax(best[feature], row[feature]);
    else
      for (int64_t feature = 0; feature < call.features; ++feature) best[feature] = vmin(best[feature], row[feature]);
  }
  for (int64_t feature = 0; feature < call.features; ++feature) call.template row<U>(graph)[feature] = (U)best[feature];
}

// Leave the mean of a graph in `work`: its exact sum, rounded once. halves [2, slots] are scratch memory.
template <class T, class U, class R>
void average_integers(const Integers<T>& call, const R& rows, int64_t graph, Work<U>& work, int64_t* halves) {
  int64_t slots = Columns(call.features).slots(), begin = call.offsets[graph], end = call.offsets[graph + 1];
  std::memset(halves, 0, 2 * slots * sizeof(int64_t));
  for (int64_t position = begin; position < end; ++position) {
    const T* row = rows.at(position);
    for (int64_t feature = 0; feature < call.features; ++feature) {
      if constexpr (sizeof(T) < 8) {
        halves[feature] += row[feature];
      } else {
        halves[feature] += row[feature] & 0xFFFFFFFF;
        halves[slots + feature] += row[feature] >> 32;
      }
    }
  }
  work.state.clear_sums(slots);
  vd n = fill<vd>((double)(end - begin));
  for (int64_t slot = 0; slot < slots; slot += D) {
    for (int half = 0; half < (sizeof(T) < 8 ? 1 : 2); ++half) {
      vl total = load_as<vl>(halves + half * slots + slot);
      vd scale = fill<vd>(half ? 0x1p32 : 1.0);
      absorb(work.state, slot, __builtin_convertvector(total >> 32, vd) * 0x1p32 * scale);
      absorb(work.state, slot, __builtin_convertvector(total & 0xFFFFFFFF, vd) * scale);
    }
    Rounded result = rounded<Number<U>::kWide>(
        normalised({load_as<vd>(work.state.high + slot), load_as<vd>(work.state.low + slot),
                    load_as<vd>(work.state.third + slot)}),
        n, true);
    store_as(work.mean + slot, result.mean);
    store_as(work.mean64 + slot, result.mean64);
  }
}

// Write what is in `work`, whose slots are columns in order (`packed`) or blocks that overlap.
template <class T, class U>
void write_averages(const Integers<T>& call, int64_t graph, const double* values, bool packed, bool roots) {
  Columns columns(call.features);
  U* out = call.template row<U>(graph);
  for (int64_t block = 0; block < columns.blocks(); ++block) {
    Doubles value = load_doubles(values + block * W);
    for (int half = 0; roots && half < 2; ++half) value.v[half] = square_root(value.v[half]);
    int64_t column = packed ? block * W : columns.column(block);
    store_block(out + column, Number<U>::narrow(value), (int)vmin<int64_t>(W, call.features - column));
  }
}

template <class T, class U, class R>
void spread_integers(const Integers<T>& call, const R& rows, int64_t graph, Work<U>& work, int64_t* halves) {
  Columns columns(call.features);
  int64_t begin = call.offsets[graph], end = call.offsets[graph + 1];
  if (begin == end) {
    std::memset(call.template row<U>(graph), 0, call.features * sizeof(U));
    return;
  }
  average_integers(call, rows, graph, work, halves);
  if (call.kind == kMean) {
    write_averages<T, U>(call, graph, work.mean, true, false);
    return;
  }
  for (int64_t block = 0; block < columns.blocks(); ++block)  // from columns in order to blocks
    std::memmove(work.centre + block * W, work.mean64 + columns.column(block), W * sizeof(double));
  gather_values(rows, begin, end, work, IntegerSquares<T>{work.centre});
  finish(rows, begin, end, IntegerSquares<T>{work.centre}, work, true);
  write_averages<T, U>(call, graph, call.kind == kVar ? work.mean : work.mean64, false, call.kind == kStd);
}

// Reduce to numbers of type U; averages, to floating-point numbers alone.
template <class T, class U>
void reduce_integers(const Integers<T>& call, int threads) {
  Plan plan(call.offsets, threads);
  plan.limit = call.nodes;
  int64_t slots = Columns(call.features).slots();
  auto run = [&](const auto& rows) {
    share_graphs(call.offsets, plan, [&](int64_t begin, int64_t end) {
      ControlWord word;
      if (call.kind <= kMin && call.kind != kMean) {
        int64_t* row = thread_scratch(call.features * 8).template take<int64_t>(call.features);
        for (int64_t graph = begin; graph < end; ++graph) {
          if (call.kind == kSum)
            sum_integers<T, U>(call, rows, graph, row);
          else
            compare_integers<T, U>(call, rows, graph, reinterpret_cast<T*>(row));
        }
      } else if constexpr (std::is_floating_point_v<U>) {
        Scratch& scratch = thread_scratch(Work<U>::bytes(call.features) + 2 * slots * 8 + 64);
        Work<U> work(scratch, call.features, true);
        int64_t* halves = scratch.take<int64_t>(2 * slots);
        for (int64_t graph = begin; graph < end; ++graph) spread_integers(call, rows, graph, work, halves);
      }
    });
  };
  if (call.order)
    run(Listed<T>{call.x, call.features, call.nodes, call.order, call.wrong});
  else
    run(Contiguous<T>{call.x, call.features});
}

}  // namespace READOUTS_ISA
}  // namespace readouts
