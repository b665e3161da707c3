// Entry points of the core: choice of the instruction set, grouping, and checks of all that indexes memory.
//
// Every function returns 0, or a negative number: -1 for an index out of range, -2 for offsets that do not run
// from 0 to the number of nodes, -3 for an unknown dtype. All arguments have 8 bytes: a caller through ctypes can
// pass them all alike, which takes half the time.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "control.h"
#include "kernels.h"
#include "limbs.h"
#include "pool.h"

#define READOUTS_API extern "C" __attribute__((visibility("default")))

namespace readouts {

#define READOUTS_DECLARE(isa)   \
  namespace isa {               \
  extern const Kernels kernels; \
  }
#if defined(__x86_64__)
READOUTS_DECLARE(avx512)
READOUTS_DECLARE(avx2)
READOUTS_DECLARE(baseline)
static const Kernels* const variants[] = {&avx512::kernels, &avx2::kernels, &baseline::kernels};
#else
READOUTS_DECLARE(neon)
static const Kernels* const variants[] = {&neon::kernels};
#endif

namespace {

constexpr int kIndexError = -1, kPtrError = -2, kDTypeError = -3;

const Kernels* chosen = nullptr;
bool flag_works = false;

// Memory that is not initialised.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t count) : memory_(new (std::nothrow) T[count > 0 ? count : 1]) {}
  ~Buffer() { delete[] memory_; }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* get() { return memory_; }

