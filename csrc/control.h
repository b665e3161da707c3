// The floating-point control word: set for the duration of a task, and the inexact flag that certifies sums.
#pragma once
#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace readouts {

// Round to nearest, all exceptions masked, no flushing of subnormal numbers; restores the caller's word.
class ControlWord {
 public:
  ControlWord() : before_(read()) { write(kDefault); }
  ~ControlWord() { write(before_); }
  ControlWord(const ControlWord&) = delete;
  ControlWord& operator=(const ControlWord&) = delete;

#if defined(__x86_64__)
  using Word = uint32_t;
  static constexpr Word kDefault = 0x1F80;
  static Word read() { return _mm_getcsr(); }
  static void write(Word word) { _mm_setcsr(word); }
#elif defined(__aarch64__)
  using Word = uint64_t;
  static constexpr Word kDefault = 0;
  static Word read() {
    Word word;
    asm volatile("mrs %0, fpcr" : "=r"(word));
    return word;
  }
  static void write(Word word) { asm volatile("msr fpcr, %0" ::"r"(word)); }
#else
#error "readouts: no control word known for this processor"
#endif

 private:
  Word before_;
};

// IEEE 754's sticky flag: clear after `clear_inexact` if and only if no operation in between was rounded.
// The memory clobbers keep loads below the clearing and stores above the reading: see docs/exactness.md.
#if defined(__x86_64__)
inline void clear_inexact() {
  uint32_t word = 0x1F80;
  asm volatile("ldmxcsr %0" ::"m"(word) : "memory");
}

inline bool is_inexact() {
  uint32_t word;
  asm volatile("stmxcsr %0" : "=m"(word)::"memory");
  return word & 0x20;
}
#elif defined(__aarch64__)
inline void clear_inexact() {
  uint64_t word = 0;
  asm volatile("msr fpsr, %0" ::"r"(word) : "memory");
}

inline bool is_inexact() {
  uint64_t word;
  asm volatile("mrs %0, fpsr" : "=r"(word)::"memory");
  return word & 0x10;
}
#endif

}  // namespace readouts
