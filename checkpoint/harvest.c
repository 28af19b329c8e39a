// SPDX-License-Identifier: Apache-2.0
/* Scanning dirty bitmaps; see harvest.h. Called by capture.c, partly while the
 * guest is stopped. */
#include "checkpoint/harvest.h"

#define BLOCK 8 /* words looked at together: one cache line */

static bool block_empty(const uint64_t *a, const uint64_t *b)
{
    uint64_t any = 0;

    for (size_t i = 0; i < BLOCK; i++)
        any |= a[i] | b[i];
    return !any;
}

/* Append the bits of `word`, number `index`, as long as there is room. */
static size_t word_list(uint64_t word, size_t index, uint64_t *gfns, size_t n,
                        size_t max)
{
    for (; word && n < max; word &= word - 1)
        gfns[n++] = index * 64 + (uint64_t)__builtin_ctzll(word);
    return n;
}

uint64_t harvest_merge(uint64_t *pending, const uint64_t *fresh,
                       const uint64_t *ram, size_t words, uint64_t *gfns,
                       size_t max)
{
    uint64_t total = 0;
    size_t n = 0;

    for (size_t i = 0; i < words;) {
        if (words - i >= BLOCK && block_empty(pending + i, fresh + i)) {
            i += BLOCK;
            continue;
        }
        size_t stop = words - i >= BLOCK ? i + BLOCK : words;
        for (; i < stop; i++) {
            uint64_t word = pending[i] | (fresh[i] & ram[i]);
            if (!word)
                continue;
            pending[i] = word;
            total += (uint64_t)__builtin_popcountll(word);
            n = word_list(word, i, gfns, n, max);
        }
    }
    return total;
}

size_t harvest_take(uint64_t *bits, size_t words, uint64_t *from,
                    uint64_t *gfns, size_t max)
{
    size_t n = 0, i = (size_t)(*from / 64);

    while (i < words && n < max) {
        if (words - i >= BLOCK && block_empty(bits + i, bits + i)) {
            i += BLOCK;
            continue;
        }
        size_t before = n;
        n = word_list(bits[i], i, gfns, n, max);
        for (; before < n; before++)
            bitmap_clear(bits, gfns[before]);
        if (!bits[i])
            i++;
    }
    *from = (uint64_t)i * 64;
    return n;
}

uint64_t harvest_count(const uint64_t *bits, size_t words)
{
    uint64_t total = 0;

    for (size_t i = 0; i < words; i++)
        if (bits[i])
            total += (uint64_t)__builtin_popcountll(bits[i]);
    return total;
}
