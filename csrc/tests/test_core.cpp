// Tests of the core's entry points, for every instruction set of this processor: bits against slow oracles, wrong
// arguments, threads, forks and foreign control words.
//
//   test_core [--quick] [--no-fork] [INSTRUCTION SET...]
#include <sys/wait.h>

#include <functional>
#include <thread>

#include "support.h"

extern "C" {
const char* readouts_choose(const char* wanted);
int readouts_flag_works();
void readouts_set_flag_works(int64_t works);
int64_t readouts_greatest(const void* index, int64_t bytes, int64_t nodes);
int readouts_group(const void* index, int64_t bytes, int64_t nodes, int64_t graphs, int64_t* ptr);
int readouts_order(const void* index, int64_t bytes, int64_t nodes, int64_t graphs, const int64_t* ptr, int64_t* order);
int readouts_expand_ptr(const int64_t* ptr, int64_t graphs, int64_t nodes, int64_t* index);
int readouts_reduce(const void* x, int64_t dtype, int64_t nodes, int64_t features, const int64_t* ptr, const int64_t* order,
                    int64_t graphs, const int64_t* kinds, const int64_t* blocks, int64_t reductions, void* out,
                    int64_t threads);
int readouts_reduce_batch(const void* x, int64_t dtype, int64_t nodes, int64_t features, const void* index, int64_t bytes,
                          int64_t graphs, const int64_t* kinds, const int64_t* blocks, int64_t reductions, void* out,
                          int64_t threads);
int readouts_update(const void* x, int64_t dtype, int64_t sources, int64_t features, const int64_t* ptr,
                    const int64_t* order, int64_t positions, int64_t graphs, int64_t kind, void* target, int64_t threads);
int readouts_add_rows(const void* x, int64_t dtype, int64_t nodes, int64_t features, const void* index, int64_t bytes,
                      int64_t graphs, void* target, int64_t threads);
int readouts_list_old(const int64_t* ptr, const int64_t* order, int64_t graphs, int64_t nodes, int64_t* new_ptr,
                      int64_t* new_order);
int readouts_is_zero(const unsigned char* memory, int64_t bytes);
int readouts_reduce_integers(const void* x, int64_t dtype, int64_t result, int64_t nodes, int64_t features, const int64_t* ptr,
                             const int64_t* order, int64_t graphs, int64_t kind, void* out, int64_t stride, int64_t threads);
int readouts_reduce_backward(const void* grad, const void* x, const void* out, int64_t dtype, int64_t nodes,
                             int64_t features, const int64_t* ptr, const int64_t* order, const int64_t* index,
                             int64_t graphs, const int64_t* kinds, const int64_t* blocks, int64_t reductions,
                             void* result, int64_t threads);
int readouts_select(const void* x, int64_t dtype, int64_t result, int64_t nodes, int64_t features, const int64_t* ptr, const int64_t* order,
                    int64_t graphs, const int64_t* ranks, int64_t count, void* out, void* means, int64_t threads);
int readouts_keep(const void* x, int64_t dtype, int64_t nodes, int64_t features, const int64_t* ptr, const int64_t* order,
                  int64_t graphs, const void* bounds, const int64_t* cut, const int64_t* kept_ptr, void* kept,
                  int64_t threads);
int readouts_trim_backward(const void* x, int64_t dtype, int64_t nodes, int64_t features, const int64_t* ptr,
                           const int64_t* order, int64_t graphs, const void* bounds, const int64_t* cut,
                           const void* grad, void* result, int64_t threads);
int readouts_weighted_mean(const void* x, int64_t dtype, int64_t nodes, int64_t features, const int64_t* ptr,
                           const int64_t* order, int64_t graphs, const void* weight, int64_t shared, double* means,
                           double* totals, int64_t threads);
int readouts_scale_rows(const double* table, const int64_t* index, int64_t graphs, const void* weight, int64_t dtype,
                        int64_t shared, int64_t nodes, int64_t features, void* result, int64_t threads);
int readouts_weight_gradient(const double* slopes, const double* means, const int64_t* index, int64_t graphs,
                             const void* x, const void* weight, int64_t dtype, int64_t shared, int64_t nodes,
                             int64_t features, void* result, int64_t threads);
int readouts_add_limbs(const void* rows, int64_t bytes, const int64_t* index, int64_t nodes, int64_t features,
                       int64_t* limbs, int64_t count, int64_t graphs, int64_t stored, int64_t top, int64_t place,
                       int64_t power, int64_t threads);
}

namespace {

enum Kind : int64_t { kSum, kMean, kMax, kMin, kVar, kStd };
constexpr int kKinds = 6;
constexpr int kIndexError = -1, kPtrError = -2, kDTypeError = -3;
constexpr int kUnknown = 99;  // no dtype
const Format kFloat64 = Type<double>::format;

bool quick = false;
std::vector<std::string> instruction_sets;

using Column = std::vector<double>;

// A batch: the graph of every node, and the nodes graph by graph.
struct Batch {
  std::vector<int64_t> sizes, index, ptr, order;
  bool listed;

  Batch(const std::vector<int64_t>& sizes, bool listed, Random& random) : sizes(sizes), ptr{0}, listed(listed) {
    for (size_t graph = 0; graph < sizes.size(); ++graph) {
      ptr.push_back(ptr.back() + sizes[graph]);
      index.insert(index.end(), sizes[graph], (int64_t)graph);
    }
    if (listed)
      for (int64_t node = nodes() - 1; node > 0; --node) std::swap(index[node], index[random.below(node + 1)]);
    std::vector<int64_t> next(ptr.begin(), ptr.end() - 1);
    order.resize(nodes());
    for (int64_t node = 0; node < nodes(); ++node) order[next[index[node]]++] = node;
  }
  int64_t nodes() const { return ptr.back(); }
  int64_t graphs() const { return (int64_t)sizes.size(); }
};

// How node features are made; every value is one that the dtype holds.
const char* const kFills[] = {"normal",  "integers", "wide", "tiny",  "huge",     "cancelling",
                              "special", "halfway",  "ties", "zeros", "one value"};

double make_value(const std::string& fill, const Format& format, Random& random) {
  int least = format.lowest + format.digits - 1;  // exponent of the least normal number
  double sign = random.below(2) ? 1.0 : -1.0;
  auto power = [&](int exponent) { return std::ldexp(sign * (1.0 + random.unit()), exponent); };
  if (fill == "normal") return random.normal();
  if (fill == "integers") return (double)(random.below(201) - 100);
  if (fill == "wide") return power(least + (int)random.below(format.infinity - 1 - least));
  if (fill == "tiny") return std::ldexp((double)(random.below(2000) - 1000), format.lowest);
  if (fill == "huge") return power(format.infinity - 1 - (int)random.below(3));
  if (fill == "cancelling") {
    int high = format.infinity / 2;
    return random.below(3) ? std::ldexp(sign, high) : power(high - format.digits);
  }
  if (fill == "special") {
    int64_t chance = random.below(400);
    return chance == 0 ? NAN : chance == 1 ? INFINITY : chance == 2 ? -INFINITY : random.normal();
  }
  if (fill == "halfway") {  // sums between two numbers, exactly or nearly
    const int exponents[] = {0, 1, -format.digits, -format.digits - 1, format.lowest};
    return std::ldexp(sign, exponents[random.below(5)]);
  }
  if (fill == "ties") return sign * (double)random.below(3);  // -0 among them
  if (fill == "zeros") return sign * 0.0;
  return 0.375;
}

// Call work(threads) for every instruction set, with and without the inexact flag, on one thread and on several, and
// under a control word that no kernel may depend on.
template <class Work>
void for_variants(const std::vector<int>& threads, const Work& work) {
  std::string outer = context;
  for (const std::string& name : instruction_sets) {
    CHECK(readouts_choose(name.c_str()));
    bool flag_works = readouts_flag_works();
    for (int flag = 0; flag < (flag_works ? 2 : 1); ++flag)
      for (int number : threads)
        for (int strange = 0; strange < 2; ++strange) {
          readouts_set_flag_works(flag);
          context = outer + ", " + name + (flag ? ", flag" : ", no flag") + ", " + std::to_string(number) + " threads" +
                    (strange ? ", strange control word" : "");
          work(number, strange != 0);
        }
    readouts_set_flag_works(1);
  }
  context = outer;
}

// Make a call of the core under a given control word.
template <class Call>
int call_under(bool strange, const Call& call) {
  if (!strange) return call();
  uint64_t before = read_word();
  write_word(kStrangeWord);
  int status = call();
  uint64_t after = read_word();
  write_word(before);
  CHECK(after == kStrangeWord);
  return status;
}

template <class T>
bool same_bits(const Guarded<T>& found, const Guarded<T>& expected) {
  if (!std::memcmp(found.get(), expected.get(), found.size() * sizeof(T))) return true;
  for (int64_t at = 0; at < found.size(); ++at)
    if (std::memcmp(&found[at], &expected[at], sizeof(T))) {
      unsigned long long bits[2] = {};
      std::memcpy(&bits[0], &found[at], sizeof(T));
      std::memcpy(&bits[1], &expected[at], sizeof(T));
      char text[96];
      std::snprintf(text, sizeof(text), "entry %lld: found %llx, expected %llx", (long long)at, bits[0], bits[1]);
      difference = text;
      break;
    }
  return false;
}

// Node features [N, F] of a batch.
template <class T>
struct Data {
  Batch batch;
  int64_t features;
  Guarded<T> x;
  Guarded<int64_t> ptr, order, index;

