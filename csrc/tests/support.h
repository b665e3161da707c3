// What the tests of the core are made of: checks, guarded memory, number formats, and exact sums.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <limits>
#include <string>
#include <vector>

inline std::string context;     // the case at work, printed with a failure
inline std::string difference;  // of the last comparison that failed
inline std::atomic<int> failures{0};

// Report the first failures of a check.
inline void fail(std::atomic<int>& count, const char* file, int line, const char* condition) {
  ++failures;
  if (++count <= 3) std::printf("%s:%d: %s  [%s] %s\n", file, line, condition, context.c_str(), difference.c_str());
  difference.clear();
}

#define CHECK(condition)                                             \
  do {                                                               \
    static std::atomic<int> failed{0};                               \
    if (!(condition)) fail(failed, __FILE__, __LINE__, #condition);  \
  } while (false)

// Memory between two pages that cannot be accessed: a read or write past its end is a segmentation fault, and a
// write before its start is found when it is released.
template <class T>
class Guarded {
 public:
  explicit Guarded(int64_t count) : count_(count) {
    int64_t page = sysconf(_SC_PAGESIZE), bytes = count * (int64_t)sizeof(T);
    length_ = (bytes + page - 1) / page * page;
    pages_ = static_cast<char*>(mmap(nullptr, length_ + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (pages_ == MAP_FAILED || (length_ && mprotect(pages_ + page, length_, PROT_READ | PROT_WRITE))) std::abort();
    before_ = pages_ + page;
    data_ = reinterpret_cast<T*>(before_ + length_ - bytes);
    std::memset(before_, kCanary, length_);
  }
  explicit Guarded(const std::vector<T>& values) : Guarded((int64_t)values.size()) {
    std::copy(values.begin(), values.end(), data_);
  }
  ~Guarded() {
    CHECK(intact());
    munmap(pages_, length_ + 2 * sysconf(_SC_PAGESIZE));
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  T* get() const { return data_; }
  T& operator[](int64_t at) const { return data_[at]; }
  int64_t size() const { return count_; }
  void poison() const { std::memset(static_cast<void*>(data_), kCanary, count_ * sizeof(T)); }
  bool untouched() const {  // since it was poisoned
    const unsigned char* bytes = reinterpret_cast<const unsigned char*>(data_);
    return std::all_of(bytes, bytes + count_ * sizeof(T), [](unsigned char byte) { return byte == kCanary; });
  }
  bool intact() const {
    const unsigned char* first = reinterpret_cast<const unsigned char*>(before_);
    return std::all_of(first, reinterpret_cast<const unsigned char*>(data_),
                       [](unsigned char byte) { return byte == kCanary; });
  }

 private:
  static constexpr unsigned char kCanary = 0xA5;
  char *pages_, *before_;
  T* data_;
  int64_t count_, length_;
};

// xorshift64*
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15 + 1) {}
  uint64_t bits() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545F4914F6CDD1D;
  }
  int64_t below(int64_t limit) { return (int64_t)((bits() >> 11) % (uint64_t)limit); }
  double unit() { return (double)(bits() >> 11) * 0x1p-53; }
  double normal() {  // nearly
    double total = 0.0;
    for (int i = 0; i < 6; ++i) total += unit() - 0.5;
    return total;
  }

 private:
  uint64_t state_;
};

struct float16 {
  uint16_t bits;
};
struct bfloat16 {
  uint16_t bits;
};

// A binary floating-point format: bits of the mantissa, exponents of its last subnormal bit and of infinity.
struct Format {
  int digits, lowest, infinity;
};

template <class T>
struct Type;

template <>
struct Type<double> {
  using Bits = uint64_t;
  static constexpr int code = 0;
  static constexpr Format format = {53, -1074, 1024};
  static constexpr const char* name = "float64";
};
template <>
struct Type<float> {
  using Bits = uint32_t;
  static constexpr int code = 1;
  static constexpr Format format = {24, -149, 128};
  static constexpr const char* name = "float32";
};
template <>
struct Type<float16> {
  using Bits = uint16_t;
  static constexpr int code = 2;
  static constexpr Format format = {11, -24, 16};
  static constexpr const char* name = "float16";
};
template <>
struct Type<bfloat16> {
  using Bits = uint16_t;
  static constexpr int code = 3;
  static constexpr Format format = {8, -133, 128};
  static constexpr const char* name = "bfloat16";
};

// Return the bits of a number of a format, given as float64; NaN is the default NaN.
inline uint64_t encode(double value, const Format& format, int width) {
  int stored = format.digits - 1;
  uint64_t sign = (uint64_t)std::signbit(value) << (width - 1);
  uint64_t infinity = (((uint64_t)1 << (width - 1 - stored)) - 1) << stored;
  if (std::isnan(value)) return infinity | (uint64_t)1 << (stored - 1);
  if (std::isinf(value)) return sign | infinity;
  if (value == 0.0) return sign;
  int exponent;
  std::frexp(value, &exponent);                                          // |value| in [2**(e-1), 2**e)
  int unit = std::max(exponent - format.digits, format.lowest);
  uint64_t mantissa = (uint64_t)std::ldexp(std::fabs(value), -unit);
  return sign | (mantissa + ((uint64_t)(unit - format.lowest) << stored));  // the implicit bit adds one
}

inline double decode(uint64_t bits, const Format& format, int width) {
  int stored = format.digits - 1;
  uint64_t top = ((uint64_t)1 << (width - 1 - stored)) - 1, exponent = bits >> stored & top;
  uint64_t mantissa = bits & (((uint64_t)1 << stored) - 1);
  double size;
  if (exponent == top)
    size = mantissa ? NAN : INFINITY;
  else if (exponent == 0)
    size = std::ldexp((double)mantissa, format.lowest);
  else
    size = std::ldexp((double)(mantissa | (uint64_t)1 << stored), format.lowest + (int)exponent - 1);
  return bits >> (width - 1) & 1 ? -size : size;
}

template <class T>
typename Type<T>::Bits bits_of(T value) {
  typename Type<T>::Bits bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

template <class T>
T number(double value) {  // a number that T holds
  auto bits = (typename Type<T>::Bits)encode(value, Type<T>::format, 8 * sizeof(T));
  T result;
  std::memcpy(static_cast<void*>(&result), &bits, sizeof(bits));
  return result;
}

template <class T>
double value_of(T number) {
  return decode(bits_of(number), Type<T>::format, 8 * sizeof(T));
}

// Round float64 to a format, ties to even; a zero is +0.
inline double rounded(double value, const Format& format) {
  if (std::isnan(value) || std::isinf(value)) return value;
  int exponent;
  std::frexp(value, &exponent);
  if (value == 0.0) return 0.0;
  int unit = std::max(exponent - format.digits, format.lowest);
  double result = format.digits == 53 ? value : std::ldexp(std::nearbyint(std::ldexp(value, -unit)), unit);
  if (std::fabs(result) >= std::ldexp(1.0, format.infinity - 1) * 2.0) result = std::copysign(INFINITY, value);
  return result + 0.0;
}

// An exact sum as two unsigned integers, of positive and of negative numbers, in units of 2**kUnit.
class Exact {
 public:
  static constexpr int kUnit = -2304, kDigits = 148;

  Exact() : sums_{std::vector<uint32_t>(kDigits), std::vector<uint32_t>(kDigits)} {}

  void add(unsigned __int128 magnitude, int exponent, bool negative) {
    int place = exponent - kUnit;
    for (int part = 0; part < 4; ++part) {
      uint64_t value = (uint64_t)(uint32_t)(magnitude >> (32 * part)) << (place % 32);
      for (int at = place / 32 + part; value; ++at) {
        value += sums_[negative][at];
        sums_[negative][at] = (uint32_t)value;
        value >>= 32;
      }
    }
  }

  void add(double value) {  // finite
    int exponent;
    double mantissa = std::frexp(value, &exponent);
    add((unsigned __int128)(uint64_t)std::ldexp(std::fabs(mantissa), 53), exponent - 53, value < 0.0);
  }

  // Return the sum divided by n, rounded to a format, ties to even; a zero is +0.
  double divided(uint64_t n, const Format& format) const {
    std::vector<uint32_t> size(kDigits + 4);  // four more digits for the bits of the quotient below the unit
    bool negative = false;
    for (int at = kDigits - 1; at >= 0; --at)
      if (sums_[0][at] != sums_[1][at]) {
        negative = sums_[1][at] > sums_[0][at];
        break;
      }
    int64_t borrow = 0;
    for (int at = 0; at < kDigits; ++at) {
      int64_t digit = (int64_t)sums_[negative][at] - sums_[!negative][at] + borrow;
      borrow = digit < 0 ? -1 : 0;
      size[at + 4] = (uint32_t)digit;
    }
    unsigned __int128 rest = 0;
    for (int at = kDigits + 3; at >= 0; --at) {
      rest = rest << 32 | size[at];
      size[at] = (uint32_t)(rest / n);
      rest %= n;
    }
    auto bit = [&](int at) { return at >= 0 && (size[at / 32] >> (at % 32) & 1); };
    int top = 32 * (kDigits + 4) - 1;
    while (top >= 0 && !bit(top)) top -= top % 32 == 31 && size[top / 32] == 0 ? 32 : 1;
    if (top < 0) return 0.0;
    int lowest = kUnit - 128;  // exponent of bit 0
    int unit = std::max(lowest + top - format.digits + 1, format.lowest), cut = unit - lowest;
    uint64_t mantissa = 0;
    for (int at = top; at >= cut; --at) mantissa = mantissa << 1 | (uint64_t)bit(at);
    bool half = bit(cut - 1), below = rest != 0;
    for (int at = cut - 2; at >= 0 && !below; --at) below = bit(at);
    mantissa += half && (below || (mantissa & 1));
    double result = std::ldexp((double)mantissa, unit);
    if (result >= std::ldexp(1.0, format.infinity - 1) * 2.0) result = INFINITY;
    return mantissa == 0 ? 0.0 : negative ? -result : result;
  }

  bool operator==(const Exact& other) const { return same(other); }

 private:
  std::vector<uint32_t> sums_[2];

  Exact difference(const Exact& other) const {
    Exact result = *this;
    for (int sign = 0; sign < 2; ++sign)
      for (int at = 0; at < kDigits; ++at)
        if (other.sums_[sign][at]) result.add(other.sums_[sign][at], kUnit + 32 * at, !sign);
    return result;
  }
  bool same(const Exact& other) const {
    Exact rest = difference(other);
    return rest.sums_[0] == rest.sums_[1];
  }
};

// Write to the control word of this thread's floating-point unit, and restore it.
#if defined(__x86_64__)
#include <xmmintrin.h>
inline uint64_t read_word() { return _mm_getcsr(); }
inline void write_word(uint64_t word) { _mm_setcsr((uint32_t)word); }
constexpr uint64_t kStrangeWord = 0x1F80 | 0x8000 | 0x0040 | 0x2000;  // flush to zero, denormals are zero, round down
#else
inline uint64_t read_word() {
  uint64_t word;
  asm volatile("mrs %0, fpcr" : "=r"(word));
  return word;
}
inline void write_word(uint64_t word) { asm volatile("msr fpcr, %0" ::"r"(word) : "memory"); }
constexpr uint64_t kStrangeWord = (1 << 24) | (2 << 22);  // flush to zero, round down
#endif
