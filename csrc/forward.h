// Sum, mean, max, min, variance and standard deviation of every graph, any of them in one pass.
#pragma once
#include "state.h"

namespace readouts {
namespace READOUTS_ISA {

enum Kind : int64_t { kSum, kMean, kMax, kMin, kVar, kStd };

// A reduction and its block of the output.
struct Entry {
  Kind kind;
  int64_t block;
};

// Offsets of the graphs, copied and checked, so that nobody can change them while they are in use.
struct Offsets {
  const int64_t* ptr;
  int64_t graphs;
  int64_t operator[](int64_t graph) const { return ptr[graph]; }
  int64_t nodes(int64_t graph) const { return ptr[graph + 1] - ptr[graph]; }
};

template <class T>
struct Forward {
  const T* x;
  int64_t nodes, features;
  Offsets offsets;
  const int64_t* order;
  const Entry* entries;
  int64_t reductions;
  T* out;
  bool flag_works;
  bool* wrong;
  bool updates = false;  // write into rows that exist: leave those of empty graphs alone, read what `order` names
  int64_t sources = nodes;  // rows of x

  bool has(Kind kind) const {
    for (int64_t entry = 0; entry < reductions; ++entry)
      if (entries[entry].kind == kind) return true;
    return false;
  }
};

// Scratch memory and results of the graph at work.
template <class T>
struct Work {
  static constexpr int64_t kBatch = 1024;  // numbers in the sums of small graphs that are certified together
  State<T> state;
  double *centre, *tile, *sum, *mean, *mean64, *batch;  // centre: the means that squares are taken about
  int64_t* batched;
  int64_t batch_size;
  Mode mode;

  static int64_t bytes(int64_t features) {
    int64_t slots = Columns(features).slots();
    return State<T>::bytes(slots) + 8 * (4 * slots + kTile * W + capacity(slots) * (slots + 1)) + 1024;
  }
  static int64_t capacity(int64_t slots) { return vmax<int64_t>(1, kBatch / slots); }