 private:
  T* memory_;
};

// Read an index once, so that what is checked is what is used.
template <class Int>
int64_t read_index(const void* index, int64_t at) {
  return static_cast<const volatile Int*>(index)[at];
}

template <class Int>
int64_t find_greatest(const void* index, int64_t nodes) {
  const Int* values = static_cast<const Int*>(index);
  Int greatest = values[0];
  for (int64_t node = 1; node < nodes; ++node) greatest = values[node] > greatest ? values[node] : greatest;
  return greatest;
}

// Write the offsets of graphs whose nodes lie in order; return 1 where they do not, -1 for an index out of range.
template <class Int>
int find_offsets(const void* index, int64_t nodes, int64_t graphs, int64_t* ptr) {
  int64_t previous = 0, next = 0;  // graphs below `next` have their offset
  for (int64_t node = 0; node < nodes; ++node) {
    int64_t graph = read_index<Int>(index, node);
    if (graph == previous && next > graph) continue;
    if ((uint64_t)graph >= (uint64_t)graphs) return kIndexError;
    if (graph < previous) return 1;
    while (next <= graph) ptr[next++] = node;
    previous = graph;
  }
  while (next <= graphs) ptr[next++] = nodes;
  return 0;
}

template <class Int>
int count_nodes(const void* index, int64_t nodes, int64_t graphs, int64_t* ptr) {
  std::memset(ptr, 0, (graphs + 1) * sizeof(int64_t));
  for (int64_t node = 0; node < nodes; ++node) {
    int64_t graph = read_index<Int>(index, node);
    if ((uint64_t)graph >= (uint64_t)graphs) return kIndexError;
    ++ptr[graph + 1];
  }
  for (int64_t graph = 0; graph < graphs; ++graph) ptr[graph + 1] += ptr[graph];
  return 0;
}

// Write the nodes graph by graph, in ascending order. What was counted before holds whatever the index says now.
template <class Int>
int place_nodes(const void* index, int64_t nodes, int64_t graphs, const int64_t* ptr, int64_t* order) {
  Buffer<int64_t> places(graphs);
  std::memcpy(places.get(), ptr, graphs * sizeof(int64_t));
  for (int64_t node = 0; node < nodes; ++node) {
    int64_t graph = read_index<Int>(index, node);
    if ((uint64_t)graph >= (uint64_t)graphs) return kIndexError;
    int64_t& place = places.get()[graph];
    if ((uint64_t)place >= (uint64_t)nodes) return kIndexError;
    order[place++] = node;
  }
  return 0;
}

// Copy offsets and check the copy.
bool copy_offsets(const int64_t* ptr, int64_t graphs, int64_t nodes, int64_t* copy) {
  std::memcpy(copy, ptr, (graphs + 1) * sizeof(int64_t));
  bool falls = copy[0] != 0 || copy[graphs] != nodes;
  for (int64_t graph = 0; graph < graphs; ++graph) falls |= copy[graph + 1] < copy[graph];
  return !falls;
}

int clamped(int64_t threads) { return (int)(threads > 64 ? 64 : (threads < 1 ? 1 : threads)); }

// The most float64 sums to which rows are added in any order faster than they are grouped: of rows of one block of
// columns, and of wider rows, which are read once for every block.
constexpr int64_t kNarrow = 1 << 17, kWide = 1 << 12;

// Copy an index and count the nodes of every graph. Return 0 where they lie graph by graph, else 1.
int copy_index(const void* index, int64_t bytes, int64_t nodes, int64_t graphs, int64_t* copy, int64_t* ptr) {
  std::memset(ptr, 0, (graphs + 1) * sizeof(int64_t));
  bool falls = false;
  int64_t previous = 0;
  for (int64_t node = 0; node < nodes; ++node) {
    int64_t graph = bytes == 4 ? read_index<int32_t>(index, node) : read_index<int64_t>(index, node);
    if ((uint64_t)graph >= (uint64_t)graphs) return kIndexError;
    falls |= graph < previous;
    previous = copy[node] = graph;
    ++ptr[graph + 1];
  }
  for (int64_t graph = 0; graph < graphs; ++graph) ptr[graph + 1] += ptr[graph];
  return falls;
}

// Sums and means of rows in any order; with `updates`, sums of rows and what `out` holds. Return 1, with `out` as it
// was, where the nodes lie graph by graph or the sums are too many or too wide: the other kernels are faster there.
int reduce_directly(const void* x, DType dtype, int64_t nodes, int64_t features, const void* index, int64_t bytes,
                    int64_t graphs, const Reductions& reductions, bool updates, void* out, int64_t threads) {
  if (!flag_works || dtype < kFloat32 || dtype > kBFloat16) return 1;
  if (graphs * ((features + 15) / 16 * 16) > (features <= 16 ? kNarrow : kWide)) return 1;
  Buffer<int64_t> copy(nodes), ptr(graphs + 1);
  int found = copy_index(index, bytes, nodes, graphs, copy.get(), ptr.get());
  if (found != 1) return found == 0 ? 1 : found;
  Buffer<unsigned char> broken(graphs);
  std::memset(broken.get(), 0, graphs);
  bool wrong = false;
  Graphs view{ptr.get(), graphs, nodes, features, nullptr, clamped(threads), flag_works, &wrong};
  chosen->reduce_directly(dtype, view, reductions, x, copy.get(), updates, broken.get(), out);
  if (!std::memchr(broken.get(), 1, graphs)) return 0;
  // the graphs whose sums were rounded: their rows, after the old one
  Buffer<int64_t> places(graphs + 1), order(nodes + graphs);
  int64_t place = 0;
  for (int64_t graph = 0; graph < graphs; ++graph) {
    int64_t count = ptr.get()[graph + 1] - ptr.get()[graph];
    ptr.get()[graph] = place;
    places.get()[graph] = place;
    if (!broken.get()[graph]) continue;
    if (updates) order.get()[places.get()[graph]++] = ~graph;
    place += count + updates;
  }
  view.nodes = ptr.get()[graphs] = place;
  for (int64_t node = 0; node < nodes; ++node) {
    int64_t graph = copy.get()[node];
    if (broken.get()[graph]) order.get()[places.get()[graph]++] = node;
  }
  view.order = order.get();
  chosen->update(dtype, view, reductions, x, nodes, out);
  return 0;
}

// Graphs from a caller's offsets and order.
class Batch {
 public:
  Batch(const int64_t* ptr, const int64_t* order, int64_t graphs, int64_t nodes, int64_t features, int64_t threads)
      : offsets_(graphs + 1),
        right_(copy_offsets(ptr, graphs, nodes, offsets_.get())),
        view_{offsets_.get(), graphs, nodes, features, order, clamped(threads), flag_works, &wrong_} {}
  bool right() const { return right_; }
  bool is_empty() const { return view_.graphs <= 0 || view_.features <= 0; }
  const Graphs& view() const { return view_; }
  int result() const { return wrong_ ? kIndexError : 0; }

 private:
  Buffer<int64_t> offsets_;
  bool right_, wrong_ = false;
  Graphs view_;
};

}  // namespace
}  // namespace readouts