  Data(const std::vector<int64_t>& sizes, bool listed, int64_t features, const std::string& fill, Random& random)
      : batch(sizes, listed, random),
        features(features),
        x(batch.nodes() * features),
        ptr(batch.ptr),
        order(batch.order),
        index(batch.index) {
    const Format& format = Type<T>::format;
    for (int64_t at = 0; at < x.size(); ++at) x[at] = number<T>(rounded_signed(make_value(fill, format, random), format));
    context = std::string(Type<T>::name) + ", " + fill + ", F = " + std::to_string(features) +
              ", N = " + std::to_string(batch.nodes()) + (listed ? ", listed" : "");
  }
  static double rounded_signed(double value, const Format& format) {
    return value == 0.0 ? value : rounded(value, format);
  }
  const int64_t* listing() const { return batch.listed ? order.get() : nullptr; }
  Column column(int64_t graph, int64_t feature) const {
    Column result;
    for (int64_t at = batch.ptr[graph]; at < batch.ptr[graph + 1]; ++at)
      result.push_back(value_of(x[batch.order[at] * features + feature]));
    return result;
  }
};

// The exact sum of a column divided by n, rounded once; with NaN or infinities what addition gives.
double divided_sum(const Column& column, uint64_t n, const Format& format) {
  double special = 0.0;
  Exact total;
  for (double value : column) {
    if (std::isfinite(value))
      total.add(value);
    else
      special += value;
  }
  return special != 0.0 ? special : total.divided(n, format);  // NaN, too
}

bool is_less(double a, double b) { return a < b || (a == b && std::signbit(a) && !std::signbit(b)); }

bool has_nan(const Column& column) {
  return std::any_of(column.begin(), column.end(), [](double value) { return std::isnan(value); });
}

// What the reductions of a column are, and what their gradients need.
struct Reduced {
  double value[kKinds] = {}, mean64 = 0.0, std64 = 0.0;
  double ties[kKinds] = {};  // of max and min
};

bool ties(double value, double extreme) { return value == extreme || (std::isnan(value) && std::isnan(extreme)); }

Reduced reduce_column(const Column& column, const Format& format) {
  Reduced result;
  if (column.empty()) return result;
  uint64_t n = column.size();
  result.value[kSum] = divided_sum(column, 1, format);
  result.value[kMean] = divided_sum(column, n, format);
  result.value[kMax] = has_nan(column) ? NAN : *std::max_element(column.begin(), column.end(), is_less);
  result.value[kMin] = has_nan(column) ? NAN : *std::min_element(column.begin(), column.end(), is_less);
  for (Kind kind : {kMax, kMin})
    for (double value : column) result.ties[kind] += ties(value, result.value[kind]);
  result.mean64 = divided_sum(column, n, kFloat64);
  Column squares;
  for (double value : column) squares.push_back((value - result.mean64) * (value - result.mean64));
  result.value[kVar] = divided_sum(squares, n, format);
  result.std64 = std::sqrt(divided_sum(squares, n, kFloat64));
  result.value[kStd] = rounded(result.std64, format);
  return result;
}

double sensitivity(Kind kind, double grad, double value, const Reduced& reduced, double n) {
  switch (kind) {
    case kSum:
      return grad;
    case kMean:
      return grad / n;
    case kMax:
    case kMin:
      return ties(value, reduced.value[kind]) ? grad / reduced.ties[kind] : 0.0;
    case kVar:
      return 2.0 * grad * ((value - reduced.mean64) / n);
    default:
      return reduced.std64 == 0.0 ? 0.0 : grad * ((value - reduced.mean64) / (n * reduced.std64));
  }
}

struct Reductions {
  std::vector<int64_t> kinds, blocks;
};
const std::vector<Reductions> kReductions = {
    {{kSum}, {0}},
    {{kMean}, {0}},
    {{kMax}, {0}},
    {{kMin}, {0}},
    {{kVar}, {0}},
    {{kStd}, {0}},
    {{kSum, kMean}, {1, 0}},
    {{kMax, kMin}, {0, 1}},
    {{kSum, kMean, kMax}, {0, 1, 2}},
    {{kSum, kSum, kMax, kMax, kMin}, {4, 1, 2, 0, 3}},
    {{kSum, kMean, kMax, kMin, kVar, kStd}, {5, 4, 3, 2, 1, 0}},
};

// Compare reductions and their gradients with the oracle.
template <class T>
void check_reductions(const Data<T>& data, const std::vector<int>& threads, Random& random) {
  const Format& format = Type<T>::format;
  const Batch& batch = data.batch;
  int64_t graphs = batch.graphs(), nodes = batch.nodes(), features = data.features;
  std::vector<Reduced> reduced;
  for (int64_t graph = 0; graph < graphs; ++graph)
    for (int64_t feature = 0; feature < features; ++feature)
      reduced.push_back(reduce_column(data.column(graph, feature), format));
  for (const Reductions& each : kReductions) {
    int64_t count = (int64_t)each.kinds.size();
    auto place = [&](int64_t graph, int64_t entry, int64_t feature) {
      return (graph * count + each.blocks[entry]) * features + feature;
    };
    Guarded<int64_t> kinds(each.kinds), blocks(each.blocks);
    Guarded<T> expected(graphs * count * features), out(expected.size()), grad(expected.size());
    for (int64_t at = 0; at < grad.size(); ++at) grad[at] = number<T>(rounded(random.normal(), format));
    for (int64_t graph = 0; graph < graphs; ++graph)
      for (int64_t entry = 0; entry < count; ++entry)
        for (int64_t feature = 0; feature < features; ++feature)
          expected[place(graph, entry, feature)] =
              number<T>(reduced[graph * features + feature].value[each.kinds[entry]]);
    Guarded<T> slope(nodes * features), result(slope.size());
    for (int64_t graph = 0; graph < graphs; ++graph)
      for (int64_t at = batch.ptr[graph]; at < batch.ptr[graph + 1]; ++at)
        for (int64_t feature = 0; feature < features; ++feature) {
          int64_t cell = batch.order[at] * features + feature;
          double total = 0.0, value = value_of(data.x[cell]);
          for (int64_t entry = 0; entry < count; ++entry)
            total += sensitivity((Kind)each.kinds[entry], value_of(grad[place(graph, entry, feature)]), value,
                                 reduced[graph * features + feature], (double)batch.sizes[graph]);
          slope[cell] = number<T>(rounded(total, format));
        }
    bool needs_x = each.kinds.back() >= kMax;
    for_variants(threads, [&](int number, bool strange) {
      out.poison();
      int status = call_under(strange, [&] {
        return readouts_reduce(data.x.get(), Type<T>::code, nodes, features, data.ptr.get(), data.listing(), graphs,
                               kinds.get(), blocks.get(), count, out.get(), number);
      });
      context += ", reduce from kind " + std::to_string(each.kinds[0]) + " on (" + std::to_string(count) + ")";
      CHECK(status == 0);
      CHECK(same_bits(out, expected));
      result.poison();
      status = call_under(strange, [&] {
        return readouts_reduce_backward(grad.get(), needs_x ? data.x.get() : nullptr,
                                        needs_x ? expected.get() : nullptr, Type<T>::code, nodes, features,
                                        data.ptr.get(), data.listing(), data.index.get(), graphs, kinds.get(),
                                        blocks.get(), count, result.get(), number);
      });
      context += ", gradient";
      CHECK(status == 0);
      CHECK(same_bits(result, slope));
    });
  }
}

// Compare rows that are reduced into rows that exist, and sums in any order, with the oracle.
template <class T>
void check_updates(const Data<T>& data, Random& random) {
  const Format& format = Type<T>::format;
  const Batch& batch = data.batch;
  int64_t graphs = batch.graphs(), nodes = batch.nodes(), features = data.features, cells = graphs * features;
  Guarded<T> old(cells), target(cells), out(2 * cells), both(2 * cells);
  for (int64_t at = 0; at < cells; ++at) old[at] = number<T>(Data<T>::rounded_signed(make_value("normal", format, random), format));
  Guarded<int64_t> ptr(graphs + 1), order(nodes + graphs), kinds(std::vector<int64_t>{kSum, kMean}),
      blocks(std::vector<int64_t>{1, 0});
  CHECK(!readouts_list_old(data.ptr.get(), data.listing(), graphs, nodes, ptr.get(), order.get()));
  for (bool with_old : {false, true})
    for (int64_t kind : {kSum, kMean, kMax, kMin}) {
      Guarded<T> expected(std::vector<T>(old.get(), old.get() + cells));
      for (int64_t graph = 0; graph < graphs; ++graph)
        for (int64_t feature = 0; feature < features; ++feature) {
          Column column = data.column(graph, feature);
          int64_t cell = graph * features + feature;
          if (!with_old && kind <= kMean)
            both[(2 * graph + (kind == kSum)) * features + feature] = number<T>(reduce_column(column, format).value[kind]);
          if (column.empty()) continue;
          if (with_old) column.push_back(value_of(old[cell]));
          expected[cell] = number<T>(reduce_column(column, format).value[kind]);
        }
      for_variants({1, 3}, [&](int number, bool strange) {
        std::memcpy(target.get(), old.get(), cells * sizeof(T));
        context += ", update of kind " + std::to_string(kind) + (with_old ? " with old rows" : "");
        CHECK(!call_under(strange, [&] {
          return readouts_update(data.x.get(), Type<T>::code, nodes, features, with_old ? ptr.get() : data.ptr.get(),
                                 with_old ? order.get() : data.listing(), with_old ? ptr[graphs] : nodes, graphs, kind,
                                 target.get(), number);
        }));
        CHECK(same_bits(target, expected));
        if (kind != kSum || !with_old) return;
        std::memcpy(target.get(), old.get(), cells * sizeof(T));
        context += ", in any order";
        int status = call_under(strange, [&] {
          return readouts_add_rows(data.x.get(), Type<T>::code, nodes, features, data.index.get(), 8, graphs,
                                   target.get(), number);
        });
        CHECK(status == 0 || status == 1);
        CHECK(same_bits(target, status == 0 ? expected : old));
      });
    }
  for_variants({1, 3}, [&](int number, bool strange) {
    out.poison();
    context += ", sums and means of a batch vector";
    CHECK(!call_under(strange, [&] {
      return readouts_reduce_batch(data.x.get(), Type<T>::code, nodes, features, data.index.get(), 8, graphs,
                                   kinds.get(), blocks.get(), 2, out.get(), number);
    }));
    CHECK(same_bits(out, both));
  });
}

template <class T>
void test_updates() {
  Random random(7);
  int turn = 0;
  for (const char* fill : kFills)
    for (bool listed : {false, true})
      for (int64_t features : {33, 5, 1})
        if (!quick || turn++ % 3 == 0)
          check_updates(Data<T>({0, 1, 2, 3, 17, 0, 128, 129, 300, 5, 0}, listed, features, fill, random), random);
  Guarded<unsigned char> bytes(10000);
  std::memset(bytes.get(), 0, 10000);
  CHECK(readouts_is_zero(bytes.get(), 10000));
  CHECK(readouts_is_zero(bytes.get(), 0));
  for (int64_t at : {0, 4095, 4096, 9999}) {
    bytes[at] = 0x80;
    CHECK(!readouts_is_zero(bytes.get(), 10000));
    bytes[at] = 0;
  }
  context = "wrong entries of an update";
  Guarded<T> x(6), target(6);
  for (int64_t at = 0; at < 6; ++at) x[at] = target[at] = number<T>(1.0);
  for (int64_t wrong : {(int64_t)3, ~(int64_t)3, INT64_MIN, INT64_MAX, (int64_t)1 << 40}) {
    Guarded<int64_t> ptr(std::vector<int64_t>{0, 1, 2, 3}), order(std::vector<int64_t>{0, wrong, 2});
    CHECK(readouts_update(x.get(), Type<T>::code, 3, 2, ptr.get(), order.get(), 3, 3, kSum, target.get(), 1) ==
          kIndexError);
    Guarded<int64_t> index(std::vector<int64_t>{0, wrong, 2});
    int status = readouts_add_rows(x.get(), Type<T>::code, 3, 2, index.get(), 8, 3, target.get(), 1);
    CHECK(status == kIndexError || status == 1);
  }
  Guarded<int64_t> ptr(std::vector<int64_t>{0, 1, 2, 3});
  CHECK(readouts_update(x.get(), Type<T>::code, 2, 2, ptr.get(), nullptr, 3, 3, kSum, target.get(), 1) == kIndexError);
  CHECK(readouts_update(x.get(), Type<T>::code, 3, 2, ptr.get(), nullptr, 3, 3, kVar, target.get(), 1) == kIndexError);
}

template <class T>
void test_reductions() {
  Random random(1);
  const std::vector<int64_t> widths = {1, 2, 3, 5, 8, 13, 16, 17, 33, 64, 100, 4, 300};
  const std::vector<int64_t> sizes = {0, 1, 2, 3, 17, 0, 128, 129, 300, 5, 0};
  size_t turn = Type<T>::code;
  for (const char* fill : kFills)
    for (bool listed : {false, true})
      for (int repeat = 0; repeat < (quick ? 1 : 4); ++repeat) {
        int64_t features = widths[turn++ % (quick ? 9 : widths.size())];
        check_reductions(Data<T>(sizes, listed, features, fill, random), {1, 3}, random);
      }
  for (const char* fill : {"wide", "special", "normal", "cancelling"})  // large graphs, cut among many threads
    for (bool listed : {false, true}) {
      if (quick && listed != (fill[0] == 'w')) continue;
      std::vector<int> threads = quick ? std::vector<int>{5} : std::vector<int>{2, 8, 64};
      check_reductions(Data<T>({700, 3, 0, 400, 40, 1, 0}, listed, quick ? 2 : 17, fill, random), threads, random);
      if (!quick) check_reductions(Data<T>({5000}, listed, 1, fill, random), {5}, random);
    }
}

// Order statistics, values that trimming keeps, and gradients of trimmed means.
template <class T>
void check_order(const Data<T>& data, Random& random) {
  const Format& format = Type<T>::format;
  const Batch& batch = data.batch;
  int64_t graphs = batch.graphs(), nodes = batch.nodes(), features = data.features, count = 4;
  Guarded<int64_t> ranks(graphs * count), cut(graphs), kept_ptr(graphs + 1);
  Guarded<T> expected(graphs * count * features), out(expected.size()), middle(graphs * features), means(middle.size());
  Guarded<T> bounds(2 * graphs * features), kept(nodes * features), grad(graphs * features);
  Guarded<T> slope(nodes * features), result(slope.size());
  std::vector<Column> sorted;
  for (int64_t graph = 0; graph < graphs; ++graph) {
    int64_t n = batch.sizes[graph], low = n ? random.below(n) : 0;
    const int64_t wanted[] = {low, low + 1, n ? random.below(n) : 0, graph % 2 ? -5 : n + 7};  // cut to 0 or n - 1
    std::copy(wanted, wanted + count, ranks.get() + graph * count);
    cut[graph] = n > 2 ? random.below((n - 1) / 2 + 1) : 0;
    kept_ptr[graph + 1] = (graph ? kept_ptr[graph] : kept_ptr[0] = 0) + n - 2 * cut[graph];
    for (int64_t feature = 0; feature < features; ++feature) {
      Column column = data.column(graph, feature);
      bool unordered = has_nan(column);
      std::sort(column.begin(), column.end(), is_less);
      if (unordered) std::fill(column.begin(), column.end(), NAN);
      sorted.push_back(column);
      auto statistic = [&](int64_t rank) {
        return n ? column[std::min(std::max<int64_t>(rank, 0), n - 1)] : 0.0;
      };
      for (int64_t k = 0; k < count; ++k)
        expected[(graph * count + k) * features + feature] = number<T>(statistic(wanted[k]));
      double first = statistic(wanted[0]), second = statistic(wanted[1]), total = first + second;
      middle[graph * features + feature] =
          number<T>(rounded(std::isfinite(total) ? total * 0.5 : first * 0.5 + second * 0.5, format));
      double least = statistic(cut[graph]), greatest = statistic(n - 1 - cut[graph]);
      bounds[2 * graph * features + feature] = number<T>(least);
      bounds[(2 * graph + 1) * features + feature] = number<T>(greatest);
      double given = rounded(random.normal(), format), share = given / (double)(n - 2 * cut[graph]);
      grad[graph * features + feature] = number<T>(given);
      double below = 0, above = 0, at_least = 0, at_greatest = 0, left = (double)cut[graph];
      for (double value : data.column(graph, feature)) {
        below += value < least;
        above += value > greatest;
        at_least += ties(value, least);
        at_greatest += ties(value, greatest);
      }
      bool one_value = ties(least, greatest);
      double share_low = share * (one_value ? (double)n - 2 * left : below + at_least - left) / at_least;
      double share_high = share * (above + at_greatest - left) / at_greatest;
      for (int64_t at = batch.ptr[graph]; at < batch.ptr[graph + 1]; ++at) {
        int64_t cell = batch.order[at] * features + feature;
        double value = value_of(data.x[cell]);
        double total = ties(value, least)                     ? share_low
                       : ties(value, greatest)                ? share_high
                       : value > least && value < greatest ? share
                                                              : 0.0;
        slope[cell] = number<T>(rounded(total, format));
      }
    }
  }
  for_variants({1, 3}, [&](int threads, bool strange) {
    out.poison(), means.poison(), kept.poison(), result.poison();
    CHECK(!call_under(strange, [&] {
      return readouts_select(data.x.get(), Type<T>::code, Type<T>::code, nodes, features, data.ptr.get(), data.listing(), graphs,
                             ranks.get(), count, out.get(), means.get(), threads);
    }));
    CHECK(same_bits(out, expected));
    CHECK(same_bits(means, middle));
    out.poison();
    CHECK(!readouts_select(data.x.get(), Type<T>::code, Type<T>::code, nodes, features, data.ptr.get(), data.listing(), graphs,
                           ranks.get(), count, out.get(), nullptr, threads));
    CHECK(same_bits(out, expected));
    CHECK(!call_under(strange, [&] {
      return readouts_keep(data.x.get(), Type<T>::code, nodes, features, data.ptr.get(), data.listing(), graphs,
                           bounds.get(), cut.get(), kept_ptr.get(), kept.get(), threads);
    }));
    for (int64_t graph = 0; graph < graphs; ++graph)
      for (int64_t feature = 0; feature < features; ++feature) {
        const Column& column = sorted[graph * features + feature];
        Column found;
        for (int64_t at = kept_ptr[graph]; at < kept_ptr[graph + 1]; ++at)
          found.push_back(value_of(kept[at * features + feature]));
        bool nan = !column.empty() && std::isnan(column[0]);
        if (!nan && !has_nan(found)) std::sort(found.begin(), found.end());
        for (size_t at = 0; at < found.size(); ++at) CHECK(ties(found[at], column[cut[graph] + at]));
      }
    CHECK(!call_under(strange, [&] {
      return readouts_trim_backward(data.x.get(), Type<T>::code, nodes, features, data.ptr.get(), data.listing(),
                                    graphs, bounds.get(), cut.get(), grad.get(), result.get(), threads);
    }));
    CHECK(same_bits(result, slope));
  });
}

template <class T>
void test_order() {
  Random random(2);
  const std::vector<int64_t> sizes = {0, 1, 2, 5, 64, 511, 512, 0, 513, 700, 0}, few = {0, 1, 5, 513, 0};
  for (const char* fill : kFills)
    for (bool listed : {false, true})
      for (int64_t features : quick ? std::vector<int64_t>{3} : std::vector<int64_t>{1, 3, 17})
        check_order(Data<T>(quick ? few : sizes, listed, features, fill, random), random);
}

template <class I, class U>
void check_integers(const char* fill, bool listed, int64_t features, int code, Random& random) {
  Batch batch({0, 1, 3, 17, 0, 300, 2}, listed, random);
  context = "integers of " + std::to_string(sizeof(I)) + " bytes, " + fill + ", F = " + std::to_string(features) +
            (listed ? ", listed" : "") + ", to " + Type<U>::name;
  int64_t graphs = batch.graphs(), nodes = batch.nodes();
  Guarded<I> x(nodes * features);
  for (int64_t at = 0; at < x.size(); ++at) {
    uint64_t bits = random.bits();
    x[at] = fill[0] == 's' ? (I)(bits % 7) : fill[0] == 'f' ? (I)bits
            : bits & 64    ? std::numeric_limits<I>::max()
                           : std::numeric_limits<I>::min();
  }
  Guarded<int64_t> ptr(batch.ptr), order(batch.order);
  for (int kind = 0; kind < kKinds; ++kind) {
    Guarded<int64_t> sum(graphs * features);
    Guarded<I> extreme(graphs * features);
    Guarded<U> average(graphs * features);
    for (int64_t graph = 0; graph < graphs; ++graph)
      for (int64_t feature = 0; feature < features; ++feature) {
        int64_t cell = graph * features + feature, n = batch.sizes[graph];
        uint64_t total = 0;
        std::vector<I> column;
        Column wide;
        Exact exact;
        for (int64_t at = batch.ptr[graph]; at < batch.ptr[graph + 1]; ++at) {
          I value = x[batch.order[at] * features + feature];
          total += (uint64_t)(int64_t)value;
          column.push_back(value);
          wide.push_back((double)value);
          exact.add(value < 0 ? -(unsigned __int128)value : (unsigned __int128)value, 0, value < 0);
        }
        sum[cell] = (int64_t)total;
        extreme[cell] = !n ? 0 : kind == kMax ? *std::max_element(column.begin(), column.end())
                                              : *std::min_element(column.begin(), column.end());
        double mean = n ? exact.divided(n, kFloat64) : 0.0;
        for (double& value : wide) value = (value - mean) * (value - mean);
        double result = !n              ? 0.0
                        : kind == kMean ? exact.divided(n, Type<U>::format)
                        : kind == kVar  ? divided_sum(wide, n, Type<U>::format)
                                        : rounded(std::sqrt(divided_sum(wide, n, kFloat64)), Type<U>::format);
        average[cell] = number<U>(result);
      }
    for_variants({1, 3}, [&](int threads, bool strange) {
      context += ", kind " + std::to_string(kind);
      auto check = [&](const auto& expected, int result) {
        int64_t stride = features + 5;  // a block of a wider output
        std::remove_cv_t<std::remove_reference_t<decltype(expected)>> out(graphs * stride), block(expected.size());
        out.poison();
        CHECK(!call_under(strange, [&] {
          return readouts_reduce_integers(x.get(), code, result, nodes, features, ptr.get(),
                                          listed ? order.get() : nullptr, graphs, kind, out.get(), stride, threads);
        }));
        for (int64_t cell = 0; cell < block.size(); ++cell)
          block[cell] = out[cell / features * stride + cell % features];
        CHECK(same_bits(block, expected));
      };
      if (kind == kSum)
        check(sum, 4);
      else if (kind == kMax || kind == kMin)
        check(extreme, code);
      else
        check(average, Type<U>::code);
      Guarded<U> floats(graphs * features);
      Guarded<int64_t> wide(graphs * features);
      for (int64_t cell = 0; cell < floats.size(); ++cell) {
        wide[cell] = kind == kSum ? sum[cell] : (int64_t)extreme[cell];
        floats[cell] = kind == kSum ? (U)sum[cell] : (U)extreme[cell];
      }
      if (kind != kSum && kind != kMax && kind != kMin) return;
      check(floats, Type<U>::code);
      check(wide, 4);
    });
  }
}

// Order statistics of integers, of small and of large graphs.
template <class I, class U>
void check_order_of_integers(int64_t features, int code, Random& random) {
  Batch batch({0, 1, 2, 511, 512, 0, 513, 700}, true, random);
  context = "order of integers of " + std::to_string(sizeof(I)) + " bytes, F = " + std::to_string(features);
  int64_t graphs = batch.graphs(), nodes = batch.nodes(), count = 4;
  Guarded<I> x(nodes * features), expected(graphs * count * features), out(expected.size());
  Guarded<U> middle(graphs * features), means(middle.size());
  Guarded<int64_t> ptr(batch.ptr), order(batch.order), ranks(graphs * count);
  for (int64_t at = 0; at < x.size(); ++at) {
    uint64_t bits = random.bits();
    x[at] = bits & 64 ? (I)(bits >> 8) : bits & 128 ? std::numeric_limits<I>::max() : std::numeric_limits<I>::min();
  }
  for (int64_t graph = 0; graph < graphs; ++graph) {
    int64_t n = batch.sizes[graph], low = n ? random.below(n) : 0;
    const int64_t wanted[] = {low, low + 1, n ? random.below(n) : 0, graph % 2 ? -5 : n + 7};
    std::copy(wanted, wanted + count, ranks.get() + graph * count);
    for (int64_t feature = 0; feature < features; ++feature) {
      std::vector<I> column;
      for (int64_t at = batch.ptr[graph]; at < batch.ptr[graph + 1]; ++at)
        column.push_back(x[batch.order[at] * features + feature]);
      std::sort(column.begin(), column.end());
      auto statistic = [&](int64_t k) {
        return n ? column[std::min(std::max<int64_t>(wanted[k], 0), n - 1)] : (I)0;
      };
      for (int64_t k = 0; k < count; ++k) expected[(graph * count + k) * features + feature] = statistic(k);
      middle[graph * features + feature] = (U)(((double)statistic(0) + (double)statistic(1)) * 0.5);
    }
  }
  for_variants({1, 3}, [&](int threads, bool strange) {
    out.poison(), means.poison();
    CHECK(!call_under(strange, [&] {
      return readouts_select(x.get(), code, Type<U>::code, nodes, features, ptr.get(), order.get(), graphs,
                             ranks.get(), count, out.get(), means.get(), threads);
    }));
    CHECK(same_bits(out, expected));
    CHECK(same_bits(means, middle));
  });
}

void test_integers() {
  Random random(3);
  for (int64_t features : quick ? std::vector<int64_t>{9} : std::vector<int64_t>{1, 3, 8, 17, 33}) {
    check_order_of_integers<int64_t, double>(features, 4, random);
    check_order_of_integers<int32_t, float>(features, 5, random);
    check_order_of_integers<int16_t, double>(features, 6, random);
    check_order_of_integers<int8_t, float>(features, 7, random);
    check_order_of_integers<uint8_t, float>(features, 8, random);
  }
  for (const char* fill : {"small", "full range", "extremes"})
    for (bool listed : {false, true})
      for (int64_t features : quick ? std::vector<int64_t>{3} : std::vector<int64_t>{1, 3, 8, 17, 33}) {
        check_integers<int64_t, double>(fill, listed, features, 4, random);
        check_integers<int64_t, float>(fill, listed, features, 4, random);
        check_integers<int32_t, float>(fill, listed, features, 5, random);
        check_integers<int16_t, double>(fill, listed, features, 6, random);
        check_integers<int8_t, float>(fill, listed, features, 7, random);
        check_integers<uint8_t, float>(fill, listed, features, 8, random);
      }
}

// Offsets, order and reductions straight from a batch vector.
template <class Int>
void test_grouping() {
  Random random(4);
  int bytes = sizeof(Int);
  for (bool listed : {false, true})
    for (const std::vector<int64_t>& sizes : std::vector<std::vector<int64_t>>{
             {}, {0}, {0, 0, 0}, {3}, {0, 2, 1, 0, 5, 0, 0}, {4, 0, 0}, {1, 1, 1, 1}, {200, 0, 300}}) {
      Batch batch(sizes, listed, random);
      int64_t nodes = batch.nodes(), graphs = batch.graphs();
      context = "grouping of " + std::to_string(nodes) + " nodes, " + std::to_string(bytes) + " bytes";
      Guarded<Int> index(std::vector<Int>(batch.index.begin(), batch.index.end()));
      Guarded<int64_t> expected(batch.ptr), ptr(graphs + 1), listing(batch.order), order(nodes), again(nodes);
      bool sorted = std::is_sorted(batch.index.begin(), batch.index.end());
      ptr.poison(), order.poison(), again.poison();
      CHECK(readouts_group(index.get(), bytes, nodes, graphs, ptr.get()) == (sorted ? 0 : 1));
      CHECK(same_bits(ptr, expected));
      CHECK(!readouts_order(index.get(), bytes, nodes, graphs, ptr.get(), order.get()));
      CHECK(same_bits(order, listing));
      CHECK(!readouts_expand_ptr(ptr.get(), graphs, nodes, again.get()));
      for (int64_t at = 0; at < nodes; ++at) CHECK(again[at] == batch.index[batch.order[at]]);
      if (nodes)
        CHECK(readouts_greatest(index.get(), bytes, nodes) ==
              *std::max_element(batch.index.begin(), batch.index.end()));
      if (!graphs) continue;
      int64_t features = 5, kinds[] = {kSum, kMax}, blocks[] = {0, 1};
      Guarded<float> x(nodes * features), out(2 * graphs * features), same(out.size());
      for (int64_t at = 0; at < x.size(); ++at) x[at] = (float)random.normal();
      out.poison(), same.poison();
      for (int threads : {1, 3}) {
        CHECK(!readouts_reduce_batch(x.get(), 1, nodes, features, index.get(), bytes, graphs, kinds, blocks, 2,
                                     out.get(), threads));
        CHECK(!readouts_reduce(x.get(), 1, nodes, features, ptr.get(), order.get(), graphs, kinds, blocks, 2,
                               same.get(), threads));
        CHECK(same_bits(out, same));
      }
    }
  for (bool listed : {false, true})
    for (int64_t wrong : {(int64_t)-1, (int64_t)3, (int64_t)std::numeric_limits<Int>::min(),
                          (int64_t)std::numeric_limits<Int>::max()})
      for (int64_t at : {0, 5, 9}) {
        Batch batch({4, 3, 3}, listed, random);
        context = "wrong entry " + std::to_string(wrong) + " at " + std::to_string(at);
        Guarded<Int> index(std::vector<Int>(batch.index.begin(), batch.index.end()));
        Guarded<int64_t> right(batch.ptr), ptr(4), order(10);
        index[at] = (Int)wrong;
        CHECK(readouts_group(index.get(), bytes, 10, 3, ptr.get()) == kIndexError);
        CHECK(readouts_order(index.get(), bytes, 10, 3, right.get(), order.get()) == kIndexError);
        Guarded<float> x(10), out(3);
        for (int64_t row = 0; row < 10; ++row) x[row] = 1.0f;
        int64_t kind = kSum, block = 0;
        CHECK(readouts_reduce_batch(x.get(), 1, 10, 1, index.get(), bytes, 3, &kind, &block, 1, out.get(), 1) ==
              kIndexError);
      }
  context = "no graphs";
  Guarded<Int> index(std::vector<Int>{0, 0});
  Guarded<int64_t> ptr(1), order(2);
  CHECK(readouts_group(index.get(), bytes, 2, 0, ptr.get()) == kIndexError);
  CHECK(readouts_order(index.get(), bytes, 2, 0, ptr.get(), order.get()) == kIndexError);
  for (int64_t first : {(int64_t)-1, (int64_t)1, (int64_t)2, INT64_MIN, INT64_MAX, (int64_t)1 << 40}) {
    context = "offsets of others, from " + std::to_string(first);
    Guarded<int64_t> wrong(std::vector<int64_t>{first, 2});
    order.poison();
    CHECK(readouts_order(index.get(), bytes, 2, 1, wrong.get(), order.get()) == kIndexError);
  }
}

const std::vector<std::vector<int64_t>> kWrongOffsets = {  // for 10 nodes of 3 graphs
    {1, 4, 7, 10}, {-1, 4, 7, 10}, {0, 4, 7, 9},          {0, 4, 7, 11},         {0, 7, 4, 10},
    {0, -4, 7, 10}, {0, 4, 12, 10}, {0, INT64_MAX, 7, 10}, {0, INT64_MIN, 7, 10}, {0, 4, 7, INT64_MAX},
};

void test_wrong_offsets() {
  Guarded<int64_t> index(10);
  index.poison();
  for (const auto& offsets : kWrongOffsets) {
    context = "offsets " + std::to_string(offsets[0]) + " " + std::to_string(offsets[1]) + " " +
              std::to_string(offsets[2]) + " " + std::to_string(offsets[3]);
    Guarded<int64_t> ptr(offsets), cut(std::vector<int64_t>(3)), ranks(std::vector<int64_t>(6));
    CHECK(readouts_expand_ptr(ptr.get(), 3, 10, index.get()) == kPtrError);
    CHECK(index.untouched());
    int64_t kinds[] = {kSum, kMax, kVar}, blocks[] = {0, 1, 2};
    Guarded<float> x(10), out(9), grad(9), result(10), bounds(6);
    out.poison(), result.poison();
    for_variants({1, 3}, [&](int threads, bool) {
      CHECK(readouts_reduce(x.get(), 1, 10, 1, ptr.get(), nullptr, 3, kinds, blocks, 3, out.get(), threads) ==
            kPtrError);
      CHECK(readouts_reduce_integers(x.get(), 5, 1, 10, 1, ptr.get(), nullptr, 3, kSum, out.get(), 1, threads) ==
            kPtrError);
      CHECK(readouts_reduce_backward(grad.get(), x.get(), out.get(), 1, 10, 1, ptr.get(), nullptr, index.get(), 3,
                                     kinds, blocks, 3, result.get(), threads) == kPtrError);
      CHECK(readouts_select(x.get(), 1, 1, 10, 1, ptr.get(), nullptr, 3, ranks.get(), 2, out.get(), nullptr, threads) ==
            kPtrError);
      CHECK(readouts_keep(x.get(), 1, 10, 1, ptr.get(), nullptr, 3, bounds.get(), cut.get(), cut.get(), result.get(),
                          threads) == kPtrError);
      CHECK(readouts_trim_backward(x.get(), 1, 10, 1, ptr.get(), nullptr, 3, bounds.get(), cut.get(), grad.get(),
                                   result.get(), threads) == kPtrError);
      CHECK(out.untouched() && result.untouched());
    });
  }
}

// Entries of order, and of index where gradients are spread by it, that name no node and no graph.
void test_wrong_order() {
  Random random(5);
  int64_t features = 17, kinds[] = {kSum, kMean, kMax, kMin, kVar, kStd}, blocks[] = {0, 1, 2, 3, 4, 5};
  Data<float> data({40, 130, 0, 600}, true, features, "normal", random);
  int64_t nodes = data.batch.nodes(), graphs = 4;
  Guarded<float> out(6 * graphs * features), grad(out.size()), result(nodes * features), bounds(2 * graphs * features);
  Guarded<int32_t> integers(nodes * features);
  Guarded<int64_t> sums(graphs * features), ranks(std::vector<int64_t>(2 * graphs)), cut{std::vector<int64_t>(graphs)};
  Guarded<int64_t> order(data.batch.order), index(data.batch.index);
  for (int64_t at = 0; at < grad.size(); ++at) grad[at] = out[at] = 1.0f;
  for (int64_t at = 0; at < bounds.size(); ++at) bounds[at] = 0.0f;
  for (int64_t at = 0; at < integers.size(); ++at) integers[at] = 1;
#if defined(__SANITIZE_THREAD__)  // what stands for a wrong entry is written by several threads
  const std::vector<int> several = {1};
#else
  const std::vector<int> several = {1, 3};
#endif
  for (int64_t wrong : {(int64_t)-1, nodes, INT64_MIN, INT64_MAX, (int64_t)1 << 62})
    for (int64_t at : {(int64_t)0, (int64_t)20, (int64_t)100, nodes - 1}) {
      context = "order entry " + std::to_string(wrong) + " at " + std::to_string(at);
      int64_t right = order[at];
      order[at] = wrong;
      for_variants(several, [&](int threads, bool) {
        for (int64_t first = 0; first < 6; ++first) {
          CHECK(readouts_reduce(data.x.get(), 1, nodes, features, data.ptr.get(), order.get(), graphs, kinds + first,
                                blocks, 6 - first, out.get(), threads) == kIndexError);
          CHECK(readouts_reduce_integers(integers.get(), 5, 1, nodes, features, data.ptr.get(), order.get(), graphs,
                                         first, sums.get(), features, threads) == kIndexError);
          CHECK(readouts_reduce_backward(grad.get(), data.x.get(), out.get(), 1, nodes, features, data.ptr.get(),
                                         order.get(), index.get(), graphs, kinds + first, blocks, 6 - first,
                                         result.get(), threads) == kIndexError);
        }
        CHECK(readouts_select(data.x.get(), 1, 1, nodes, features, data.ptr.get(), order.get(), graphs, ranks.get(), 2,
                              out.get(), nullptr, threads) == kIndexError);
        CHECK(readouts_keep(data.x.get(), 1, nodes, features, data.ptr.get(), order.get(), graphs, bounds.get(),
                            cut.get(), data.ptr.get(), result.get(), threads) == kIndexError);
        CHECK(readouts_trim_backward(data.x.get(), 1, nodes, features, data.ptr.get(), order.get(), graphs,
                                     bounds.get(), cut.get(), grad.get(), result.get(), threads) == kIndexError);
      });
      order[at] = right;
      right = index[at];
      index[at] = wrong;
      context = "index entry " + std::to_string(wrong) + " at " + std::to_string(at);
      for_variants(several, [&](int threads, bool) {
        CHECK(readouts_reduce_backward(grad.get(), nullptr, nullptr, 1, nodes, features, data.ptr.get(), order.get(),
                                       index.get(), graphs, kinds, blocks, 2, result.get(), threads) == kIndexError);
      });
      index[at] = right;
    }
}

// What trimming keeps, where the numbers that it is given do not fit the graphs.
void test_wrong_cuts() {
  Random random(6);
  Data<float> data({600, 5}, false, 3, "normal", random);
  Guarded<float> bounds(std::vector<float>(12)), kept(605 * 3);
  struct Wrong {
    int64_t cut, kept_ptr;
  };
  for (const Wrong& wrong : {Wrong{-1, 0}, {301, 0}, {INT64_MAX, 0}, {INT64_MIN, 0}, {1, -1}, {1, 606}, {1, 8},
                             {1, INT64_MAX}, {1, INT64_MIN}, {(int64_t)1 << 62, 0}}) {
    context = "cut " + std::to_string(wrong.cut) + ", kept from " + std::to_string(wrong.kept_ptr);
    Guarded<int64_t> cut(std::vector<int64_t>{wrong.cut, 0}), kept_ptr(std::vector<int64_t>{wrong.kept_ptr, 598});
    for_variants({1, 2}, [&](int threads, bool) {
      CHECK(readouts_keep(data.x.get(), 1, 605, 3, data.ptr.get(), nullptr, 2, bounds.get(), cut.get(), kept_ptr.get(),
                          kept.get(), threads) == kIndexError);
    });
  }
}

void test_wrong_dtype() {
  int64_t kind = kSum, block = 0;
  Guarded<int64_t> ptr(std::vector<int64_t>{0, 1}), zero(std::vector<int64_t>{0});
  Guarded<double> x(std::vector<double>{1.0}), out(1), bounds(2);
  for (int dtype : {-1, 4, kUnknown}) {
    context = "dtype " + std::to_string(dtype);
    CHECK(readouts_reduce(x.get(), dtype, 1, 1, ptr.get(), nullptr, 1, &kind, &block, 1, out.get(), 1) == kDTypeError);
    CHECK(readouts_reduce_backward(x.get(), nullptr, nullptr, dtype, 1, 1, ptr.get(), nullptr, zero.get(), 1, &kind,
                                   &block, 1, out.get(), 1) == kDTypeError);
    CHECK(readouts_select(x.get(), dtype, dtype, 1, 1, ptr.get(), nullptr, 1, zero.get(), 1, out.get(), nullptr, 1) ==
          kDTypeError);
    if (dtype != 4)  // integers are kept, too
      CHECK(readouts_keep(x.get(), dtype, 1, 1, ptr.get(), nullptr, 1, bounds.get(), zero.get(), zero.get(), out.get(),
                        1) == kDTypeError);
    CHECK(readouts_trim_backward(x.get(), dtype, 1, 1, ptr.get(), nullptr, 1, bounds.get(), zero.get(), x.get(),
                                 out.get(), 1) == kDTypeError);
  }
  for (int dtype : {0, kUnknown})
    CHECK(readouts_reduce_integers(x.get(), dtype, 1, 1, 1, ptr.get(), nullptr, 1, kSum, out.get(), 1, 1) == kDTypeError);
}

// Batches without graphs, nodes or features.
void test_nothing() {
  int64_t kinds[] = {kSum, kMean, kMax, kMin, kVar, kStd}, blocks[] = {0, 1, 2, 3, 4, 5};
  struct Shape {
    int64_t graphs, nodes, features;
  };
  for (const Shape& shape : {Shape{0, 0, 3}, {2, 0, 3}, {0, 0, 0}, {2, 0, 0}, {1, 4, 0}}) {
    context = "B = " + std::to_string(shape.graphs) + ", N = " + std::to_string(shape.nodes) +
              ", F = " + std::to_string(shape.features);
    std::vector<int64_t> offsets(shape.graphs + 1);
    offsets.back() = shape.nodes;
    Guarded<int64_t> ptr(offsets), order(shape.nodes), ranks(2 * shape.graphs), cut(std::vector<int64_t>(shape.graphs));
    for (int64_t at = 0; at < shape.nodes; ++at) order[at] = at;
    Guarded<float> x(shape.nodes * shape.features), out(6 * shape.graphs * shape.features), result(x.size());
    Guarded<float> zeros(std::vector<float>(out.size())), bounds(2 * shape.graphs * shape.features);
    for_variants({1, 3}, [&](int threads, bool) {
      for (const int64_t* listing : {(const int64_t*)nullptr, (const int64_t*)order.get()}) {
        out.poison();
        CHECK(!readouts_reduce(x.get(), 1, shape.nodes, shape.features, ptr.get(), listing, shape.graphs, kinds, blocks,
                               6, out.get(), threads));
        CHECK(same_bits(out, zeros));
        for (int64_t count : {2, 6})
          CHECK(!readouts_reduce_backward(zeros.get(), x.get(), out.get(), 1, shape.nodes, shape.features, ptr.get(),
                                          listing, cut.get(), shape.graphs, kinds, blocks, count, result.get(),
                                          threads));
        for (int64_t kind : kinds)
          CHECK(!readouts_reduce_integers(x.get(), 5, 1, shape.nodes, shape.features, ptr.get(), listing, shape.graphs,
                                          kind, out.get(), shape.features, threads));
        CHECK(!readouts_select(x.get(), 1, 1, shape.nodes, shape.features, ptr.get(), listing, shape.graphs, ranks.get(),
                               2, out.get(), nullptr, threads));
        CHECK(!readouts_keep(x.get(), 1, shape.nodes, shape.features, ptr.get(), listing, shape.graphs, bounds.get(),
                             cut.get(), cut.get(), result.get(), threads));
        CHECK(!readouts_trim_backward(x.get(), 1, shape.nodes, shape.features, ptr.get(), listing, shape.graphs,
                                      bounds.get(), cut.get(), zeros.get(), result.get(), threads));
      }
    });
  }
}

// Limbs of numbers and of squares stand for their exact sums.
template <class T>
void test_limbs() {
  Random random(7);
  const Format& format = Type<T>::format;
  for (const char* fill : {"normal", "wide", "tiny", "huge", "special"})
    for (int64_t power : {1, 2})
      for (int64_t features : {1, 9, 40}) {
        Data<T> data({0, 30, 5, 0, 65}, true, features, fill, random);
        int64_t graphs = data.batch.graphs(), nodes = data.batch.nodes(), least = power * format.lowest;
        int64_t count = 1 + (power * format.infinity - least - 1 + 31) / 32, cells = graphs * features;
        int64_t stored = format.digits - 1, top = format.infinity * 2 - 1;
        std::string outer = context;
        for (int threads : {0, 1, 4}) {
          context = outer + ", power " + std::to_string(power) + ", " + std::to_string(threads) + " threads";
          Guarded<int64_t> limbs(std::vector<int64_t>((count + 1) * cells));
          auto add = [&] {
            return readouts_add_limbs(data.x.get(), sizeof(T), data.index.get(), nodes, features, limbs.get(), count,
                                      graphs, stored, top, 0, power, threads);
          };
          CHECK(add() == 0);
          for (int64_t graph = 0; graph < graphs; ++graph)
            for (int64_t feature = 0; feature < features; ++feature) {
              Exact found, expected;
              int64_t specials = 0;
              for (int64_t limb = 0; limb < count; ++limb) {
                int64_t value = limbs[limb * cells + graph * features + feature];
                found.add((unsigned __int128)std::llabs(value), (int)(least + 32 * limb), value < 0);
              }
              for (double value : data.column(graph, feature)) {
                if (std::isnan(value))
                  specials |= 1;
                else if (std::isinf(value))
                  specials |= value > 0 ? (int64_t)1 << 20 : (int64_t)1 << 40;
                else if (power == 1)
                  expected.add(value);
                else if (value != 0.0) {
                  int exponent;
                  auto mantissa = (unsigned __int128)(uint64_t)std::ldexp(std::frexp(std::fabs(value), &exponent), 53);
                  expected.add(mantissa * mantissa, 2 * (exponent - 53), false);
                }
              }
              CHECK(found == expected);
              CHECK(limbs[count * cells + graph * features + feature] == specials);
            }
          for (int64_t wrong : {(int64_t)-1, graphs, INT64_MIN, INT64_MAX}) {
            int64_t right = data.index[50];
            data.index[50] = wrong;
            CHECK(add() == kIndexError);
            data.index[50] = right;
          }
        }
      }
}

// One large reduction that keeps several threads busy, and its result.
struct Job {
  Data<float> data;
  Guarded<float> expected, slope, ones;
  int64_t kinds[3] = {kSum, kMean, kMax}, blocks[3] = {0, 1, 2};

