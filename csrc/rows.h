// How a kernel sees a batch: rows of node features, graph by graph, and scratch memory that is kept.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <new>

#include "pool.h"
#include "vectors.h"

namespace readouts {
namespace READOUTS_ISA {

constexpr int64_t kAhead = 16;         // positions by which listed rows are prefetched
constexpr int64_t kAheadBytes = 4096;  // bytes by which rows that lie in order are prefetched

// Rows that lie one after the other.
template <class T>
struct Contiguous {
  const T* x;
  int64_t features;
  READOUTS_INLINE int64_t node(int64_t position) const { return position; }
  READOUTS_INLINE const T* at(int64_t position) const { return x + position * features; }
  READOUTS_INLINE void prefetch(int64_t position, int64_t column, int64_t count) const {
    const char* ahead = reinterpret_cast<const char*>(at(position) + column) + kAheadBytes;
    for (int64_t byte = 0; byte < count * (int64_t)sizeof(T); byte += 64) __builtin_prefetch(ahead + byte);
  }
};

// Rows in the order of an index list; an entry that names no row reads row 0 and is reported in `wrong`. The entry
// ~i, with all bits of i inverted, names row i of `old`.
template <class T>
struct Listed {
  const T* x;
  int64_t features, nodes;
  const int64_t* order;
  bool* wrong;
  const T* old = nullptr;
  int64_t olds = 0;

  READOUTS_INLINE int64_t node(int64_t position) const {
    int64_t node = reinterpret_cast<const volatile int64_t*>(order)[position];
    if (__builtin_expect((uint64_t)node >= (uint64_t)nodes, 0)) {
      __atomic_store_n(wrong, true, __ATOMIC_RELAXED);
      return 0;
    }
    return node;
  }
  READOUTS_INLINE const T* at(int64_t position) const {
    int64_t node = reinterpret_cast<const volatile int64_t*>(order)[position];
    if (__builtin_expect((uint64_t)node < (uint64_t)nodes, 1)) return x + node * features;
    if ((uint64_t)~node < (uint64_t)olds) return old + ~node * features;
    __atomic_store_n(wrong, true, __ATOMIC_RELAXED);
    return x;
  }
  READOUTS_INLINE void prefetch(int64_t position, int64_t column, int64_t count) const {
    int64_t ahead = position + kAhead;
    if (ahead >= nodes) return;
    int64_t node = reinterpret_cast<const volatile int64_t*>(order)[ahead];
    uint64_t address = (uint64_t)x + ((uint64_t)node * features + column) * sizeof(T);  // may lie anywhere
    for (int64_t byte = 0; byte < count * (int64_t)sizeof(T); byte += 64)
      __builtin_prefetch(reinterpret_cast<const void*>(address + byte));
  }
};

// Memory of a thread that is kept between calls and handed out in aligned pieces.
class Scratch {
 public:
  ~Scratch() { std::free(memory_); }

  void reserve(int64_t bytes) {
    used_ = 0;
    if (bytes <= size_) return;
    std::free(memory_);
    size_ = 0;
    memory_ = static_cast<char*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64));
    if (!memory_) std::abort();
    size_ = bytes;
  }

  template <class U>
  U* take(int64_t count) {
    U* piece = reinterpret_cast<U*>(memory_ + used_);
    used_ += (count * (int64_t)sizeof(U) + 63) / 64 * 64;
    return piece;
  }

  void release(int64_t limit) {  // keep no more than so many bytes
    if (size_ <= limit) return;
    std::free(memory_);
    memory_ = nullptr;
    size_ = 0;
  }

 private:
  char* memory_ = nullptr;
  int64_t size_ = 0, used_ = 0;
};

constexpr int64_t kKept = 1 << 22;  // bytes of scratch memory that a thread keeps

// The scratch memory of the calling thread, emptied and made at least so large.
inline Scratch& thread_scratch(int64_t bytes) {
  thread_local Scratch scratch;
  scratch.release(kKept);
  scratch.reserve(bytes);
  return scratch;
}

// Call task(0), ..., task(tasks - 1) on the threads of the pool.
template <class Task>
void parallel(int tasks, const Task& task) {
  run_in_parallel(tasks, [](const void* context, int number) { (*static_cast<const Task*>(context))(number); }, &task);
}

}  // namespace READOUTS_ISA
}  // namespace readouts
