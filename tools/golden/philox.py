"""Philox 4x32-10 (Salmon et al. 2011) as Temper documents it: the key is the seed, the counter's upper half the stream."""
import math

# Purposes of streams (TM__STREAM_*), the upper half of a stream's number.
INIT, SHUFFLE, LORA, PAIRING, NOISE, BLOCKS = 1, 2, 4, 7, 9, 10


def stream(purpose, index):
    return purpose << 32 | index


def words(seed, number, n):
    """n numbers of 64 bits, two from each block."""
    out = []
    for counter in range((n + 1) // 2):
        c = [counter & 0xFFFFFFFF, counter >> 32, number & 0xFFFFFFFF, number >> 32]
        k = [seed & 0xFFFFFFFF, seed >> 32]
        for _ in range(10):
            a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
            k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
        out += [c[0] << 32 | c[1], c[2] << 32 | c[3]]
    return out[:n]


def uniforms(seed, number, n):
    """Of 53 bits each, in [0, 1)."""
    return [(w >> 11) / 2.0**53 for w in words(seed, number, n)]


def normals(seed, number, n):
    """Two uniforms to one Box-Muller normal."""
    u = uniforms(seed, number, 2 * n)
    return [math.sqrt(-2 * math.log(1 - u[2 * i])) * math.cos(2 * math.pi * u[2 * i + 1]) for i in range(n)]


class Integers:
    """Uniform integers below n; the lowest 2^64 mod n numbers are thrown away."""

    def __init__(self, seed, number):
        self.seed, self.number, self.used, self.made = seed, number, 0, []

    def below(self, n):
        while True:
            if self.used == len(self.made):
                self.made = words(self.seed, self.number, 2 * len(self.made) + 16)
            self.used += 1
            value = self.made[self.used - 1]
            if value >= 2**64 % n:
                return value % n

    def shuffle(self, items):
        """Fisher-Yates from the end."""
        items = list(items)
        for i in range(len(items), 1, -1):
            j = self.below(i)
            items[i - 1], items[j] = items[j], items[i - 1]
        return items
