// A whole pass over θ on a CPU: θ ← decay · θ + Σ_k c_k z(s_k), block by block, on several threads.
//
// The arithmetic is that of gaussian.py, rademacher.py and rounding.py, operation by operation.
// Their constants are put before this source when it is compiled (cpp_build.py), with the compiler
// told to round products and sums separately.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace {

using i32 = std::int32_t;
using i64 = std::int64_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;

constexpr int ROWS = 32, COLUMNS = 16;
constexpr i64 ALONE = 4;  // tiles that are not worth a second thread

template <class To, class From>
inline To as(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To y;
  std::memcpy(&y, &x, sizeof y);
  return y;
}

// ------------------------------------------------------------------------------------------ words

inline u32 mix32(u32 x) {
  x ^= x >> SHIFTS[0];
  x *= FACTORS[0];
  x ^= x >> SHIFTS[1];
  x *= FACTORS[1];
  return x ^ (x >> SHIFTS[2]);
}

struct Key {
  u32 first, second;
  u32 word(u32 counter) const { return mix32(mix32(counter ^ first) + second); }
};

// ------------------------------------------------------------------------------------------ units

template <int N>
inline float polynomial(const float (&coefficients)[N], float x) {
  float value = coefficients[0] * x + coefficients[1];
  for (int i = 2; i < N; ++i) value = value * x + coefficients[i];
  return value;
}

inline float minus_twice_log(float x) {
  const u32 bits = as<u32>(x);
  const i32 exponent = i32(bits - SQRT_HALF_BITS) >> 23;
  const float m = as<float>(bits - (u32(exponent) << 23)) - 1.0f;
  return m * polynomial(LOG, m) + float(exponent) * MINUS_TWICE_LOG_2;
}

struct Gaussian {
  // sum ← sum + c z for a block; elements half a block apart form a pair.
  template <class Sum>
  static void add(Sum* __restrict sum, Sum c, u32 block, Key key) {
    Sum* __restrict upper = sum + HALF_BLOCK;
    const u32 begin = block * BLOCK;
#pragma omp simd
    for (int i = 0; i < HALF_BLOCK; ++i) {
      const u32 first = key.word(begin + i), second = key.word(begin + HALF_BLOCK + i);
      const float u = (float(i32(first & 0x7FFFFFFF)) + 0.5f) * 0x1p-31f;
      const float radius = std::sqrt(minus_twice_log(u));
      const float x = float(i32(second << 1)) * 0x1p-31f, square = x * x;
      const u32 sign = second & SIGN_BIT;
      const float cosine = as<float>(as<u32>(polynomial(COS, square) * radius) ^ sign);
      const float sine = as<float>(as<u32>(polynomial(SIN, square) * (x * radius)) ^ sign);
      sum[i] += Sum(cosine) * c;
      upper[i] += Sum(sine) * c;
    }
  }
};

struct Rademacher {
  template <class Sum>
  static void add(Sum* __restrict sum, Sum c, u32 block, Key key) {
    u32 words[COLUMNS];
    for (int column = 0; column < COLUMNS; ++column)
      words[column] = key.word(block * COLUMNS + column);
    for (int row = 0; row < ROWS; ++row)
#pragma omp simd
      for (int column = 0; column < COLUMNS; ++column) {
        const float sign = as<float>(((words[column] << row) & SIGN_BIT) | ONE);
        sum[row * COLUMNS + column] += Sum(sign) * c;
      }
  }
};

// ----------------------------------------------------------------------------------------- dtypes

struct Fp32 {
  using Stored = float;
  using Sum = float;
  static Sum load(Stored x) { return x; }
  static Stored nearest(Sum x) { return x; }
};

struct Fp64 {
  using Stored = double;
  using Sum = double;
  static Sum load(Stored x) { return x; }
  static Stored nearest(Sum x) { return x; }
};

