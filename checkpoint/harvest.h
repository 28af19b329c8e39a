// SPDX-License-Identifier: Apache-2.0
/* Dirty bitmaps: merging and scanning them by 64-bit words, eight at a time
 * where nothing is set. Pure, allocates nothing, safe while a guest is stopped.
 * Bitmaps have one bit a guest frame, bit gfn % 64 of word gfn / 64. */
#ifndef CHECKPOINT_HARVEST_H
#define CHECKPOINT_HARVEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline size_t bitmap_words(uint64_t bits)
{
    return (size_t)((bits + 63) / 64);
}
static inline bool bitmap_test(const uint64_t *map, uint64_t bit)
{
    return map[bit / 64] >> (bit % 64) & 1;
}
static inline void bitmap_set(uint64_t *map, uint64_t bit)
{
    map[bit / 64] |= 1ull << (bit % 64);
}
static inline void bitmap_clear(uint64_t *map, uint64_t bit)
{
    map[bit / 64] &= ~(1ull << (bit % 64));
}

/* pending |= fresh & ram, all of `words` words. The first `max` set bits of the
 * result go to gfns, ascending. Returns how many are set in all; when that is
 * more than max, gfns is not the whole set. */
uint64_t harvest_merge(uint64_t *pending, const uint64_t *fresh,
                       const uint64_t *ram, size_t words, uint64_t *gfns,
                       size_t max);
/* Up to `max` set bits of `bits` from bit *from on go to gfns and are cleared;
 * *from moves on to where to look next. Returns how many: 0 at the end. */
size_t harvest_take(uint64_t *bits, size_t words, uint64_t *from,
                    uint64_t *gfns, size_t max);
uint64_t harvest_count(const uint64_t *bits, size_t words);

#endif
