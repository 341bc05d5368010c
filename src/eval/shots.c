/* shots.c: which worked examples stand before a question: the draw of lm-evaluation-harness, number for number.
 *
 * Its sampler is Python's random.Random(seed).sample, one draw per question in the order of the questions, so this is
 * MT19937 (Matsumoto and Nishimura 1998) seeded as CPython seeds it, getrandbits, and sample() of CPython 3.11: a list
 * that is drawn down where k is a fair part of n, else a set of what was drawn.
 * Test: tests/golden/test_mcq.c (prompts), tests/unit/test_eval_text.c (numbers).
 */
#include "eval/suite.h"

#include <stdlib.h>

enum { N = 624, M = 397 };

static void init_one(tm__py_random *r, uint32_t seed) {
    r->state[0] = seed;
    for (uint32_t i = 1; i < N; i++) r->state[i] = 1812433253u * (r->state[i - 1] ^ (r->state[i - 1] >> 30)) + i;
    r->at = N;
}

void tm__py_random_seed(tm__py_random *r, uint64_t seed) {
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t keys = key[1] ? 2 : 1, i = 1, j = 0;
    uint32_t *s = r->state;
    init_one(r, 19650218u);
    for (int k = N; k; k--) {
        s[i] = (s[i] ^ ((s[i - 1] ^ (s[i - 1] >> 30)) * 1664525u)) + key[j] + j;
        if (++i >= N) s[0] = s[N - 1], i = 1;
        if (++j >= keys) j = 0;
    }
    for (int k = N - 1; k; k--) {
        s[i] = (s[i] ^ ((s[i - 1] ^ (s[i - 1] >> 30)) * 1566083941u)) - i;
        if (++i >= N) s[0] = s[N - 1], i = 1;
    }
    s[0] = 0x80000000u;
}

static void refill(tm__py_random *r) {
    uint32_t *s = r->state;
    for (int i = 0; i < N; i++) {
        uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % N] & 0x7fffffffu);
        s[i] = s[(i + M) % N] ^ (y >> 1) ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    r->at = 0;
}

uint32_t tm__py_random_u32(tm__py_random *r) {
    if (r->at >= N) refill(r);
    uint32_t y = r->state[r->at++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

/* random._randbelow for 0 < n < 2^32. */
static size_t below(tm__py_random *r, size_t n) {
    int bits = 0;
    while (n >> bits) bits++;
    size_t drawn;
    do drawn = tm__py_random_u32(r) >> (32 - bits);
    while (drawn >= n);
    return drawn;
}

tm_status tm__py_random_sample(tm__py_random *r, size_t n, size_t k, size_t *chosen) {
    size_t set_size = 21;
    if (k > 5) set_size += (size_t)pow(4, ceil(log((double)(k * 3)) / log(4)));
    if (n <= set_size) {
        size_t *pool = tm__alloc(n, sizeof *pool);
        if (!pool) return tm__fail_memory();
        for (size_t i = 0; i < n; i++) pool[i] = i;
        for (size_t i = 0; i < k; i++) {
            size_t j = below(r, n - i);
            chosen[i] = pool[j];
            pool[j] = pool[n - i - 1];
        }
        free(pool);
        return TM_OK;
    }
    for (size_t i = 0; i < k; i++) {
        bool again = true;
        while (again) {
            chosen[i] = below(r, n);
            again = false;
            for (size_t j = 0; j < i; j++) again = again || chosen[j] == chosen[i];
        }
    }
    return TM_OK;
}