using namespace readouts;

// Choose an instruction set by name, or the best one for null. Return its name, or null where it is not there.
READOUTS_API const char* readouts_choose(const char* wanted) {
  for (const Kernels* variant : variants)
    if ((!wanted || !std::strcmp(variant->name, wanted)) && variant->supported()) {
      chosen = variant;
      flag_works = variant->flag_works();
      return variant->name;
    }
  return nullptr;
}

READOUTS_API int readouts_flag_works() { return flag_works; }

// Certify by bounds alone, as where the flag does not work (for tests).
READOUTS_API void readouts_set_flag_works(int64_t works) { flag_works = works && chosen && chosen->flag_works(); }

// Work on the threads of a runtime that the process has already, given its GOMP_parallel; null for an own pool.
READOUTS_API void readouts_set_team(void* team) { set_team(reinterpret_cast<Team>(team)); }

// Set the default floating-point control word for the calling thread, and return the one before.
READOUTS_API int64_t readouts_default_word() {
  ControlWord::Word before = ControlWord::read();
  ControlWord::write(ControlWord::kDefault);
  return (int64_t)before;
}

READOUTS_API void readouts_restore_word(int64_t word) { ControlWord::write((ControlWord::Word)word); }

// Return the greatest entry of an index with at least one.
READOUTS_API int64_t readouts_greatest(const void* index, int64_t bytes, int64_t nodes) {
  return bytes == 4 ? find_greatest<int32_t>(index, nodes) : find_greatest<int64_t>(index, nodes);
}

// Write offsets [B + 1]; return 0 where the nodes lie graph by graph, 1 where an order is needed.
READOUTS_API int readouts_group(const void* index, int64_t bytes, int64_t nodes, int64_t graphs, int64_t* ptr) {
  int found = bytes == 4 ? find_offsets<int32_t>(index, nodes, graphs, ptr)
                         : find_offsets<int64_t>(index, nodes, graphs, ptr);
  if (found != 1) return found;
  found = bytes == 4 ? count_nodes<int32_t>(index, nodes, graphs, ptr)
                     : count_nodes<int64_t>(index, nodes, graphs, ptr);
  return found ? found : 1;
}

READOUTS_API int readouts_order(const void* index, int64_t bytes, int64_t nodes, int64_t graphs, const int64_t* ptr,
                                int64_t* order) {
  return bytes == 4 ? place_nodes<int32_t>(index, nodes, graphs, ptr, order)
                    : place_nodes<int64_t>(index, nodes, graphs, ptr, order);
}

READOUTS_API int readouts_expand_ptr(const int64_t* ptr, int64_t graphs, int64_t nodes, int64_t* index) {
  Buffer<int64_t> copy(graphs + 1);
  if (!copy_offsets(ptr, graphs, nodes, copy.get())) return kPtrError;
  for (int64_t graph = 0; graph < graphs; ++graph)
    for (int64_t node = copy.get()[graph]; node < copy.get()[graph + 1]; ++node) index[node] = graph;
  return 0;
}

READOUTS_API int readouts_reduce(const void* x, int64_t dtype, int64_t nodes, int64_t features, const int64_t* ptr,
                                 const int64_t* order, int64_t graphs, const int64_t* kinds, const int64_t* blocks,
                                 int64_t reductions, void* out, int64_t threads) {
  Batch batch(ptr, order, graphs, nodes, features, threads);
  if (!batch.right()) return kPtrError;
  if (dtype < kFloat64 || dtype > kBFloat16) return kDTypeError;
  if (batch.is_empty()) return 0;
  chosen->reduce((DType)dtype, batch.view(), {kinds, blocks, reductions}, x, out);
  return batch.result();
}

