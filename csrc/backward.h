// Gradients of the elementary reductions: one pass over x, or none.
#pragma once
#include "forward.h"

namespace readouts {
namespace READOUTS_ISA {

template <class T>
struct Backward {
  const T* grad;  // [B, R, F]
  const T* x;     // [N, F], null where only sums and means are asked for
  const T* out;   // [B, R, F], null unless ties share
  int64_t nodes, features;
  Offsets offsets;
  const int64_t* order;
  const int64_t* index;  // graph of every node
  const Entry* entries;
  int64_t reductions;
  T* result;  // [N, F]
  bool flag_works;
  bool* wrong;

  int64_t place(int64_t graph, int64_t entry, int64_t column) const {
    return (graph * reductions + entries[entry].block) * features + column;
  }
};

template <class T>
READOUTS_INLINE Doubles load_gradient(const T* source, int lanes) {
  return Number<T>::widen(load_block(source, lanes));
}

// The contribution of sums and means, the same for all nodes of a graph.
template <class T>
READOUTS_INLINE Doubles linear_share(const Backward<T>& call, int64_t graph, int64_t column, int lanes) {
  Doubles total{};
  double n = (double)call.offsets.nodes(graph);
  for (int64_t entry = 0; entry < call.reductions && call.entries[entry].kind <= kMean; ++entry) {
    Doubles grad = load_gradient(call.grad + call.place(graph, entry, column), lanes);
    for (int half = 0; half < 2; ++half)
      total.v[half] += call.entries[entry].kind == kSum ? grad.v[half] : grad.v[half] / n;
  }
  return total;
}

// Write the row that all nodes of a graph receive.
template <class T>
READOUTS_INLINE void write_row(const Backward<T>& call, int64_t graph, T* row) {
  Columns columns(call.features);
  for (int64_t block = 0; block < columns.blocks(); ++block) {
    int64_t column = columns.column(block);
    store_block(row + column, Number<T>::narrow(linear_share(call, graph, column, columns.lanes())), columns.lanes());
  }
}

template <class T>
READOUTS_INLINE void copy_row(T* target, const T* source, int64_t features) {
  constexpr int64_t step = kBytes / sizeof(T);
  int64_t at = 0;
  for (; at + step <= features; at += step) store_as(target + at, load_as<vi>(source + at));
  for (; at < features; ++at) target[at] = source[at];
}

// Give every node the row of its graph, as it is or with zeros and NaN made canonical.
template <class T, bool kCanonical>
void spread_rows(const T* table, int64_t graphs, const int64_t* index, int64_t nodes, int64_t features, T* result,
                 bool* wrong) {
  Columns columns(features);
  for (int64_t node = 0; node < nodes; ++node) {
    int64_t graph = reinterpret_cast<const volatile int64_t*>(index)[node];
    if (__builtin_expect((uint64_t)graph >= (uint64_t)graphs, 0)) {
      __atomic_store_n(wrong, true, __ATOMIC_RELAXED);
      graph = 0;
    }
    const T* source = table + graph * features;
    T* target = result + node * features;
    if constexpr (!kCanonical) {
      copy_row(target, source, features);
      continue;
    }
    for (int64_t block = 0; block < columns.blocks(); ++block) {
      int64_t column = columns.column(block);
      store_block(target + column, Number<T>::canonical(load_block(source + column, columns.lanes())), columns.lanes());
    }
  }
}

template <class T>
void spread_linear(const Backward<T>& call, int threads) {
  Plan plan(call.offsets, threads);
  if (!call.order) {  // graph by graph: the row is written once and copied
    share_graphs(call.offsets, plan, [&](int64_t begin, int64_t end) {
      ControlWord word;
      for (int64_t graph = begin; graph < end; ++graph) {
        int64_t first = call.offsets[graph], last = call.offsets[graph + 1];
        if (first == last || last - first > plan.limit) continue;
        T* row = call.result + first * call.features;
        write_row(call, graph, row);
        for (int64_t node = first + 1; node < last; ++node)
          copy_row(call.result + node * call.features, row, call.features);
      }
    });
    for (int64_t graph = 0; plan.limit < call.nodes && graph < call.offsets.graphs; ++graph) {
      int64_t first = call.offsets[graph], count = call.offsets.nodes(graph);
      if (count <= plan.limit) continue;
      T* row = call.result + first * call.features;
      {
        ControlWord word;
        write_row(call, graph, row);
      }
      parallel(plan.threads, [&](int part) {
        int64_t begin = vmax<int64_t>(1, count / plan.threads * part);
        int64_t end = part + 1 == plan.threads ? count : count / plan.threads * (part + 1);
        for (int64_t node = begin; node < end; ++node) copy_row(row + node * call.features, row, call.features);
      });
    }
    return;
  }
  Scratch scratch;
  const T* table = call.grad;
  bool copies = call.reductions == 1 && call.entries[0].kind == kSum;  // then the rows are those of the gradient
  if (!copies) {
    scratch.reserve(call.offsets.graphs * call.features * sizeof(T));
    T* rows = scratch.take<T>(call.offsets.graphs * call.features);
    parallel(plan.threads, [&](int part) {
      ControlWord word;
      int64_t begin = call.offsets.graphs * part / plan.threads, end = call.offsets.graphs * (part + 1) / plan.threads;
      for (int64_t graph = begin; graph < end; ++graph) write_row(call, graph, rows + graph * call.features);
    });
    table = rows;
  }
  parallel(plan.threads, [&](int part) {
    ControlWord word;
    int64_t begin = call.nodes / plan.threads * part;
    int64_t end = part + 1 == plan.threads ? call.nodes : call.nodes / plan.threads * (part + 1);
    auto spread = copies ? spread_rows<T, true> : spread_rows<T, false>;
    spread(table, call.offsets.graphs, call.index + begin, end - begin, call.features,
           call.result + begin * call.features, call.wrong);
  });
}

// The numbers of a block in the type to compare in.
template <class T>
READOUTS_INLINE auto number_of(const typename Number<T>::Block& block, int part) {
  if constexpr (Number<T>::kWide)
    return block.v[part];
  else
    return block;
}

// A value that nodes tie with. Where it is not NaN, no number of its column is.
template <class T>
struct Winner {
  using N = Number<T>;
  using Vector = typename N::SignedVector;
  typename N::Block block;