struct Bf16 {
  using Stored = u16;
  using Sum = float;
  static Sum load(Stored x) { return as<float>(u32(x) << 16); }
  static Stored nearest(Sum x) {
    const u32 bits = as<u32>(x);
    return std::isnan(x) ? u16(0x7FC0) : u16((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
  }
  static Stored at_random(Sum x, u32 word) {
    const float rounded = as<float>((as<u32>(x) + (word & 0xFFFF)) & 0xFFFF0000);
    return nearest(std::fabs(x) < INFINITY ? rounded : x);
  }
};

struct Fp16 {
  using Stored = u16;
  using Sum = float;
  // Below 2^-14 fp16 is a fixed-point format with a spacing of 2^-24; its exponent's bias is 15,
  // that of fp32 127.
  static Sum load(Stored x) {
    const u32 magnitude = x & 0x7FFF, sign = u32(x & 0x8000) << 16;
    const float fixed = float(i32(magnitude)) * 0x1p-24f;
    const u32 scaled = (magnitude << 13) + (magnitude < 0x7C00 ? 112u << 23 : 224u << 23);
    return as<float>((magnitude < 0x400 ? as<u32>(fixed) : scaled) | sign);
  }
  static Stored nearest(Sum x) {
    const u32 bits = as<u32>(x), magnitude = bits & 0x7FFFFFFF;
    const u32 fixed = as<u32>(as<float>(magnitude) + 0.5f) - as<u32>(0.5f);  // rounded by the sum
    const u32 scaled = (magnitude + 0xFFF + ((magnitude >> 13) & 1) - (112u << 23)) >> 13;
    const u32 finite = magnitude < as<u32>(0x1p-14f) ? fixed : scaled;
    const u32 beyond = magnitude > as<u32>(INFINITY) ? 0x7E00 : 0x7C00;
    return u16((magnitude < as<u32>(65520.0f) ? finite : beyond) | (bits >> 16 & 0x8000));
  }
  static Stored at_random(Sum x, u32 word) {
    const u32 noise = word & 0x1FFF;
    const float magnitude = std::fabs(x);
    const float scaled = as<float>((as<u32>(x) + noise) & ~u32(0x1FFF));
    const float fixed = std::floor(x * 0x1p24f + float(i32(noise)) * 0x1p-13f) * 0x1p-24f;
    const float rounded = magnitude < 0x1p-14f ? fixed : scaled;
    return nearest(magnitude <= 65504.0f ? rounded : x);  // the largest, not infinity
  }
};

// ----------------------------------------------------------------------------------------- blocks

// The part of a block that belongs to a run of elements.
struct Part {
  int start, stop;
};

inline Part inside(i64 position, i64 length) {
  return {int(std::max<i64>(-position, 0)), int(std::min<i64>(length - position, BLOCK))};
}

template <class Type>
void at_random(const float* sum, typename Type::Stored* into, Part part, u32 block, Key key) {
  u32 words[HALF_BLOCK];  // elements half a block apart share one
#pragma omp simd
  for (int i = 0; i < HALF_BLOCK; ++i) words[i] = key.word(block * BLOCK + i);
#pragma omp simd
  for (int i = part.start; i < std::min(part.stop, HALF_BLOCK); ++i)
    into[i] = Type::at_random(sum[i], words[i]);
#pragma omp simd
  for (int i = std::max(part.start, HALF_BLOCK); i < part.stop; ++i)
    into[i] = Type::at_random(sum[i], words[i - HALF_BLOCK] >> 16);
}

template <class Sum>
struct Terms {
  const Sum* numbers;  // decay, and the coefficients
  const Key* keys;     // a piece's: one for each term, and one for its rounding
  int count;
};

// A part of a block; the pointers are to where the block begins.
template <class Unit, class Type, bool stochastic>
void change_block(const typename Type::Stored* source, typename Type::Stored* into, Part part,
                  u32 block, const Terms<typename Type::Sum>& terms) {
  using Sum = typename Type::Sum;
  const auto [start, stop] = part;
  const bool whole = start == 0 && stop == BLOCK;
  alignas(64) Sum buffer[BLOCK];
  Sum* sum = buffer;
  if (whole) {
    if constexpr (std::is_same_v<Sum, typename Type::Stored>) sum = into;
    constexpr int LINE = 64 / sizeof *source;
    for (int i = 0; i < BLOCK; i += LINE) __builtin_prefetch(source + BLOCK + i);
#pragma omp simd
    for (int i = 0; i < BLOCK; ++i) sum[i] = Type::load(source[i]) * terms.numbers[0];
  } else {
    for (int i = 0; i < BLOCK; ++i)
      sum[i] = start <= i && i < stop ? Type::load(source[i]) * terms.numbers[0] : Sum(0);
  }
  for (int k = 0; k < terms.count; ++k)
    Unit::template add<Sum>(sum, terms.numbers[k + 1], block, terms.keys[k]);
  if constexpr (stochastic) {
    at_random<Type>(sum, into, part, block, terms.keys[terms.count]);
  } else if (sum == buffer) {
#pragma omp simd
    for (int i = start; i < stop; ++i) into[i] = Type::nearest(sum[i]);
  }
}

// ------------------------------------------------------------------------------------------- tiles

struct Piece {
  i64 address, result, elements, block, lead, tile;
};

struct Pass {
  const Piece* pieces;
  const i32* owners;  // the piece of each tile
  i64 tiles;
  i64 results;  // what addresses of results count from
  const void* numbers;
  const Key* keys;
  i32 terms, threads;
};

template <class Unit, class Type, bool stochastic>
void change_tile(const Pass& pass, i64 number) {
  using Stored = typename Type::Stored;
  const i32 owner = pass.owners[number];
  const Piece& piece = pass.pieces[owner];
  const Terms<typename Type::Sum> terms{static_cast<const typename Type::Sum*>(pass.numbers),
                                        pass.keys + i64(owner) * (pass.terms + stochastic),
                                        pass.terms};
  const i64 tile = number - piece.tile;
  for (i64 within = tile * TILE; within < (tile + 1) * TILE; ++within) {
    const i64 position = within * BLOCK - piece.lead;
    if (position >= piece.elements) return;
    const auto* source = reinterpret_cast<const Stored*>(piece.address) + position;
    auto* into = reinterpret_cast<Stored*>(pass.results + piece.result) + position;
    change_block<Unit, Type, stochastic>(source, into, inside(position, piece.elements),
                                         u32(piece.block + within), terms);
  }
}

template <class Unit, class Type, bool stochastic>
void change_all(const Pass& pass) {
#pragma omp parallel for schedule(static) num_threads(pass.tiles > ALONE ? pass.threads : 1)
  for (i64 number = 0; number < pass.tiles; ++number)
    change_tile<Unit, Type, stochastic>(pass, number);
}

template <class Unit>
void change(const Pass& pass, i32 dtype, bool stochastic) {
  switch (dtype) {
    case FP32: return change_all<Unit, Fp32, false>(pass);
    case FP64: return change_all<Unit, Fp64, false>(pass);
    case FP16: return (stochastic ? change_all<Unit, Fp16, true> : change_all<Unit, Fp16, false>)(pass);
    case BF16: return (stochastic ? change_all<Unit, Bf16, true> : change_all<Unit, Bf16, false>)(pass);
  }
}

// -------------------------------------------------------------------------------------- rounding

template <class Type>
void round_all(const float* values, u16* into, i64 length, u32 offset, Key key, i32 threads) {
  const i64 lead = offset % BLOCK, blocks = (lead + length + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(static) num_threads(blocks > ALONE * TILE ? threads : 1)
  for (i64 number = 0; number < blocks; ++number) {
    const i64 position = number * BLOCK - lead;
    at_random<Type>(values + position, into + position, inside(position, length),
                    u32(offset / BLOCK + number), key);
  }
}

}  // namespace

extern "C" void zoopt_pass(const Pass* pass, i32 unit, i32 dtype, i32 stochastic) {
  (unit == GAUSSIAN ? change<Gaussian> : change<Rademacher>)(*pass, dtype, stochastic);
}

extern "C" void zoopt_round(const float* values, u16* into, i64 length, u32 offset, u32 first,
                            u32 second, i32 dtype, i32 threads) {
  const Key key{first, second};
  (dtype == FP16 ? round_all<Fp16> : round_all<Bf16>)(values, into, length, offset, key, threads);
}

// z of whole Rademacher blocks, 512 values each, from their numbers and keys.
extern "C" void zoopt_signs(const i32* numbers, const Key* keys, i64 blocks, float* into,
                            i32 threads) {
#pragma omp parallel for schedule(static) num_threads(blocks > ALONE * TILE ? threads : 1)
  for (i64 i = 0; i < blocks; ++i) {
    std::fill(into + i * BLOCK, into + (i + 1) * BLOCK, 0.0f);
    Rademacher::add(into + i * BLOCK, 1.0f, u32(numbers[i]), keys[i]);
  }
}
