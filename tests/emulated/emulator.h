// What the C++ made of a PTX kernel stands on: registers as bits, checked memory, and threads that wait.
//
// The generated source defines THREADS, PARAMETERS and BLOCKS, includes this file, and defines
// `Thread` (its registers), `step` (runs a thread until it waits or ends) and DEFINE_RUN.
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;
typedef __int128 s128;
typedef unsigned __int128 u128;

// ---- numbers ----------------------------------------------------------------------------------------------

template <class To, class From> static inline To bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "a reinterpretation keeps the size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
static inline double f64(u64 x) { return bits<double>(x); }
static inline float f32(u32 x) { return bits<float>(x); }
static inline float bf16(u16 x) { return f32((u32)x << 16); }
static inline float f16(u16 x) {
    u32 sign = (x & 0x8000u) << 16, exponent = (x >> 10) & 31, mantissa = x & 1023;
    if (exponent == 31) return f32(mantissa ? 0x7fffffffu : sign | 0x7f800000u);
    if (exponent) return f32(sign | (exponent + 112) << 23 | mantissa << 13);
    float value = (float)mantissa * 0x1p-24f;
    return sign ? -value : value;
}
// The device returns one NaN whatever came in; its payload is not that of the CPU.
static inline u64 from_f64(double x) { return bits<u64>(x); }
static inline u32 from_f32(float x) { return x != x ? 0x7fffffffu : bits<u32>(x); }
static inline u16 from_f16(float x) {
    u16 sign = (u16)(bits<u32>(x) >> 16 & 0x8000u);
    double size = fabs((double)x);
    if (size != size) return 0x7fff;
    if (size >= 65520) return sign | 0x7c00;
    int exponent;
    frexp(size, &exponent);
    exponent = exponent - 1 < -14 || size == 0 ? -14 : exponent - 1;
    u32 units = (u32)nearbyint(ldexp(size, 10 - exponent));
    return sign | (u16)(exponent == -14 ? units : ((u32)(exponent + 15) << 10) + units - 1024);
}
static inline u16 from_bf16(float x) {
    u32 all = bits<u32>(x);
    return x != x ? 0x7fff : (u16)((all + 0x7fffu + (all >> 16 & 1)) >> 16);
}
static inline u64 widened(u32 x) { return f32(x) != f32(x) ? 0x7fffffffe0000000ull : from_f64(f32(x)); }
template <class T> static inline T least(T a, T b) {
    return a != a ? b : b != b ? a : a == b ? (signbit(a) ? a : b) : a < b ? a : b;
}
template <class T> static inline T greatest(T a, T b) {
    return a != a ? b : b != b ? a : a == b ? (signbit(a) ? b : a) : a < b ? b : a;
}
template <class T> static inline T saturated(double x) {
    const double end = ldexp(1.0, 8 * sizeof(T) - ((T)-1 < 0));
    const double begin = (T)-1 < 0 ? -end : 0;
    T top = (T)-1 < 0 ? (T)(((u64)1 << (8 * sizeof(T) - 1)) - 1) : (T)-1;
    return x != x ? 0 : x >= end ? top : x < begin ? (T)begin : (T)x;
}
template <class T> static inline T quotient(T a, T b) {  // a division by 0 is no exception on the device
    return b == 0 ? (T)-1 : (b == (T)-1 && (T)-1 < 0) ? (T)(0 - (u64)a) : a / b;
}
template <class T> static inline T remainder_of(T a, T b) {
    return b == 0 ? a : (b == (T)-1 && (T)-1 < 0) ? 0 : a % b;
}
static inline u32 permuted(u32 low, u32 high, u32 selector) {
    u64 both = (u64)high << 32 | low;
    u32 found = 0;
    for (int k = 0; k < 4; k++) {
        u32 chosen = selector >> (4 * k) & 15, byte = both >> (8 * (chosen & 7)) & 255;
        found |= (chosen & 8 ? (byte & 128 ? 255u : 0u) : byte) << (8 * k);
    }
    return found;
}
static inline u64 field_of(u64 value, u32 position, u32 length, int width, bool is_signed) {
    position &= 255, length &= 255;
    if (length == 0 || (!is_signed && position >= (u32)width)) return 0;
    u64 top = position + length > (u32)width ? width - 1 : position + length - 1;
    u64 sign = is_signed ? value >> (top < (u32)width ? top : width - 1) & 1 : 0;
    u64 found = position < (u32)width ? value >> position : 0;
    u32 kept = position >= (u32)width ? 0 : length < (u32)width - position ? length : width - position;
    u64 mask = kept >= 64 ? ~0ull : (1ull << kept) - 1;
    return (found & mask) | (sign ? ~mask : 0);
}
static inline u32 chosen(u32 a, u32 b, u32 c, u32 table) {  // lop3
    u32 found = 0;
    for (int k = 0; k < 8; k++)
        if (table >> k & 1) found |= (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
    return found;
}

// ---- memory -----------------------------------------------------------------------------------------------

template <class T> static inline T get(const u8* place) {
    T value;
    memcpy(&value, place, sizeof value);
    return value;
}
template <class T> static inline void put(u8* place, T value) { memcpy(place, &value, sizeof value); }

struct Range { u64 begin, end; };
enum Fault { NONE, OUTSIDE, MISALIGNED, SHARED, ASSERTION, APART, STUCK };
enum { SECTOR = 32, LOADED = 1, STORED = 2 };  // bytes that memory moves at once
struct Report { u64 programs, loaded, stored, fault, address, statement; };

struct Launch {
    const Range* ranges;
    int count;
    u8* shared;
    u32 shared_size;
    Report* report;
    u8** touched;        // of each range, whether its sectors were loaded or stored
    u64 blocks[BLOCKS];  // how often a first lane entered a basic block

    [[noreturn]] void fault(Fault kind, u64 address, int statement) {
        report->fault = kind, report->address = address, report->statement = statement;
        throw kind;
    }
    u8* global(u64 address, int bytes, int statement, int how) {
        if (address % bytes) fault(MISALIGNED, address, statement);
        for (int k = 0; k < count; k++)
            if (address >= ranges[k].begin && address + bytes <= ranges[k].end) {
                u8& sector = touched[k][address / SECTOR - ranges[k].begin / SECTOR];
                if (~sector & how) sector |= how, (how == LOADED ? report->loaded : report->stored) += SECTOR;
                return (u8*)address;
            }
        fault(OUTSIDE, address, statement);
    }
    u8* load(u64 address, int bytes, int statement) { return global(address, bytes, statement, LOADED); }
    u8* store(u64 address, int bytes, int statement) { return global(address, bytes, statement, STORED); }
    u8* local(u32 address, int bytes, int statement) {
        if (address % bytes || (u64)address + bytes > shared_size) fault(SHARED, address, statement);
        return shared + address;
    }
};

struct Grid { u32 width, height, begin, end; };
struct Program { u32 x, y, width, height; u64 parameters[PARAMETERS]; };

// ---- threads ----------------------------------------------------------------------------------------------

enum Wait {
    RUNS, BARRIER, SYNC,
    BUTTERFLY, INDEXED, UP, DOWN,
    VOTE, LEAST_S, GREATEST_S, LEAST_U, GREATEST_U, ADD, AND, OR, XOR,
    LOAD_MATRIX, LOAD_TRANSPOSED, STORE_MATRIX, STORE_TRANSPOSED,
    DONE
};

struct Waiting {  // what a thread shows to the others of its warp
    u32 tid;
    int at, wait;
    u32 x, y, z;
    u8 found;
    u32 matrix[4];
};

template <class Thread> static void shuffle(Thread* warp, int kind) {
    u32 x[32];
    for (int lane = 0; lane < 32; lane++) x[lane] = warp[lane].x;
    for (int lane = 0; lane < 32; lane++) {
        int by = warp[lane].y & 31, clamp = warp[lane].z & 31, mask = warp[lane].z >> 8 & 31;
        int most = (lane & mask) | (clamp & ~mask);
        int named = (lane & mask) | (by & ~mask);
        int from = kind == UP ? lane - by : kind == DOWN ? lane + by : kind == BUTTERFLY ? lane ^ by : named;
        bool found = kind == UP ? from >= most : from <= most;
        warp[lane].found = found, warp[lane].x = x[found ? from : lane];
    }
}

template <class Thread> static void combine(Thread* warp, int kind) {
    u32 all = warp[0].x;
    for (int lane = 1; lane < 32; lane++) {
        u32 x = warp[lane].x;
        switch (kind) {
            case LEAST_S: all = (s32)x < (s32)all ? x : all; break;
            case GREATEST_S: all = (s32)x > (s32)all ? x : all; break;
            case LEAST_U: all = x < all ? x : all; break;
            case GREATEST_U: all = x > all ? x : all; break;
            case ADD: all += x; break;
            case AND: all &= x; break;
            case OR: all |= x; break;
            case XOR: all ^= x; break;
        }
    }
    if (kind == VOTE) {
        all = 0;
        for (int lane = 0; lane < 32; lane++) all |= (u32)(warp[lane].x != 0) << lane;
    }
    for (int lane = 0; lane < 32; lane++) warp[lane].x = all;
}

// 8 x 8 matrices of 16 bits: lane 8 m + r has the address of row r of matrix m; a lane holds two numbers.
template <class Thread> static void move_matrices(Thread* warp, int kind, Launch& launch) {
    bool transposed = kind == LOAD_TRANSPOSED || kind == STORE_TRANSPOSED;
    bool loads = kind == LOAD_MATRIX || kind == LOAD_TRANSPOSED;
    for (int m = 0; m < (int)warp[0].z; m++)
        for (int lane = 0; lane < 32; lane++)
            for (int half = 0; half < 2; half++) {
                int row = lane / 4, column = 2 * (lane % 4) + half;
                if (transposed) { int t = row; row = column, column = t; }
                u8* place = launch.local(warp[8 * m + row].y + 2 * column, 2, 0);
                u8* part = (u8*)&warp[lane].matrix[m] + 2 * half;
                memcpy(loads ? part : place, loads ? place : part, 2);
            }
}

// Let a warp go on if all of its lanes wait for each other at one place.
template <class Thread> static bool exchange(Thread* warp, Launch& launch) {
    int kind = warp[0].wait;
    if (kind == RUNS || kind == BARRIER || kind == DONE) return false;
    for (int lane = 1; lane < 32; lane++)
        if (warp[lane].wait != kind || warp[lane].at != warp[0].at) return false;
    if (kind == BUTTERFLY || kind == INDEXED || kind == UP || kind == DOWN) shuffle(warp, kind);
    else if (kind >= LOAD_MATRIX) move_matrices(warp, kind, launch);
    else if (kind != SYNC) combine(warp, kind);
    for (int lane = 0; lane < 32; lane++) warp[lane].wait = RUNS;
    return true;
}

// Whether all threads are done; lets those go on that have met at a barrier.
template <class Thread> static bool met(Thread* threads, Launch& launch) {
    int waiting = 0, done = 0;
    for (int k = 0; k < THREADS; k++) waiting += threads[k].wait == BARRIER, done += threads[k].wait == DONE;
    if (done == THREADS) return true;
    if (waiting < THREADS) launch.fault(STUCK, done, 0);
    for (int k = 0; k < THREADS; k++) {
        if (threads[k].at != threads[0].at) launch.fault(APART, k, 0);
        threads[k].wait = RUNS;
    }
    return false;
}

template <class Thread, class Step> static void run_program(
    Step step, Thread* threads, Program& program, Launch& launch, bool reverse) {
    memset(launch.shared, 0xEE, launch.shared_size);
    memset((void*)threads, 0xDD, sizeof(Thread) * THREADS);
    for (int k = 0; k < THREADS; k++) threads[k].tid = k, threads[k].at = 0, threads[k].wait = RUNS;
    for (bool over = false; !over;) {
        for (int k = 0; k < THREADS; k++) {
            Thread& thread = threads[reverse ? THREADS - 1 - k : k];
            if (thread.wait == RUNS) step(thread, program, launch);
        }
        bool moved = false;
        for (int k = 0; k < THREADS; k += 32) moved |= exchange(threads + k, launch);
        over = !moved && met(threads, launch);
    }
}

// Run the programs (x, y) of a grid, begin <= x < end, one after the other, up to the first fault.
template <class Thread, class Step> static void run_programs(
    Step step, const Grid& grid, const u64* parameters, u32 shared, const Range* ranges, int count,
    int reverse, Report* report, u64* blocks) {
    Launch& launch = *(Launch*)calloc(1, sizeof(Launch));
    Thread* threads = (Thread*)malloc(sizeof(Thread) * THREADS);
    launch.ranges = ranges, launch.count = count, launch.report = report;
    launch.shared = (u8*)malloc(shared + 16), launch.shared_size = shared;
    launch.touched = (u8**)malloc((count + 1) * sizeof(u8*));
    for (int k = 0; k < count; k++)
        launch.touched[k] = (u8*)calloc((ranges[k].end - ranges[k].begin) / SECTOR + 2, 1);
    Program program = {0, 0, grid.width, grid.height, {}};
    memcpy(program.parameters, parameters, sizeof program.parameters);
    try {
        for (program.y = 0; program.y < grid.height; program.y++)
            for (program.x = grid.begin; program.x < grid.end; program.x++, report->programs++)
                run_program(step, threads, program, launch, reverse);
    } catch (Fault) {
    }
    for (int k = 0; k < BLOCKS; k++) blocks[k] += launch.blocks[k];
    for (int k = 0; k < count; k++) free(launch.touched[k]);
    free(launch.touched);
    free(launch.shared);
    free(threads);
    free(&launch);
}

// The end of a generated source.
#define DEFINE_RUN                                                                                          \
    extern "C" void run(const Grid* grid, const u64* parameters, u32 shared, const Range* ranges,           \
                        int count, int reverse, Report* report, u64* blocks) {                              \
        run_programs<Thread>(step, *grid, parameters, shared, ranges, count, reverse, report, blocks);      \
    }