  READOUTS_INLINE void load(const T* source, int lanes) { block = load_block(source, lanes); }

  READOUTS_INLINE bool has_nan() const {
    Vector found{};
    for (int part = 0; part < N::kParts; ++part) {
      auto best = number_of<T>(block, part);
      found |= (Vector)(best != best);
    }
    return any(found);
  }

  // Return the lanes in which numbers equal the winner, as masks of their width; NaN equals NaN.
  template <bool kNan>
  READOUTS_INLINE Vector ties(const typename N::Block& other, int part) const {
    auto value = number_of<T>(other, part), best = number_of<T>(block, part);
    Vector equal = (Vector)(value == best);
    if constexpr (kNan) equal |= (Vector)(value != value) & (Vector)(best != best);
    return equal;
  }
};

// What the gradient of a graph's nodes is made of, for all slots.
template <class T>
struct Shares {
  using Signed = typename Number<T>::Signed;
  Signed* ties;                               // [E, slots], E the entries of max and min
  double *share, *linear, *mean, *deviation;  // [E, slots], the others [slots]
  int64_t first_tied, tied, first_spread;     // entries of max and min, of var and std

  static int64_t bytes(int64_t slots, int64_t reductions) { return 8 * slots * (3 + 2 * reductions) + 1024; }

  Shares(Scratch& scratch, const Backward<T>& call, int64_t slots) {
    first_tied = 0;
    while (first_tied < call.reductions && call.entries[first_tied].kind <= kMean) ++first_tied;
    first_spread = first_tied;
    while (first_spread < call.reductions && call.entries[first_spread].kind <= kMin) ++first_spread;
    tied = first_spread - first_tied;
    ties = scratch.take<Signed>(tied * slots);
    share = scratch.take<double>(tied * slots);
    linear = scratch.take<double>(slots);
    mean = scratch.take<double>(slots);
    deviation = scratch.take<double>(slots);
  }
};

// Rows that are looked at before the next block of columns, so that memory is read nearly in order.
inline int64_t rows_at_once(int64_t features) { return vmax<int64_t>(8, 16384 / features); }

// Count the nodes from `begin` to `end` that tie with E winners of a block, from entry `first` on.
template <class T, int E, class R>
READOUTS_INLINE void count_block(const Backward<T>& call, const R& rows, int64_t graph, int64_t begin, int64_t end,
                                 const Shares<T>& shares, int64_t first, int64_t column, int lanes, int64_t slot,
                                 int64_t slots) {
  using N = Number<T>;
  Winner<T> winner[E];
  typename N::SignedVector count[E][N::kParts];
  bool nan = false;
  for (int e = 0; e < E; ++e) {
    winner[e].load(call.out + call.place(graph, shares.first_tied + first + e, column), lanes);
    nan |= winner[e].has_nan();
    for (int part = 0; part < N::kParts; ++part) count[e][part] = typename N::SignedVector{};
  }
  auto add = [&](auto with_nan) READOUTS_INLINE_LAMBDA {
    for (int64_t position = begin; position < end; ++position) {
      auto value = load_block(rows.at(position) + column, lanes);
      for (int e = 0; e < E; ++e)
        for (int part = 0; part < N::kParts; ++part)
          count[e][part] -= winner[e].template ties<decltype(with_nan)::value>(value, part);
    }
  };
  if (nan)
    add(std::true_type{});
  else
    add(std::false_type{});
  for (int e = 0; e < E; ++e)
    for (int part = 0; part < N::kParts; ++part) {
      auto* at = shares.ties + (first + e) * slots + slot + part * (W / N::kParts);
      store_as(at, load_as<typename N::SignedVector>(at) + count[e][part]);
    }
}

// Count the nodes that tie with each winner.
template <class T, class R>
void count_ties(const Backward<T>& call, const R& rows, int64_t graph, int64_t begin, int64_t end,
                const Shares<T>& shares) {
  Columns columns(call.features);
  int64_t slots = columns.slots(), step = rows_at_once(call.features);
  std::memset(shares.ties, 0, shares.tied * slots * sizeof(*shares.ties));
  for (int64_t start = begin; start < end; start += step)
    for (int64_t block = 0; block < columns.blocks(); ++block) {
      int64_t column = columns.column(block), until = vmin(start + step, end), entry = 0;
      for (; entry + 2 <= shares.tied; entry += 2)
        count_block<T, 2>(call, rows, graph, start, until, shares, entry, column, columns.lanes(), block * W, slots);
      if (entry < shares.tied)
        count_block<T, 1>(call, rows, graph, start, until, shares, entry, column, columns.lanes(), block * W, slots);
    }
}

// Work out the shares of a graph's nodes from the ties.
template <class T>
void find_shares(const Backward<T>& call, int64_t graph, const Shares<T>& shares) {
  Columns columns(call.features);
  int64_t slots = columns.slots();
  for (int64_t block = 0; block < columns.blocks(); ++block) {
    int64_t column = columns.column(block);
    store_doubles(shares.linear + block * W, linear_share(call, graph, column, columns.lanes()));
    for (int64_t entry = 0; entry < shares.tied; ++entry) {
      Doubles grad = load_gradient(call.grad + call.place(graph, shares.first_tied + entry, column), columns.lanes());
      for (int half = 0; half < 2; ++half) {
        int64_t at = entry * slots + block * W + half * D;
        vd ties;
        if constexpr (Number<T>::kWide)
          ties = __builtin_convertvector(load_as<vl>(shares.ties + at), vd);
        else
          ties = doubles_of(load_as<vi_half>(shares.ties + at));
        store_as(shares.share + at, grad.v[half] / vmax(ties, fill<vd>(1.0)));
      }
    }
  }
}

// Write the gradients of a block where they take few values: 2**E, by the winners that a node ties with.
template <class T, int E, class R>
READOUTS_INLINE void write_tied(const Backward<T>& call, const R& rows, int64_t graph, int64_t begin, int64_t end,
                                const Shares<T>& shares, int64_t column, int lanes, int64_t slot, int64_t slots) {
  using N = Number<T>;
  using Vector = typename N::SignedVector;
  Winner<T> winner[E];
  typename N::Block values[1 << E];
  bool nan = false;
  for (int e = 0; e < E; ++e) {
    winner[e].load(call.out + call.place(graph, shares.first_tied + e, column), lanes);
    nan |= winner[e].has_nan();
  }
  for (int chosen = 0; chosen < 1 << E; ++chosen) {
    Doubles total = load_doubles(shares.linear + slot);
    for (int e = 0; e < E; ++e)
      for (int half = 0; half < 2 && (chosen >> e & 1); ++half)
        total.v[half] += load_as<vd>(shares.share + e * slots + slot + half * D);
    values[chosen] = N::narrow(total);
  }
  auto write = [&](auto with_nan) READOUTS_INLINE_LAMBDA {
    for (int64_t position = begin; position < end; ++position) {
      int64_t node = rows.node(position);
      auto value = load_block(call.x + node * call.features + column, lanes);
      typename N::Block result;
      for (int part = 0; part < N::kParts; ++part) {
        Vector first = winner[0].template ties<decltype(with_nan)::value>(value, part);
        Vector found = first ? N::part(values[1], part) : N::part(values[0], part);
        if constexpr (E == 2) {
          Vector other = first ? N::part(values[3], part) : N::part(values[2], part);
          found = winner[1].template ties<decltype(with_nan)::value>(value, part) ? other : found;
        }
        N::set_part(result, part, found);
      }
      store_block(call.result + node * call.features + column, result, lanes);
    }
  };
  if (nan)
    write(std::true_type{});
  else
    write(std::false_type{});
}

// Write the gradients of a block in general: every contribution in float64, added in the order of the entries.
template <class T, class R>
void write_block(const Backward<T>& call, const R& rows, int64_t graph, int64_t begin, int64_t end,
                 const Shares<T>& shares, int64_t column, int lanes, int64_t slot, int64_t slots) {
  using N = Number<T>;
  vd n = fill<vd>((double)call.offsets.nodes(graph));
  Doubles linear = load_doubles(shares.linear + slot), mean{}, deviation{};
  if (shares.first_spread < call.reductions) {
    mean = load_doubles(shares.mean + slot);
    deviation = load_doubles(shares.deviation + slot);
  }
  for (int64_t position = begin; position < end; ++position) {
    int64_t node = rows.node(position);
    auto value = load_block(call.x + node * call.features + column, lanes);
    Doubles total = linear, wide = N::widen(value);
    for (int64_t entry = 0; entry < shares.tied; ++entry) {
      Winner<T> winner;
      winner.load(call.out + call.place(graph, shares.first_tied + entry, column), lanes);
      typename N::SignedVector masks[N::kParts];
      for (int part = 0; part < N::kParts; ++part) masks[part] = winner.template ties<true>(value, part);
      for (int half = 0; half < 2; ++half) {
        vl mask;
        if constexpr (N::kWide)
          mask = masks[half];
        else
          mask = longs_of(load_as<vi_half>((const char*)masks + half * sizeof(vi_half)));
        total.v[half] += (vd)(load_as<vl>(shares.share + entry * slots + slot + half * D) & mask);
      }
    }
    for (int64_t entry = shares.first_spread; entry < call.reductions; ++entry) {
      Doubles grad = load_gradient(call.grad + call.place(graph, entry, column), lanes);
      for (int half = 0; half < 2; ++half) {
        vd centred = wide.v[half] - mean.v[half];
        if (call.entries[entry].kind == kVar)
          total.v[half] += 2.0 * grad.v[half] * (centred / n);
        else
          total.v[half] += deviation.v[half] == 0.0 ? vd{} : grad.v[half] * (centred / (n * deviation.v[half]));
      }
    }
    store_block(call.result + node * call.features + column, N::narrow(total), lanes);
  }
}

// Write the gradients of a graph's nodes.
template <class T, class R>
void write_gradients(const Backward<T>& call, const R& rows, int64_t graph, int64_t begin, int64_t end,
                     const Shares<T>& shares) {
  Columns columns(call.features);
  int64_t slots = columns.slots(), step = rows_at_once(call.features);
  int lanes = columns.lanes();
  bool few = shares.first_spread == call.reductions && shares.tied <= 2;
  for (int64_t start = begin; start < end; start += step)
    for (int64_t block = 0; block < columns.blocks(); ++block) {
      int64_t column = columns.column(block), until = vmin(start + step, end);
      if (few && shares.tied == 1)
        write_tied<T, 1>(call, rows, graph, start, until, shares, column, lanes, block * W, slots);
      else if (few)
        write_tied<T, 2>(call, rows, graph, start, until, shares, column, lanes, block * W, slots);
      else
        write_block(call, rows, graph, start, until, shares, column, lanes, block * W, slots);
    }
}

// Leave mean and standard deviation of a graph in the shares; `sum` rounds exact sums over the graph in `work`.
template <class T, class Sum>
void find_spread(int64_t slots, Work<T>& work, const Shares<T>& shares, const Sum& sum) {
  sum(Values<T>{});
  std::memcpy(shares.mean, work.mean64, slots * sizeof(double));
  sum(Squares<T>{shares.mean});
  for (int64_t slot = 0; slot < slots; slot += D)
    store_as(shares.deviation + slot, square_root(load_as<vd>(work.mean64 + slot)));
}

template <class T, class R>
void spread_cut(const Backward<T>& call, const R& rows, int64_t graph, int threads) {
  int64_t slots = Columns(call.features).slots(), begin = call.offsets[graph], nodes = call.offsets.nodes(graph);
  Scratch scratch;
  scratch.reserve((Shares<T>::bytes(slots, call.reductions) + (int64_t)sizeof(Shares<T>) + 64) * threads);
  Shares<T>* shares = scratch.take<Shares<T>>(threads);
  for (int part = 0; part < threads; ++part) new (shares + part) Shares<T>(scratch, call, slots);
  auto first = [&](int part) { return begin + nodes / threads * part + vmin<int64_t>(part, nodes % threads); };
  if (shares[0].tied) {
    parallel(threads, [&](int part) {
      ControlWord word;
      count_ties(call, rows, graph, first(part), first(part + 1), shares[part]);
    });
    for (int part = 1; part < threads; ++part)
      for (int64_t at = 0; at < shares[0].tied * slots; ++at) shares[0].ties[at] += shares[part].ties[at];
  }
  {
    ControlWord word;
    find_shares(call, graph, shares[0]);
    if (shares[0].first_spread < call.reductions) {
      Pieces<T> pieces(call.features, call.flag_works, begin, nodes, threads);
      find_spread(slots, pieces.whole(), shares[0], [&](const auto& generate) { pieces.sum(rows, generate); });
    }
  }
  parallel(threads, [&](int part) {
    ControlWord word;
    write_gradients(call, rows, graph, first(part), first(part + 1), shares[0]);
  });
}

template <class T, class R>
void spread_all(const Backward<T>& call, const R& rows, int threads) {
  Plan plan(call.offsets, threads);
  int64_t slots = Columns(call.features).slots();
  share_graphs(call.offsets, plan, [&](int64_t from, int64_t to) {
    ControlWord word;
    Scratch& scratch = thread_scratch(Work<T>::bytes(call.features) + Shares<T>::bytes(slots, call.reductions));
    Work<T> work(scratch, call.features, call.flag_works);
    Shares<T> shares(scratch, call, slots);
    for (int64_t graph = from; graph < to; ++graph) {
      int64_t begin = call.offsets[graph], end = call.offsets[graph + 1];
      if (begin == end || end - begin > plan.limit) continue;
      if (shares.tied) count_ties(call, rows, graph, begin, end, shares);
      find_shares(call, graph, shares);
      if (shares.first_spread < call.reductions)
        find_spread(slots, work, shares, [&](const auto& generate) {
          gather_values(rows, begin, end, work, generate);
          finish(rows, begin, end, generate, work, true);
        });
      write_gradients(call, rows, graph, begin, end, shares);
    }
  });
  if (plan.limit == call.nodes) return;
  for (int64_t graph = 0; graph < call.offsets.graphs; ++graph)
    if (call.offsets.nodes(graph) > plan.limit) spread_cut(call, rows, graph, plan.threads);
}

template <class T>
void reduce_backward(const Backward<T>& call, int threads) {
  if (call.entries[call.reductions - 1].kind <= kMean) {
    spread_linear(call, threads);
  } else if (call.order) {
    spread_all(call, Listed<T>{call.x, call.features, call.nodes, call.order, call.wrong}, threads);
  } else {
    spread_all(call, Contiguous<T>{call.x, call.features}, threads);
  }
}

}  // namespace READOUTS_ISA
}  // namespace readouts
