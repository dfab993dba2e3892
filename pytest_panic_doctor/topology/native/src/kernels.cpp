#include "kernels.hpp"

#include <cstring>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define RIPS_X86 1
#if !defined(__clang__)
// GCC's own header takes undefined registers on purpose, and GCC 12 warns of it where they are inlined.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#else
#define RIPS_X86 0
#endif

namespace rips {

namespace {

using Signed = std::int32_t;

namespace baseline {

#define TARGET
constexpr char kName[] = "baseline";
constexpr std::size_t kWidth = 4;

using Lanes = Signed __attribute__((vector_size(16)));
using Mask = Lanes;  // -1 or 0

inline Lanes load(const Rank *from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}
inline void store(Rank *to, Lanes lanes) { std::memcpy(to, &lanes, sizeof lanes); }
inline Lanes splat(Rank rank) {
  const auto value = static_cast<Signed>(rank);
  return Lanes{value, value, value, value};
}
inline Mask above(Lanes one, Lanes other) { return one > other; }
inline Mask both(Mask one, Mask other) { return one & other; }
inline Lanes select(Mask mask, Lanes yes, Lanes no) { return (mask & yes) | (~mask & no); }
inline Lanes higher(Lanes one, Lanes other) { return select(one > other, one, other); }
inline Lanes lower(Lanes one, Lanes other) { return select(one > other, other, one); }
inline std::uint32_t bits(Mask mask) {
  const Lanes weighed = mask & Lanes{1, 2, 4, 8};
  return static_cast<std::uint32_t>(weighed[0] | weighed[1] | weighed[2] | weighed[3]);
}
inline Rank smallest(Lanes lanes) {
  Signed least = lanes[0];
  for (std::size_t lane = 1; lane < kWidth; ++lane) least = lanes[lane] < least ? lanes[lane] : least;
  return static_cast<Rank>(least);
}
inline std::size_t ones(Word word) {
  word -= (word >> 1) & 0x5555555555555555;
  word = (word & 0x3333333333333333) + ((word >> 2) & 0x3333333333333333);
  word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0f;
  return static_cast<std::size_t>((word * 0x0101010101010101) >> 56);
}

#include "kernels.inc"
#undef TARGET

}  // namespace baseline

#if RIPS_X86

namespace avx2 {

#define TARGET __attribute__((target("avx2,bmi,popcnt")))
constexpr char kName[] = "avx2";
constexpr std::size_t kWidth = 8;

using Lanes = __m256i;
using Mask = __m256i;  // -1 or 0

TARGET inline Lanes load(const Rank *from) { return _mm256_load_si256(reinterpret_cast<const __m256i *>(from)); }
TARGET inline void store(Rank *to, Lanes lanes) { _mm256_store_si256(reinterpret_cast<__m256i *>(to), lanes); }
TARGET inline Lanes splat(Rank rank) { return _mm256_set1_epi32(static_cast<Signed>(rank)); }
TARGET inline Mask above(Lanes one, Lanes other) { return _mm256_cmpgt_epi32(one, other); }
TARGET inline Mask both(Mask one, Mask other) { return _mm256_and_si256(one, other); }
TARGET inline Lanes select(Mask mask, Lanes yes, Lanes no) { return _mm256_blendv_epi8(no, yes, mask); }
TARGET inline Lanes higher(Lanes one, Lanes other) { return _mm256_max_epi32(one, other); }
TARGET inline Lanes lower(Lanes one, Lanes other) { return _mm256_min_epi32(one, other); }
TARGET inline std::uint32_t bits(Mask mask) {
  return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(mask)));
}
TARGET inline Rank smallest(Lanes lanes) {
  alignas(32) Rank all[kWidth];
  store(all, lanes);
  Rank least = all[0];
  for (std::size_t lane = 1; lane < kWidth; ++lane) least = all[lane] < least ? all[lane] : least;
  return least;
}
TARGET inline std::size_t ones(Word word) { return static_cast<std::size_t>(__builtin_popcountll(word)); }

#include "kernels.inc"
#undef TARGET

}  // namespace avx2

namespace avx512 {

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq,bmi,popcnt")))
constexpr char kName[] = "avx512";
constexpr std::size_t kWidth = 16;

using Lanes = __m512i;
using Mask = __mmask16;

TARGET inline Lanes load(const Rank *from) { return _mm512_load_si512(from); }
TARGET inline void store(Rank *to, Lanes lanes) { _mm512_store_si512(to, lanes); }
TARGET inline Lanes splat(Rank rank) { return _mm512_set1_epi32(static_cast<Signed>(rank)); }
TARGET inline Mask above(Lanes one, Lanes other) { return _mm512_cmpgt_epi32_mask(one, other); }
TARGET inline Mask both(Mask one, Mask other) { return static_cast<Mask>(one & other); }
TARGET inline Lanes select(Mask mask, Lanes yes, Lanes no) { return _mm512_mask_blend_epi32(mask, no, yes); }
TARGET inline Lanes higher(Lanes one, Lanes other) { return _mm512_max_epi32(one, other); }
TARGET inline Lanes lower(Lanes one, Lanes other) { return _mm512_min_epi32(one, other); }
TARGET inline std::uint32_t bits(Mask mask) { return mask; }
TARGET inline Rank smallest(Lanes lanes) { return static_cast<Rank>(_mm512_reduce_min_epi32(lanes)); }
TARGET inline std::size_t ones(Word word) { return static_cast<std::size_t>(__builtin_popcountll(word)); }

#include "kernels.inc"
#undef TARGET

}  // namespace avx512

bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("popcnt");
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vpopcntdq");
}

#endif

}  // namespace

const Kernels *kernels(const char *name) {
  const auto wanted = [name](const Kernels &one) { return name == nullptr || std::strcmp(name, one.name) == 0; };
#if RIPS_X86
  if (wanted(avx512::kAll) && has_avx512()) return &avx512::kAll;
  if (wanted(avx2::kAll) && has_avx2()) return &avx2::kAll;
#endif
  return wanted(baseline::kAll) ? &baseline::kAll : nullptr;
}

}  // namespace rips
