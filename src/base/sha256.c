/* sha256.c: SHA-256 as FIPS 180-4 states it. Names a model by its bytes and pins golden files. */
#include "base/sha256.h"

const uint32_t tm__sha256_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t x, int n) {
    return x >> n | x << (32 - n);
}

/* One round on a..h, which are s[(8 - i) % 8] and on: the eight variables rotate by name instead of being moved. */
static inline void round_of(uint32_t s[8], int i, uint32_t added) {
    uint32_t *a = &s[(64 - i) % 8], *d = &s[(67 - i) % 8], *h = &s[(71 - i) % 8];
    uint32_t b = s[(65 - i) % 8], c = s[(66 - i) % 8], e = s[(68 - i) % 8], f = s[(69 - i) % 8], g = s[(70 - i) % 8];
    uint32_t t1 = *h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) + added;
    uint32_t t2 = (rotate(*a, 2) ^ rotate(*a, 13) ^ rotate(*a, 22)) + ((*a & b) ^ (*a & c) ^ (b & c));
    *d += t1;
    *h = t1 + t2;
}

static void compress_block(uint32_t state[8], const uint8_t block[64]) {
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
               block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] =
            w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[i - 7] + (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
    }
    memcpy(s, state, sizeof s);
    for (int i = 0; i < 64; i += 8) /* eight rounds at a time: every index above is then a constant */
        for (int k = 0; k < 8; k++) round_of(s, k, tm__sha256_constants[i + k] + w[i + k]);
    for (int i = 0; i < 8; i++) state[i] += s[i];
}

void tm__sha256_compress_c(uint32_t state[8], const uint8_t *blocks, size_t n) {
    for (; n > 0; n--, blocks += 64) compress_block(state, blocks);
}

/* Asking the processor is slow on a virtual one, so the answer is kept. */
static void compress(uint32_t state[8], const uint8_t *blocks, size_t n) {
    static tm__sha256_compress *_Atomic chosen;
    tm__sha256_compress *run = chosen;
    if (!run) {
        run = tm__sha256_compress_native();
        chosen = run = run ? run : tm__sha256_compress_c;
    }
    run(state, blocks, n);
}

void tm__sha256_init(tm__sha256 *hash) {
    *hash = (tm__sha256){
        .state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
}

void tm__sha256_update(tm__sha256 *hash, const void *data, size_t len) {
    const uint8_t *bytes = data;
    size_t used = (size_t)(hash->bytes % 64);
    hash->bytes += len;
    if (used) {
        size_t take = TM__MIN(len, 64 - used);
        if (take) memcpy(hash->block + used, bytes, take);
        bytes += take;
        len -= take;
        if (used + take < 64) return;
        compress(hash->state, hash->block, 1);
    }
    if (len >= 64) compress(hash->state, bytes, len / 64);
    if (len % 64) memcpy(hash->block, bytes + len / 64 * 64, len % 64);
}

void tm__sha256_hex(tm__sha256 *hash, char hex[65]) {
    static const uint8_t padding[64] = {0x80};
    uint64_t bits = hash->bytes * 8;
    size_t used = (size_t)(hash->bytes % 64);
    uint8_t length[8];
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)(bits >> (56 - 8 * i));
    tm__sha256_update(hash, padding, used < 56 ? 56 - used : 120 - used);
    tm__sha256_update(hash, length, 8);
    for (int i = 0; i < 32; i++) {
        unsigned byte = hash->state[i / 4] >> (24 - 8 * (i % 4)) & 0xff;
        hex[2 * i] = "0123456789abcdef"[byte >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[byte & 15];
    }
    hex[64] = 0;
}
