/* trie.c: a byte trie whose edges live in one hash table.
 *
 * Added tokens are a few hundred strings and a Unigram vocabulary some ten thousand; a hash table of (node, byte)
 * serves both with memory proportional to the edges. The root's edges have a table of their own: most positions of a
 * text end there.
 */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

static size_t slot_of(uint32_t key, size_t mask) {
    uint32_t hash = key * 0x9e3779b1u;
    return (hash ^ hash >> 15) & mask;
}

uint32_t tm__trie_child(const tm__trie *trie, uint32_t node, uint8_t byte) {
    if (node == 0) return trie->root[byte];
    if (!trie->slot_cap) return 0;
    uint32_t key = node << 8 | byte;
    size_t mask = trie->slot_cap - 1;
    for (size_t i = slot_of(key, mask);; i = (i + 1) & mask) {
        if (!trie->slots[i].child) return 0;
        if (trie->slots[i].key == key) return trie->slots[i].child;
    }
}

static void put_slot(tm__trie_slot *slots, size_t cap, tm__trie_slot slot) {
    size_t i = slot_of(slot.key, cap - 1);
    while (slots[i].child) i = (i + 1) & (cap - 1);
    slots[i] = slot;
}

static bool enlarge(tm__trie *trie) {
    size_t cap = trie->slot_cap ? trie->slot_cap * 2 : 64;
    tm__trie_slot *slots = tm__zalloc(cap, sizeof *slots);
    if (!slots) return false;
    for (size_t i = 0; i < trie->slot_cap; i++)
        if (trie->slots[i].child) put_slot(slots, cap, trie->slots[i]);
    free(trie->slots);
    trie->slots = slots;
    trie->slot_cap = cap;
    return true;
}

/* A new child; 0: out of memory, or 2^24 nodes (keys hold the node in 24 bits). */
static uint32_t add_child(tm__trie *trie, uint32_t node, uint8_t byte) {
    if (trie->nodes == 0) trie->nodes = 1;
    if (trie->nodes >= 1u << 24) return 0;
    if (!tm__grow((void **)&trie->values, &trie->value_cap, trie->nodes + 1, sizeof *trie->values)) return 0;
    if (node && trie->nodes * 2 >= trie->slot_cap && !enlarge(trie)) return 0;
    uint32_t child = (uint32_t)trie->nodes++;
    trie->values[child] = -1;
    if (node)
        put_slot(trie->slots, trie->slot_cap, (tm__trie_slot){.key = node << 8 | byte, .child = child});
    else
        trie->root[byte] = child;
    return child;
}

bool tm__trie_add(tm__trie *trie, const char *bytes, size_t len, int32_t value) {
    uint32_t node = 0;
    for (size_t i = 0; i < len; i++) {
        uint32_t child = tm__trie_child(trie, node, (uint8_t)bytes[i]);
        if (!child) child = add_child(trie, node, (uint8_t)bytes[i]);
        if (!child) return false;
        node = child;
    }
    if (node) trie->values[node] = value;
    return true;
}

size_t tm__trie_longest(const tm__trie *trie, const char *text, size_t len, int32_t *value) {
    size_t longest = 0;
    uint32_t node = 0;
    for (size_t i = 0; i < len; i++) {
        node = tm__trie_child(trie, node, (uint8_t)text[i]);
        if (!node) break;
        if (trie->values[node] >= 0) {
            longest = i + 1;
            *value = trie->values[node];
        }
    }
    return longest;
}

void tm__trie_free(tm__trie *trie) {
    free(trie->slots);
    free(trie->values);
    memset(trie, 0, sizeof *trie);
}
