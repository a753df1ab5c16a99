/* Sums of 16-bit words, with or without a copy, as wide as the CPU allows.  For checksum.pyx.

   The words are the host's, whatever its byte order: a sum of swapped words is the swapped sum (RFC
   1071, section 2(B)).  Nor does it matter how many words are added at once, because 2^16, 2^32 and
   2^64 are all 1 modulo 2^16 - 1: a carry out of the top belongs at the bottom.  So a result is any
   64-bit number that folds to the sum, and it is zero only if all words are.

   A `sum_*` reads [source, source + size), a `copy_sum_*` also writes those bytes to `target`, and
   neither touches a byte more.  Both are one `walk_*`, inlined; a `target` of NULL means no copy.
   The lanes hold the sums of less than 16 GiB. */
#ifndef TUNTAP_SIMD_H
#define TUNTAP_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* On Windows GCC aligns the stack to 16 bytes and no more, whatever AVX needs (its bug 54412). */
#if defined(__GNUC__) && defined(__x86_64__) && !defined(_WIN32)
#define SIMD_X86 1
#include <immintrin.h>
#elif defined(__GNUC__) && defined(__AARCH64EL__)
#define SIMD_NEON 1
#include <arm_neon.h>
#endif

#ifdef __GNUC__
#define SIMD_INLINE static inline __attribute__((always_inline))
#else
#define SIMD_INLINE static __inline
#endif

SIMD_INLINE uint64_t add_with_carry(uint64_t a, uint64_t b)
{
    a += b;
    return a + (a < b);
}

/* The next `size` bytes, at most 8, behind them zeros. */
SIMD_INLINE uint64_t next_word(uint8_t **target, const uint8_t **source, size_t size)
{
    uint64_t word = 0;
    memcpy(&word, *source, size);
    *source += size;
    if (target) {
        memcpy(*target, &word, size);
        *target += size;
    }
    return word;
}

/* One word after the other, added to `total`: tails, and what is too short for more. */
SIMD_INLINE uint64_t walk_words(uint8_t **target, const uint8_t *source, size_t size, uint64_t total)
{
    for (; size >= 8; size -= 8)
        total = add_with_carry(total, next_word(target, &source, 8));
    if (size & 4)
        total = add_with_carry(total, next_word(target, &source, 4));
    if (size & 2)
        total = add_with_carry(total, next_word(target, &source, 2));
    if (size & 1)
        total = add_with_carry(total, next_word(target, &source, 1));
    return total;
}

/* Four sums, since each addition waits for the carry of the one before. */
SIMD_INLINE uint64_t walk_scalar(uint8_t **target, const uint8_t *source, size_t size)
{
    uint64_t a = 0, b = 0, c = 0, d = 0;
    for (; size >= 32; size -= 32) {
        a = add_with_carry(a, next_word(target, &source, 8));
        b = add_with_carry(b, next_word(target, &source, 8));
        c = add_with_carry(c, next_word(target, &source, 8));
        d = add_with_carry(d, next_word(target, &source, 8));
    }
    return walk_words(target, source, size, add_with_carry(add_with_carry(a, b), add_with_carry(c, d)));
}

#ifdef SIMD_X86

/* AVX has no carry.  Each 64-bit lane keeps two sums instead: `all` of its words, modulo 2^64, and
   `high` of their upper halves.  The sum of the lower halves is then all - high * 2^32, and neither
   half overflows before 2^32 words. */

#define AVX2 __attribute__((target("avx2")))
#define AVX512 __attribute__((target("avx512f,avx512bw")))

/* Without the asm, gcc reads the word from memory once for each of its two uses, at half the speed. */
AVX2 SIMD_INLINE __m256i next_256(uint8_t **target, const uint8_t **source)
{
    __m256i word = _mm256_loadu_si256((const __m256i *) *source);
    __asm__("" : "+x"(word));
    *source += 32;
    if (target) {
        _mm256_storeu_si256((__m256i *) *target, word);
        *target += 32;
    }
    return word;
}

AVX2 SIMD_INLINE void add_256(__m256i *all, __m256i *high, __m256i word)
{
    *all = _mm256_add_epi64(*all, word);
    *high = _mm256_add_epi64(*high, _mm256_srli_epi64(word, 32));
}

AVX2 SIMD_INLINE uint64_t walk_avx2(uint8_t **target, const uint8_t *source, size_t size)
{
    __m256i all[4], high[4], low, sum;
    __m128i half;
    int i;
    for (i = 0; i < 4; i++)
        all[i] = high[i] = _mm256_setzero_si256();
    for (; size >= 128; size -= 128) {
        add_256(&all[0], &high[0], next_256(target, &source));
        add_256(&all[1], &high[1], next_256(target, &source));
        add_256(&all[2], &high[2], next_256(target, &source));
        add_256(&all[3], &high[3], next_256(target, &source));
    }
    low = _mm256_add_epi64(_mm256_add_epi64(all[0], all[1]), _mm256_add_epi64(all[2], all[3]));
    sum = _mm256_add_epi64(_mm256_add_epi64(high[0], high[1]), _mm256_add_epi64(high[2], high[3]));
    for (; size >= 32; size -= 32)
        add_256(&low, &sum, next_256(target, &source));
    low = _mm256_sub_epi64(low, _mm256_slli_epi64(sum, 32));
    sum = _mm256_add_epi64(sum, low);
    half = _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    half = _mm_add_epi64(half, _mm_unpackhi_epi64(half, half));
    return walk_words(target, source, size, (uint64_t) _mm_cvtsi128_si64(half));
}