// The same from a batch vector alone; offsets and order are found on the way.
READOUTS_API int readouts_reduce_batch(const void* x, int64_t dtype, int64_t nodes, int64_t features, const void* index,
                                       int64_t bytes, int64_t graphs, const int64_t* kinds, const int64_t* blocks,
                                       int64_t reductions, void* out, int64_t threads) {
  Buffer<int64_t> ptr(graphs + 1);
  int found = readouts_group(index, bytes, nodes, graphs, ptr.get());
  if (found < 0) return found;
  if (found == 0)
    return readouts_reduce(x, dtype, nodes, features, ptr.get(), nullptr, graphs, kinds, blocks, reductions, out,
                           threads);
  if (reductions > 0 && kinds[reductions - 1] <= 1) {  // sums and means
    found = reduce_directly(x, (DType)dtype, nodes, features, index, bytes, graphs, {kinds, blocks, reductions}, false,
                            out, threads);
    if (found != 1) return found;
  }
  Buffer<int64_t> order(nodes);
  std::memset(order.get(), 0, nodes * sizeof(int64_t));
  found = readouts_order(index, bytes, nodes, graphs, ptr.get(), order.get());
  if (found < 0) return found;
  return readouts_reduce(x, dtype, nodes, features, ptr.get(), order.get(), graphs, kinds, blocks, reductions, out,
                         threads);
}

// Reduce rows of x into the rows [B, F] of a target that have any; kind is sum, mean, max or min. ptr [B + 1] and
// order [positions] list them; the entry ~i of order names row i of the target as it was.
READOUTS_API int readouts_update(const void* x, int64_t dtype, int64_t sources, int64_t features, const int64_t* ptr,
                                 const int64_t* order, int64_t positions, int64_t graphs, int64_t kind, void* target,
                                 int64_t threads) {
  Batch batch(ptr, order, graphs, positions, features, threads);
  if (!batch.right()) return kPtrError;
  if (dtype < kFloat64 || dtype > kBFloat16) return kDTypeError;
  if (batch.is_empty()) return 0;
  if (kind < 0 || kind > 3 || (!order && positions != sources)) return kIndexError;
  const int64_t block = 0;
  chosen->update((DType)dtype, batch.view(), {&kind, &block, 1}, x, sources, target);
  return batch.result();
}

// Add rows of x [nodes, F] to the rows of a target [B, F] that an index names. Return 1, with the target as it was,
// where `readouts_update` is faster.
READOUTS_API int readouts_add_rows(const void* x, int64_t dtype, int64_t nodes, int64_t features, const void* index,
                                   int64_t bytes, int64_t graphs, void* target, int64_t threads) {
  const int64_t kind = 0, block = 0;
  if (graphs <= 0 || features <= 0) return 1;
  return reduce_directly(x, (DType)dtype, nodes, features, index, bytes, graphs, {&kind, &block, 1}, true, target,
                         threads);
}

// Put the entry ~i before the nodes of every graph i that has any: new ptr [B + 1] and order [nodes + B at most].
READOUTS_API int readouts_list_old(const int64_t* ptr, const int64_t* order, int64_t graphs, int64_t nodes,
                                   int64_t* new_ptr, int64_t* new_order) {
  Buffer<int64_t> offsets(graphs + 1);
  if (!copy_offsets(ptr, graphs, nodes, offsets.get())) return kPtrError;
  int64_t place = 0;
  for (int64_t graph = 0; graph < graphs; ++graph) {
    int64_t begin = offsets.get()[graph], end = offsets.get()[graph + 1];
    new_ptr[graph] = place;
    if (begin < end) new_order[place++] = ~graph;
    for (int64_t position = begin; position < end; ++position) new_order[place++] = order ? order[position] : position;
  }
  new_ptr[graphs] = place;
  return 0;
}

// Return whether all bytes are 0.
READOUTS_API int readouts_is_zero(const unsigned char* memory, int64_t bytes) {
  return bytes == 0 || (memory[0] == 0 && std::memcmp(memory, memory + 1, bytes - 1) == 0);
}

// One reduction of integers to a block of the output, whose rows are `stride` numbers apart. `result` is the dtype of
// the output: int64 or that of x, or for all but sums and extremes, and for several reductions, float64 or float32.
READOUTS_API int readouts_reduce_integers(const void* x, int64_t dtype, int64_t result, int64_t nodes, int64_t features,
                                          const int64_t* ptr, const int64_t* order, int64_t graphs, int64_t kind,
                                          void* out, int64_t stride, int64_t threads) {
  Batch batch(ptr, order, graphs, nodes, features, threads);
  if (!batch.right()) return kPtrError;
  bool keeps = kind == 0 || kind == 2 || kind == 3;  // sums and extremes, which need no floating point
  bool known = result == kFloat64 || result == kFloat32 || (keeps && (result == kInt64 || (kind && result == dtype)));
  if (dtype < kInt64 || dtype > kUInt8 || !known) return kDTypeError;
  if (batch.is_empty()) return 0;
  chosen->reduce_integers((DType)dtype, (DType)result, batch.view(), kind, x, out, stride);
  return batch.result();
}

