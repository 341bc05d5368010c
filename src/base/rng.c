/* rng.c: counter-based random numbers, Philox 4x32 with 10 rounds.
 *
 * J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. A block of four 32-bit numbers is a
 * function of (key, counter) alone. Here key = seed, the counter's low half counts blocks and its high half is the
 * stream, so streams never overlap and a position can be copied, saved or jumped to. The published known-answer vectors
 * pin it in tests/unit/test_base.c.
 */
#include "base/base.h"

uint64_t tm__stream(uint32_t purpose, uint32_t index) {
    return (uint64_t)purpose << 32 | index;
}

void tm__philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c0 = n0;
        c1 = (uint32_t)p1;
        c2 = n2;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u; /* golden ratio */
        k1 += 0xBB67AE85u; /* sqrt(3) - 1 */
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

tm__rng tm__rng_make(uint64_t seed, uint64_t stream) {
    return (tm__rng){.seed = seed, .stream = stream};
}

uint32_t tm__rng_u32(tm__rng *rng) {
    if (rng->left == 0) {
        const uint32_t counter[4] = {(uint32_t)rng->counter, (uint32_t)(rng->counter >> 32), (uint32_t)rng->stream,
                                     (uint32_t)(rng->stream >> 32)};
        const uint32_t key[2] = {(uint32_t)rng->seed, (uint32_t)(rng->seed >> 32)};
        tm__philox(counter, key, rng->block);
        rng->counter++;
        rng->left = 4;
    }
    return rng->block[4 - rng->left--];
}

static uint64_t next_u64(tm__rng *rng) {
    uint64_t high = tm__rng_u32(rng);
    return high << 32 | tm__rng_u32(rng);
}

/* Rejects the lowest 2^64 mod n values, so that every remainder has the same number of preimages. */
uint64_t tm__rng_below(tm__rng *rng, uint64_t n) {
    assert(n > 0);
    uint64_t rejected = (0 - n) % n, value;
    do value = next_u64(rng);
    while (value < rejected);
    return value % n;
}

double tm__rng_uniform(tm__rng *rng) {
    return (double)(next_u64(rng) >> 11) * 0x1p-53;
}

/* One of Box-Muller's pair only: keeping the other would be state that a copy or a checkpoint has to carry. */
double tm__rng_normal(tm__rng *rng) {
    double radius = sqrt(-2 * log(1 - tm__rng_uniform(rng))); /* the argument is in (0, 1] */
    return radius * cos(6.283185307179586476925 * tm__rng_uniform(rng));
}

void tm__rng_shuffle(tm__rng *rng, size_t *order, size_t n) {
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)tm__rng_below(rng, i), kept = order[i - 1];
        order[i - 1] = order[j];
        order[j] = kept;
    }
}