  explicit Job(Random& random)
      : data({3000, 7, 900, 0, 2000, 100}, true, 16, "wide", random),
        expected(3 * 6 * 16),
        slope(data.x.size()),
        ones(expected.size()) {
    for (int64_t at = 0; at < ones.size(); ++at) ones[at] = 1.0f;
    run(expected, slope, 1);
  }
  int run(const Guarded<float>& out, const Guarded<float>& result, int threads) const {
    int status = readouts_reduce(data.x.get(), 1, data.batch.nodes(), 16, data.ptr.get(), data.listing(), 6, kinds,
                                 blocks, 3, out.get(), threads);
    return status + readouts_reduce_backward(ones.get(), data.x.get(), out.get(), 1, data.batch.nodes(), 16,
                                             data.ptr.get(), data.listing(), data.index.get(), 6, kinds, blocks, 3,
                                             result.get(), threads);
  }
  bool repeats(int threads) const {
    Guarded<float> out(expected.size()), result(slope.size());
    out.poison(), result.poison();
    return run(out, result, threads) == 0 && !std::memcmp(out.get(), expected.get(), out.size() * sizeof(float)) &&
           !std::memcmp(result.get(), slope.get(), result.size() * sizeof(float));
  }
};

void test_many_callers() {
  Random random(8);
  Job job(random);
  context = "eight threads call at once";
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 8; ++caller)
    callers.emplace_back([&] {
      for (int round = 0; round < (quick ? 5 : 20); ++round) wrong += !job.repeats(4);
    });
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong == 0);
}