  Work(Scratch& scratch, int64_t features, bool flag_works) : mode{flag_works} {
    int64_t slots = Columns(features).slots();
    state = State<T>::make(scratch, slots);
    centre = scratch.take<double>(slots);
    tile = scratch.take<double>(kTile * W);
    sum = scratch.take<double>(slots);
    mean = scratch.take<double>(slots);
    mean64 = scratch.take<double>(slots);
    batch_size = capacity(slots);
    batch = scratch.take<double>(batch_size * slots);
    batched = scratch.take<int64_t>(batch_size);
  }
};

// Write sums or means of a graph, given in float64 as `Number<T>::narrow` takes them, for every slot.
template <class T>
READOUTS_INLINE void write_sums(const Forward<T>& call, int64_t graph, const double* sums, const double* means) {
  Columns columns(call.features);
  T* out = call.out + graph * call.reductions * call.features;
  for (int64_t entry = 0; entry < call.reductions && call.entries[entry].kind <= kMean; ++entry) {
    const double* values = call.entries[entry].kind == kSum ? sums : means;
    T* row = out + call.entries[entry].block * call.features;
    int64_t full = columns.full();
    for (int64_t block = 0; block < full; ++block)
      Number<T>::store(row + block * W, Number<T>::narrow(load_doubles(values + block * W)));
    if (full < columns.blocks())
      store_block(row + columns.column(full), Number<T>::narrow(load_doubles(values + full * W)), columns.lanes());
  }
}

// Write the maximum and minimum of a graph.
template <class T>
READOUTS_INLINE void write_extremes(const Forward<T>& call, int64_t graph, const State<T>& state) {
  Columns columns(call.features);
  T* out = call.out + graph * call.reductions * call.features;
  for (int64_t block = 0; block < columns.blocks(); ++block) {
    Extremes<T> extremes;
    extremes.load(state, block * W);
    for (int64_t entry = 0; entry < call.reductions; ++entry)
      if (call.entries[entry].kind == kMax || call.entries[entry].kind == kMin)
        store_block(out + call.entries[entry].block * call.features + columns.column(block),
                    extremes.value(call.entries[entry].kind == kMax), columns.lanes());
  }
}

// Return an exact sum divided by n, as `Number<T>::narrow` takes it.
template <class T>
READOUTS_INLINE vd certified_mean(vd total, vd n) {
  vd quotient = total / n, rest = remainder_of(total, quotient, n);
  vl finite = (total - total) == 0.0;
  vd exact = Number<T>::kWide ? nearest(quotient, rest, vd{}, vd{}, n) : to_odd(quotient, rest);
  return finite ? exact : total;
}

// Round the certified sums of a graph and write them; `means` is scratch memory for means, or null without them.
template <class T>
READOUTS_INLINE void write_certified(const Forward<T>& call, int64_t graph, const double* sums, double* means) {
  if (means) {
    vd n = fill<vd>((double)call.offsets.nodes(graph));
    for (int64_t slot = 0; slot < Columns(call.features).slots(); slot += D)
      store_as(means + slot, certified_mean<T>(load_as<vd>(sums + slot), n));
  }
  write_sums(call, graph, sums, means);
}

// Return the sum of what `generate` makes of one lane of a graph, over 1 and over n nodes, by superaccumulator.
template <class T, class R, class G>
__attribute__((noinline)) void add_slowly(const R& rows, int64_t begin, int64_t end, int64_t column, int lanes,
                                          const G& generate, int64_t slot, int lane, Scalar& sum, Scalar& mean) {
  Superaccumulator total;
  total.clear();
  for (int64_t position = begin; position < end; ++position) {
    Doubles value = generate(rows, position, column, lanes, slot);
    total.add(value.v[lane / D][lane % D]);
  }
  sum = total.divided(1);
  mean = total.divided(end - begin);
}

// Round the state of a graph to `work.sum` and, if they are needed, `mean` and `mean64`.
template <class T, class R, class G>
void finish(const R& rows, int64_t begin, int64_t end, const G& generate, Work<T>& work, bool means) {
  Columns columns(rows.features);
  const State<T>& state = work.state;
  vd n = fill<vd>((double)(end - begin));
  for (int64_t slot = 0; slot < columns.slots(); slot += D) {
    Expansion sum = *state.depth ? compacted(state, slot)
                                 : normalised({load_as<vd>(state.high + slot), load_as<vd>(state.low + slot),
                                               load_as<vd>(state.third + slot)});
    Rounded result = rounded<Number<T>::kWide>(sum, n, means);
    vd special = load_as<vd>(state.special + slot);
    vl is_special = special != 0.0;  // NaN, too
    store_as(work.sum + slot, is_special ? special : result.sum);
    store_as(work.mean + slot, is_special ? special : result.mean);
    store_as(work.mean64 + slot, is_special ? special : result.mean64);
    vd size = absolute(sum.high);
    vl fits = (size == 0.0) | ((size < 0x1p990) & (size > 0x1p-900));
    vl hard = (load_as<vl>(state.broken + slot) | ~fits) & ~is_special;
    if (!any(hard)) continue;
    int64_t block = slot / W;
    for (int lane = 0; lane < D; ++lane) {
      int place = (int)(slot % W) + lane;
      if (!hard[lane] || place >= columns.lanes()) continue;
      Scalar total, mean;
      add_slowly<T>(rows, begin, end, columns.column(block), columns.lanes(), generate, block * W, place, total, mean);
      work.sum[slot + lane] = Number<T>::kWide ? total.nearest : total.odd;
      work.mean[slot + lane] = Number<T>::kWide ? mean.nearest : mean.odd;
      work.mean64[slot + lane] = mean.nearest;
    }
  }
}

// Write variances and standard deviations from `work`, where the values were squares.
template <class T>
void write_squares(const Forward<T>& call, int64_t graph, const Work<T>& work) {
  Columns columns(call.features);
  T* out = call.out + graph * call.reductions * call.features;
  for (int64_t block = 0; block < columns.blocks(); ++block) {
    Doubles variance = load_doubles(work.mean + block * W), deviation = load_doubles(work.mean64 + block * W);
    for (int half = 0; half < 2; ++half) deviation.v[half] = square_root(deviation.v[half]);
    for (int64_t entry = 0; entry < call.reductions; ++entry)
      if (call.entries[entry].kind >= kVar)
        store_block(out + call.entries[entry].block * call.features + columns.column(block),
                    Number<T>::narrow(call.entries[entry].kind == kVar ? variance : deviation), columns.lanes());
  }
}

// Take in what `generate` makes of the rows from `begin` to `end`.
template <class T, class R, class G>
void gather_values(const R& rows, int64_t begin, int64_t end, Work<T>& work, const G& generate) {
  Columns columns(rows.features);
  work.state.clear_sums(columns.slots());
  for (int64_t start = begin; start < end; start += kTile)
    for (int64_t block = 0; block < columns.blocks(); ++block)
      add_split(rows, start, vmin(start + kTile, end), columns.column(block), columns.lanes(), generate, work.state,
                block * W, work.tile);
}

// Reduce graphs one by one; the sums of small ones are certified many at a time.
template <class T, bool kSums, bool kExtremes, class R>
class Reducer {
 public:
  Reducer(const Forward<T>& call, const R& rows, Work<T>& work) : call_(call), rows_(rows), work_(work) {
    slots_ = Columns(call.features).slots();
    squares_ = call.has(kVar) || call.has(kStd);
    means_ = call.has(kMean);
  }