READOUTS_API int readouts_reduce_backward(const void* grad, const void* x, const void* out, int64_t dtype, int64_t nodes,
                                          int64_t features, const int64_t* ptr, const int64_t* order,
                                          const int64_t* index, int64_t graphs, const int64_t* kinds,
                                          const int64_t* blocks, int64_t reductions, void* result, int64_t threads) {
  Batch batch(ptr, order, graphs, nodes, features, threads);
  if (!batch.right()) return kPtrError;
  if (dtype < kFloat64 || dtype > kBFloat16) return kDTypeError;
  if (batch.is_empty()) return 0;
  chosen->reduce_backward((DType)dtype, batch.view(), {kinds, blocks, reductions}, grad, x, out, index, result);
  return batch.result();
}

// The same from a batch vector alone. The gradient of a sum needs no offsets.
READOUTS_API int readouts_reduce_backward_batch(const void* grad, const void* x, const void* out, int64_t dtype,
                                                int64_t nodes, int64_t features, const void* index, int64_t bytes,
                                                int64_t graphs, const int64_t* kinds, const int64_t* blocks,
                                                int64_t reductions, void* result, int64_t threads) {
  if (graphs <= 0 || features <= 0) return 0;
  Buffer<int64_t> wide(bytes == 4 ? nodes : 0), ptr(graphs + 1);
  const int64_t* graph_of = static_cast<const int64_t*>(index);
  if (bytes == 4) {
    for (int64_t node = 0; node < nodes; ++node) wide.get()[node] = read_index<int32_t>(index, node);
    graph_of = wide.get();
  }
  int found = readouts_group(graph_of, 8, nodes, graphs, ptr.get());
  if (found < 0) return found;
  if (found == 1 && kinds[reductions - 1] > 1) {  // other gradients than those of sums and means go by graphs
    Buffer<int64_t> nodes_of(nodes);
    std::memset(nodes_of.get(), 0, nodes * sizeof(int64_t));
    found = readouts_order(graph_of, 8, nodes, graphs, ptr.get(), nodes_of.get());
    if (found < 0) return found;
    return readouts_reduce_backward(grad, x, out, dtype, nodes, features, ptr.get(), nodes_of.get(), graph_of, graphs,
                                    kinds, blocks, reductions, result, threads);
  }
  // an order that is not null says that nodes take their rows by index
  return readouts_reduce_backward(grad, x, out, dtype, nodes, features, ptr.get(), found == 1 ? graph_of : nullptr,
                                  graph_of, graphs, kinds, blocks, reductions, result, threads);
}

// Order statistics; means of the first two have the dtype `result`: that of floats, float64 or float32 for integers.
READOUTS_API int readouts_select(const void* x, int64_t dtype, int64_t result, int64_t nodes, int64_t features, const int64_t* ptr,
                                 const int64_t* order, int64_t graphs, const int64_t* ranks, int64_t count, void* out,
                                 void* means, int64_t threads) {
  Batch batch(ptr, order, graphs, nodes, features, threads);
  if (!batch.right()) return kPtrError;
  bool known = dtype <= kBFloat16 ? result == dtype : result == kFloat64 || result == kFloat32;
  if (dtype < kFloat64 || dtype > kUInt8 || !known) return kDTypeError;
  if (batch.is_empty()) return 0;
  chosen->select((DType)dtype, (DType)result, batch.view(), x, ranks, count, out, means);
  return batch.result();
}

READOUTS_API int readouts_keep(const void* x, int64_t dtype, int64_t nodes, int64_t features, const int64_t* ptr,
                               const int64_t* order, int64_t graphs, const void* bounds, const int64_t* cut,
                               const int64_t* kept_ptr, void* kept, int64_t threads) {
  Batch batch(ptr, order, graphs, nodes, features, threads);
  if (!batch.right()) return kPtrError;
  if (dtype < kFloat64 || dtype > kUInt8) return kDTypeError;
  if (batch.is_empty()) return 0;
  chosen->keep((DType)dtype, batch.view(), x, bounds, cut, kept_ptr, kept);
  return batch.result();
}