// Return whether a forked child gets the same bits; one that hangs is ended by an alarm.
bool repeats_in_child(const Job& job) {
  pid_t child = fork();
  if (child == 0) {
    alarm(60);
    _exit(job.repeats(4) && job.repeats(1) && job.repeats(8) ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void test_fork() {
  Random random(9);
  Job job(random);
  context = "fork after use";
  CHECK(job.repeats(4));
  for (int round = 0; round < 3; ++round) CHECK(repeats_in_child(job));
  CHECK(job.repeats(4));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // their memory is not safe to fork
  context = "fork while other threads are at work";
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller)
    callers.emplace_back([&] {
      while (!stop) wrong += !job.repeats(4);
    });
  for (int round = 0; round < 5; ++round) CHECK(repeats_in_child(job));
  stop = true;
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong == 0);
#endif
}

// Weighted means and their gradients of small integers, which plain float64 arithmetic gets right.
template <class T>
void compare_weighted(const Batch& batch, int64_t features, bool shared, Random& random) {
  int64_t nodes = batch.nodes(), graphs = batch.graphs(), columns = shared ? 1 : features;
  Guarded<T> x(nodes * features), weight(nodes * columns), scaled(nodes * features), gradient(nodes * columns);
  Guarded<int64_t> ptr(batch.ptr), order(batch.order), index(batch.index);
  Guarded<double> means(graphs * features), totals(graphs * columns), slopes(graphs * features),
      centres(graphs * columns);
  for (int64_t at = 0; at < x.size(); ++at) x[at] = number<T>((double)(random.below(17) - 8));
  for (int64_t at = 0; at < weight.size(); ++at) weight[at] = number<T>((double)random.below(4));
  for (int64_t at = 0; at < slopes.size(); ++at) slopes[at] = (double)(random.below(9) - 4);
  for (int64_t at = 0; at < centres.size(); ++at) centres[at] = (double)(random.below(9) - 4);
  auto weight_of = [&](int64_t node, int64_t feature) {
    return value_of(weight[shared ? node : node * features + feature]);
  };
  Column mean(graphs * features), total(graphs * columns);
  for (int64_t node = 0; node < nodes; ++node)
    for (int64_t feature = 0; feature < features; ++feature) {
      mean[batch.index[node] * features + feature] += weight_of(node, feature) * value_of(x[node * features + feature]);
      if (!shared || feature == 0) total[batch.index[node] * columns + feature] += weight_of(node, feature);
    }
  for (int64_t graph = 0; graph < graphs; ++graph)
    for (int64_t feature = 0; feature < features; ++feature) {
      double& sum = total[graph * columns + (shared ? 0 : feature)];
      if (batch.sizes[graph] == 0) sum = 1.0;
      mean[graph * features + feature] /= sum;
    }
  const int64_t* listing = batch.listed ? order.get() : nullptr;
  for_variants({1, 3}, [&](int threads, bool strange) {
    means.poison(), totals.poison(), scaled.poison(), gradient.poison();
    CHECK(!call_under(strange, [&] {
      return readouts_weighted_mean(x.get(), Type<T>::code, nodes, features, ptr.get(), listing, graphs, weight.get(),
                                    shared, means.get(), totals.get(), threads);
    }));
    for (int64_t at = 0; at < means.size(); ++at) CHECK(ties(means[at], mean[at]));
    for (int64_t at = 0; at < totals.size(); ++at) CHECK(totals[at] == total[at]);
    CHECK(!call_under(strange, [&] {
      return readouts_scale_rows(slopes.get(), index.get(), graphs, weight.get(), Type<T>::code, shared, nodes,
                                 features, scaled.get(), threads);
    }));
    CHECK(!call_under(strange, [&] {
      return readouts_weight_gradient(slopes.get(), centres.get(), index.get(), graphs, x.get(), weight.get(),
                                      Type<T>::code, shared, nodes, features, gradient.get(), threads);
    }));
    for (int64_t node = 0; node < nodes; ++node) {
      const double* slope = &slopes[0] + batch.index[node] * features;
      double inner = 0.0;
      for (int64_t feature = 0; feature < features; ++feature) {
        double value = value_of(x[node * features + feature]), factor = weight_of(node, feature);
        CHECK(value_of(scaled[node * features + feature]) == factor * slope[feature]);
        inner += value * slope[feature];
        double alone = factor * slope[feature] * (value - centres[batch.index[node] * columns + (shared ? 0 : feature)]);
        if (!shared) CHECK(value_of(gradient[node * features + feature]) == value_of(number<T>(alone)));
      }
      double together = weight_of(node, 0) * (inner - centres[batch.index[node] * columns]);
      if (shared) CHECK(value_of(gradient[node]) == value_of(number<T>(together)));
    }
  });
}

template <class T>
void test_weighted() {
  Random random(7);
  for (int64_t features : {1, 5, 16, 33})
    for (bool listed : {false, true})
      for (bool shared : {false, true}) {
        context = std::string("weighted, ") + Type<T>::name + ", " + std::to_string(features) + " features";
        compare_weighted<T>(Batch({3, 0, 1, 17, 300}, listed, random), features, shared && features > 1, random);
      }
}

void test_wrong_weights() {
  context = "weighted, wrong index";
  Guarded<float> x(std::vector<float>(6, 1.0f)), weight(std::vector<float>(3, 1.0f)), result(6);
  Guarded<double> table(std::vector<double>(4, 1.0)), means(4), totals(2);
  Guarded<int64_t> ptr(std::vector<int64_t>{0, 2, 3}), falling(std::vector<int64_t>{0, 2, 1});
  for (int64_t wrong : {(int64_t)-1, (int64_t)2, INT64_MAX}) {
    Guarded<int64_t> index(std::vector<int64_t>{0, wrong, 1});
    Guarded<int64_t> order(std::vector<int64_t>{0, wrong < 3 && wrong >= 0 ? 3 : wrong, 1});
    for (int shared = 0; shared < 2; ++shared) {
      const float* weights = shared ? weight.get() : x.get();
      CHECK(readouts_scale_rows(table.get(), index.get(), 2, weights, 1, shared, 3, 2, result.get(), 1) == kIndexError);
      CHECK(readouts_weight_gradient(table.get(), table.get(), index.get(), 2, x.get(), weights, 1, shared, 3, 2,
                                     result.get(), 1) == kIndexError);
    }
    CHECK(readouts_weighted_mean(x.get(), 1, 3, 2, ptr.get(), order.get(), 2, weight.get(), 1, means.get(),
                                 totals.get(), 1) == kIndexError);
  }
  CHECK(readouts_weighted_mean(x.get(), 1, 3, 2, falling.get(), nullptr, 2, weight.get(), 1, means.get(), totals.get(),
                               1) == kPtrError);
  CHECK(readouts_weighted_mean(x.get(), kUnknown, 3, 2, ptr.get(), nullptr, 2, weight.get(), 1, means.get(),
                               totals.get(), 1) == kDTypeError);
}

void test_choice() {
  context = "choice of an instruction set";
  CHECK(!readouts_choose("mmx"));
  CHECK(!readouts_choose(""));
  const char* best = readouts_choose(nullptr);
  CHECK(best && instruction_sets.back() == best);
}

void run(const char* name, const std::function<void()>& test) {
  timespec begin, end;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  int before = failures;
  test();
  clock_gettime(CLOCK_MONOTONIC, &end);
  double seconds = (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
  std::printf("%-28s %6.2f s  %s\n", name, seconds, failures == before ? "passed" : "FAILED");
  std::fflush(stdout);
}

}  // namespace

int main(int count, char** arguments) {
  std::vector<std::string> wanted;
  bool forks = true;
  for (int at = 1; at < count; ++at) {
    if (std::string(arguments[at]) == "--quick")
      quick = true;
    else if (std::string(arguments[at]) == "--no-fork")  // for QEMU 7, which fails to fork a process with threads
      forks = false;
    else
      wanted.push_back(arguments[at]);
  }
#if defined(__x86_64__)
  const std::vector<std::string> known = {"baseline", "avx2", "avx512"};
#else
  const std::vector<std::string> known = {"neon"};
#endif
  for (const std::string& name : wanted.empty() ? known : wanted) {
    if (!readouts_choose(name.c_str())) {
      std::printf("%-10s not on this processor\n", name.c_str());
      continue;
    }
    std::printf("%-10s the inexact flag %s\n", name.c_str(), readouts_flag_works() ? "certifies sums" : "is not set");
    instruction_sets.push_back(name);
  }
  if (instruction_sets.empty()) return 1;
  if (wanted.empty()) run("choice", test_choice);
  run("grouping, int32", test_grouping<int32_t>);
  run("grouping, int64", test_grouping<int64_t>);
  run("wrong offsets", test_wrong_offsets);
  run("wrong order", test_wrong_order);
  run("wrong cuts", test_wrong_cuts);
  run("wrong dtypes", test_wrong_dtype);
  run("nothing", test_nothing);
  run("limbs, float64", test_limbs<double>);
  run("limbs, float32", test_limbs<float>);
  run("limbs, float16", test_limbs<float16>);
  run("integers", test_integers);
  run("reductions, float64", test_reductions<double>);
  run("reductions, float32", test_reductions<float>);
  run("reductions, float16", test_reductions<float16>);
  run("reductions, bfloat16", test_reductions<bfloat16>);
  run("updates, float64", test_updates<double>);
  run("updates, float32", test_updates<float>);
  run("updates, float16", test_updates<float16>);
  run("updates, bfloat16", test_updates<bfloat16>);
  run("order, float64", test_order<double>);
  run("order, float32", test_order<float>);
  run("order, float16", test_order<float16>);
  run("order, bfloat16", test_order<bfloat16>);
  run("weighted, float64", test_weighted<double>);
  run("weighted, float32", test_weighted<float>);
  run("wrong weights", test_wrong_weights);
  run("many callers", test_many_callers);
  if (forks) run("fork", test_fork);
  std::printf("%d failures\n", failures.load());
  return failures ? 1 : 0;
}