  void add(int64_t graph) {
    int64_t begin = call_.offsets[graph], end = call_.offsets[graph + 1];
    if (begin == end) {
      if (call_.updates) return;
      std::memset(call_.out + graph * call_.reductions * call_.features, 0,
                  call_.reductions * call_.features * sizeof(T));
      return;
    }
    if constexpr (!kSums) {
      gather<T, false, true>(rows_, begin, end, work_.state, work_.tile, work_.mode);
      write_extremes(call_, graph, work_.state);
    } else {
      if (Number<T>::kWide || squares_ || end - begin > kTile || work_.mode.split_next || !work_.mode.flag_works) {
        flush();  // before the inexact flag is cleared
        reduce(graph);
        return;
      }
      if (filled_ == 0) clear_inexact();
      State<T> state = work_.state;
      state.part = work_.batch + filled_ * slots_;
      scan<T, true, kExtremes>(rows_, begin, end, state, true, true);
      if constexpr (kExtremes) write_extremes(call_, graph, state);
      work_.batched[filled_++] = graph;
      if (filled_ == work_.batch_size) flush();
    }
  }

  // Write what is certified, and do again what is not.
  void flush() {
    if (filled_ == 0) return;
    bool exact = !is_inexact();
    for (int64_t i = 0; i < filled_; ++i) {
      if (!exact)
        reduce(work_.batched[i]);
      else
        write_certified(call_, work_.batched[i], work_.batch + i * slots_, means_ ? work_.mean : nullptr);
    }
    filled_ = 0;
  }

  // Reduce one graph by itself.
  void reduce(int64_t graph) {
    int64_t begin = call_.offsets[graph], end = call_.offsets[graph + 1];
    gather<T, kSums, kExtremes>(rows_, begin, end, work_.state, work_.tile, work_.mode);
    conclude(graph);
  }

  // Write the results of a graph whose rows have been taken in.
  void conclude(int64_t graph) {
    int64_t begin = call_.offsets[graph], end = call_.offsets[graph + 1];
    if constexpr (kExtremes) write_extremes(call_, graph, work_.state);
    if constexpr (kSums) {
      finish(rows_, begin, end, Values<T>{}, work_, means_ || squares_);
      write_sums(call_, graph, work_.sum, work_.mean);
      if (!squares_) return;
      if (end - begin == 1) {  // one node deviates by nothing; an infinity by NaN
        for (int64_t slot = 0; slot < slots_; slot += D) {
          vd mean = load_as<vd>(work_.mean64 + slot);
          store_as(work_.mean + slot, mean - mean);
          store_as(work_.mean64 + slot, mean - mean);
        }
        write_squares(call_, graph, work_);
        return;
      }
      std::memcpy(work_.centre, work_.mean64, slots_ * sizeof(double));
      gather_values(rows_, begin, end, work_, Squares<T>{work_.centre});
      conclude_squares(graph);
    }
  }