READOUTS_API int readouts_trim_backward(const void* x, int64_t dtype, int64_t nodes, int64_t features, const int64_t* ptr,
                                        const int64_t* order, int64_t graphs, const void* bounds, const int64_t* cut,
                                        const void* grad, void* result, int64_t threads) {
  Batch batch(ptr, order, graphs, nodes, features, threads);
  if (!batch.right()) return kPtrError;
  if (dtype < kFloat64 || dtype > kBFloat16) return kDTypeError;
  if (batch.is_empty()) return 0;
  chosen->trim_backward((DType)dtype, batch.view(), x, bounds, cut, grad, result);
  return batch.result();
}

// Weighted means [B, F] and the sums of the weights, [B, 1] if shared, else [B, F], in float64; weights are [N] or
// [N, F].
READOUTS_API int readouts_weighted_mean(const void* x, int64_t dtype, int64_t nodes, int64_t features,
                                        const int64_t* ptr, const int64_t* order, int64_t graphs, const void* weight,
                                        int64_t shared, double* means, double* totals, int64_t threads) {
  Batch batch(ptr, order, graphs, nodes, features, threads);
  if (!batch.right()) return kPtrError;
  if (dtype < kFloat64 || dtype > kBFloat16) return kDTypeError;
  if (batch.is_empty()) return 0;
  chosen->weighted_mean((DType)dtype, batch.view(), x, weight, shared != 0, means, totals);
  return batch.result();
}

READOUTS_API int readouts_scale_rows(const double* table, const int64_t* index, int64_t graphs, const void* weight,
                                     int64_t dtype, int64_t shared, int64_t nodes, int64_t features, void* result,
                                     int64_t threads) {
  if (graphs <= 0 || features <= 0) return 0;
  bool wrong = false;
  Graphs view{nullptr, graphs, nodes, features, nullptr, (int)threads, flag_works, &wrong};
  chosen->scale_rows((DType)dtype, view, table, index, weight, shared != 0, result);
  return wrong ? kIndexError : 0;
}

READOUTS_API int readouts_weight_gradient(const double* slopes, const double* means, const int64_t* index,
                                          int64_t graphs, const void* x, const void* weight, int64_t dtype,
                                          int64_t shared, int64_t nodes, int64_t features, void* result,
                                          int64_t threads) {
  if (graphs <= 0 || features <= 0) return 0;
  bool wrong = false;
  Graphs view{nullptr, graphs, nodes, features, nullptr, (int)threads, flag_works, &wrong};
  auto gradient = shared ? chosen->shared_weight_gradient : chosen->weight_gradient;
  gradient((DType)dtype, view, slopes, means, index, x, weight, result);
  return wrong ? kIndexError : 0;
}

READOUTS_API int readouts_add_limbs(const void* rows, int64_t bytes, const int64_t* index, int64_t nodes, int64_t features,
                                    int64_t* limbs, int64_t count, int64_t graphs, int64_t stored, int64_t top,
                                    int64_t place, int64_t power, int64_t threads) {
  struct Call {
    const void* rows;
    int64_t bytes;
    const int64_t* index;
    int64_t nodes, features;
    int64_t* limbs;
    int64_t count, graphs;
    LimbLayout layout;
    int tasks;
    mutable bool right;
  } call{rows, bytes, index, nodes, features, limbs, count, graphs, {stored, top, place, power}, 1, true};
  if (graphs <= 0 || features <= 0) return 0;
  int64_t most = features / 8;  // features from which a thread of its own writes to other cache lines
  call.tasks = (int)(most < 1 || threads < 1 ? 1 : (threads < most ? threads : most));
  run_in_parallel(
      call.tasks,
      [](const void* context, int task) {
        const Call& c = *static_cast<const Call*>(context);
        if (!add_limbs(c.rows, c.bytes, c.index, c.nodes, c.features, c.limbs, c.count, c.graphs, c.layout,
                       c.features * task / c.tasks, c.features * (task + 1) / c.tasks))
          __atomic_store_n(&c.right, false, __ATOMIC_RELAXED);
      },
      &call);
  return call.right ? 0 : kIndexError;
}