AVX512 SIMD_INLINE __m512i next_512(uint8_t **target, const uint8_t **source)
{
    __m512i word = _mm512_loadu_si512(*source);
    __asm__("" : "+v"(word));
    *source += 64;
    if (target) {
        _mm512_storeu_si512(*target, word);
        *target += 64;
    }
    return word;
}

AVX512 SIMD_INLINE void add_512(__m512i *all, __m512i *high, __m512i word)
{
    *all = _mm512_add_epi64(*all, word);
    *high = _mm512_add_epi64(*high, _mm512_srli_epi64(word, 32));
}

/* Beside the width, what it wins over AVX2 is a mask that makes the tail one more word. */
AVX512 SIMD_INLINE uint64_t walk_avx512(uint8_t **target, const uint8_t *source, size_t size)
{
    __m512i all[4], high[4], low, sum;
    int i;
    for (i = 0; i < 4; i++)
        all[i] = high[i] = _mm512_setzero_si512();
    for (; size >= 256; size -= 256) {
        add_512(&all[0], &high[0], next_512(target, &source));
        add_512(&all[1], &high[1], next_512(target, &source));
        add_512(&all[2], &high[2], next_512(target, &source));
        add_512(&all[3], &high[3], next_512(target, &source));
    }
    low = _mm512_add_epi64(_mm512_add_epi64(all[0], all[1]), _mm512_add_epi64(all[2], all[3]));
    sum = _mm512_add_epi64(_mm512_add_epi64(high[0], high[1]), _mm512_add_epi64(high[2], high[3]));
    for (; size >= 64; size -= 64)
        add_512(&low, &sum, next_512(target, &source));
    if (size) {
        __mmask64 rest = ((uint64_t) 1 << size) - 1;
        __m512i word = _mm512_maskz_loadu_epi8(rest, source);
        if (target)
            _mm512_mask_storeu_epi8(*target, rest, word);
        add_512(&low, &sum, word);
    }
    low = _mm512_sub_epi64(low, _mm512_slli_epi64(sum, 32));
    return (uint64_t) _mm512_reduce_add_epi64(_mm512_add_epi64(sum, low));
}

#endif

#ifdef SIMD_NEON

SIMD_INLINE uint32x4_t next_128(uint8_t **target, const uint8_t **source)
{
    uint8x16_t word = vld1q_u8(*source);
    *source += 16;
    if (target) {
        vst1q_u8(*target, word);
        *target += 16;
    }
    return vreinterpretq_u32_u8(word);
}

/* One instruction adds both halves of a 64-bit word to a lane of 64 bits. */
SIMD_INLINE uint64_t walk_neon(uint8_t **target, const uint8_t *source, size_t size)
{
    uint64x2_t a = vdupq_n_u64(0), b = a, c = a, d = a;
    for (; size >= 64; size -= 64) {
        a = vpadalq_u32(a, next_128(target, &source));
        b = vpadalq_u32(b, next_128(target, &source));
        c = vpadalq_u32(c, next_128(target, &source));
        d = vpadalq_u32(d, next_128(target, &source));
    }
    for (; size >= 16; size -= 16)
        a = vpadalq_u32(a, next_128(target, &source));
    a = vaddq_u64(vaddq_u64(a, b), vaddq_u64(c, d));
    return walk_words(target, source, size, vaddvq_u64(a));
}

#endif

/* --- what there is, and what this CPU runs --- */

typedef struct {
    const char *name;
    int (*runs)(void);
    uint64_t (*sum)(const uint8_t *source, size_t size);
    uint64_t (*copy_sum)(uint8_t *target, const uint8_t *source, size_t size);
} Summer;

#define DEFINE_SUMMER(cpu, name)                                                              \
    cpu static uint64_t sum_##name(const uint8_t *source, size_t size)                        \
    {                                                                                         \
        return walk_##name(NULL, source, size);                                               \
    }                                                                                         \
    cpu static uint64_t copy_sum_##name(uint8_t *target, const uint8_t *source, size_t size)  \
    {                                                                                         \
        return walk_##name(&target, source, size);                                            \
    }

static int runs_always(void)
{
    return 1;
}

DEFINE_SUMMER(, scalar)

#ifdef SIMD_X86
DEFINE_SUMMER(AVX2, avx2)
DEFINE_SUMMER(AVX512, avx512)

static int runs_avx2(void)
{
    return __builtin_cpu_supports("avx2");
}

/* VBMI is not used; it tells the CPUs that do not lower their clock for wide integers (Ice Lake, Zen 4
   and later) from those that do. */
static int runs_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512vbmi");
}
#endif

#ifdef SIMD_NEON
DEFINE_SUMMER(, neon)
#endif

/* The `index`-th of those that this CPU runs, the fastest being 0; NULL behind the last. */
static const Summer *summer(int index)
{
    static const Summer summers[] = {
#ifdef SIMD_X86
        {"avx512", runs_avx512, sum_avx512, copy_sum_avx512},
        {"avx2", runs_avx2, sum_avx2, copy_sum_avx2},
#endif
#ifdef SIMD_NEON
        {"neon", runs_always, sum_neon, copy_sum_neon},
#endif
        {"scalar", runs_always, sum_scalar, copy_sum_scalar},
    };
    size_t i;
    for (i = 0; i < sizeof(summers) / sizeof(*summers); i++)
        if (summers[i].runs() && index-- == 0)
            return &summers[i];
    return NULL;
}

#endif