  void conclude_squares(int64_t graph) {
    finish(rows_, call_.offsets[graph], call_.offsets[graph + 1], Squares<T>{work_.centre}, work_, true);
    write_squares(call_, graph, work_);
  }

 private:
  const Forward<T>& call_;
  const R& rows_;
  Work<T>& work_;
  int64_t slots_, filled_ = 0;
  bool squares_, means_;
};

// Add the state of a piece of a graph to that of another.
template <class T>
void merge(const State<T>& total, const State<T>& piece, int64_t slots, bool sums, bool extremes) {
  if (extremes)
    for (int64_t slot = 0; slot < slots; slot += W) {
      Extremes<T> ours, theirs;
      ours.load(total, slot);
      theirs.load(piece, slot);
      ours.add(theirs);
      ours.store(total, slot);
    }
  for (int64_t slot = 0; sums && slot < slots; slot += D) {
    absorb(total, slot, load_as<vd>(piece.high + slot));
    absorb(total, slot, load_as<vd>(piece.low + slot));
    absorb(total, slot, load_as<vd>(piece.third + slot));
    for (int64_t level = 0; level < *piece.depth; ++level)
      absorb(total, slot, load_as<vd>(piece.deep + level * slots + slot));
    store_as(total.special + slot, load_as<vd>(total.special + slot) + load_as<vd>(piece.special + slot));
    store_as(total.broken + slot, load_as<vl>(total.broken + slot) | load_as<vl>(piece.broken + slot));
  }
}

// How a batch is shared out: graphs of at most `limit` nodes whole, larger ones cut among all threads.
struct Plan {
  int threads;
  int64_t limit;
  Plan(const Offsets& offsets, int threads) : threads(threads) {
    int64_t nodes = offsets[offsets.graphs];
    limit = threads == 1 ? nodes : vmax<int64_t>(nodes / (2 * threads), kTile);
  }
};

// Call work(graph) for the graphs of every thread that are not cut, with `begin` and `end` around them.
template <class Task>
void share_graphs(const Offsets& offsets, const Plan& plan, const Task& task) {
  int64_t nodes = offsets[offsets.graphs];
  auto bound = [&](int part) -> int64_t {  // the first graph of a part
    if (part == 0) return 0;
    if (part == plan.threads) return offsets.graphs;
    int64_t wanted = nodes / plan.threads * part, low = 0, high = offsets.graphs;
    while (low < high) {
      int64_t middle = (low + high) / 2;
      if (offsets[middle] < wanted)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  };
  if (plan.threads == 1) {
    task(0, offsets.graphs);
    return;
  }
  parallel(plan.threads, [&](int part) { task(bound(part), bound(part + 1)); });
}

// Pieces of a graph that is cut among threads, and the work of each; the first one holds the whole in the end.
template <class T>
class Pieces {
 public:
  Pieces(int64_t features, bool flag_works, int64_t begin, int64_t nodes, int threads)
      : threads_(threads), begin_(begin), nodes_(nodes), slots_(Columns(features).slots()) {
    scratch_.reserve((Work<T>::bytes(features) + (int64_t)sizeof(Work<T>) + 64) * threads);
    works_ = scratch_.take<Work<T>>(threads);
    for (int part = 0; part < threads; ++part) new (works_ + part) Work<T>(scratch_, features, flag_works);
  }
  Work<T>& whole() { return works_[0]; }
  int64_t first(int part) const { return begin_ + nodes_ / threads_ * part + vmin<int64_t>(part, nodes_ % threads_); }

  // Call task(begin, end, work) for every piece, and merge what they find.
  template <class Task>
  void run(bool sums, bool extremes, const Task& task) {
    parallel(threads_, [&](int part) {
      ControlWord word;
      task(first(part), first(part + 1), works_[part]);
    });
    ControlWord word;
    for (int part = 1; part < threads_; ++part) merge(works_[0].state, works_[part].state, slots_, sums, extremes);
  }

  // Round the exact sum of what `generate` makes of the graph's rows, in `whole()`.
  template <class R, class G>
  void sum(const R& rows, const G& generate) {
    run(true, false, [&](int64_t from, int64_t to, Work<T>& work) { gather_values(rows, from, to, work, generate); });
    ControlWord word;
    finish(rows, begin_, begin_ + nodes_, generate, whole(), true);
  }

 private:
  int threads_;
  int64_t begin_, nodes_, slots_;
  Scratch scratch_;
  Work<T>* works_;
};

template <class T, bool kSums, bool kExtremes, class R>
void reduce_cut(const Forward<T>& call, const R& rows, int64_t graph, int threads) {
  int64_t begin = call.offsets[graph], nodes = call.offsets.nodes(graph);
  Pieces<T> pieces(call.features, call.flag_works, begin, nodes, threads);
  Work<T>& whole = pieces.whole();
  pieces.run(kSums, kExtremes, [&](int64_t from, int64_t to, Work<T>& work) {
    gather<T, kSums, kExtremes>(rows, from, to, work.state, work.tile, work.mode);
  });
  ControlWord word;
  if constexpr (kExtremes) write_extremes(call, graph, whole.state);
  if constexpr (kSums) {
    finish(rows, begin, begin + nodes, Values<T>{}, whole, true);
    write_sums(call, graph, whole.sum, whole.mean);
    if (!call.has(kVar) && !call.has(kStd)) return;
    std::memcpy(whole.centre, whole.mean64, Columns(call.features).slots() * sizeof(double));
    pieces.sum(rows, Squares<T>{whole.centre});
    write_squares(call, graph, whole);
  }
}

template <class T, bool kSums, bool kExtremes, class R>
void reduce_all(const Forward<T>& call, const R& rows, int threads) {
  Plan plan(call.offsets, threads);
  share_graphs(call.offsets, plan, [&](int64_t begin, int64_t end) {
    ControlWord word;
    Work<T> work(thread_scratch(Work<T>::bytes(call.features)), call.features, call.flag_works);
    Reducer<T, kSums, kExtremes, R> reducer(call, rows, work);
    for (int64_t graph = begin; graph < end; ++graph)
      if (call.offsets.nodes(graph) <= plan.limit) reducer.add(graph);
    if constexpr (kSums) reducer.flush();
  });
  if (plan.limit == call.nodes) return;
  for (int64_t graph = 0; graph < call.offsets.graphs; ++graph)
    if (call.offsets.nodes(graph) > plan.limit) reduce_cut<T, kSums, kExtremes>(call, rows, graph, plan.threads);
}

template <class T, class R>
void reduce_rows(const Forward<T>& call, const R& rows, int threads) {
  bool extremes = call.has(kMax) || call.has(kMin);
  bool sums = call.has(kSum) || call.has(kMean) || call.has(kVar) || call.has(kStd);
  if (sums && extremes)
    reduce_all<T, true, true>(call, rows, threads);
  else if (sums)
    reduce_all<T, true, false>(call, rows, threads);
  else
    reduce_all<T, false, true>(call, rows, threads);
}

template <class T>
void reduce(const Forward<T>& call, int threads) {
  if (call.order)
    reduce_rows(call, Listed<T>{call.x, call.features, call.sources, call.order, call.wrong, call.out,
                                call.updates ? call.offsets.graphs : 0}, threads);
  else
    reduce_rows(call, Contiguous<T>{call.x, call.features}, threads);
}

}  // namespace READOUTS_ISA
}  // namespace readouts
