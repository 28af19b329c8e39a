// SPDX-License-Identifier: Apache-2.0
/* Bounded little-endian reading and writing of bytes. Every length and count
 * that comes from outside goes through a `struct reader`; everything that is
 * sent is built in a `struct buf`. No pointer casts onto received bytes. */
#ifndef COMMON_BYTES_H
#define COMMON_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A growable byte buffer. Zero-initialise; buf_free() is idempotent. A failed
 * allocation aborts: our processes are restarted, a guest is never touched by
 * it, and no caller could go on (buffers used while a guest is stopped are
 * grown beforehand with buf_reserve, and `fixed` makes growing an error). */
struct buf {
    uint8_t *data;
    size_t len, cap;
    bool fixed; /* do not grow: set `overflow` instead and drop the write */
    bool overflow;
};

void buf_free(struct buf *b);
static inline void buf_clear(struct buf *b)
{
    b->len = 0;
    b->overflow = false;
}
/* Room for `more` bytes after len without another allocation, touched. */
void buf_reserve(struct buf *b, size_t more);
/* Append `n` bytes and return where they start, or NULL when fixed and full.
 * The pointer is valid until the next append. */
uint8_t *buf_extend(struct buf *b, size_t n);
void buf_put(struct buf *b, const void *p, size_t n);
void buf_u8(struct buf *b, uint8_t v);
void buf_u16(struct buf *b, uint16_t v);
void buf_u32(struct buf *b, uint32_t v);
void buf_u64(struct buf *b, uint64_t v);
/* LEB128, at most 10 bytes. */
void buf_varint(struct buf *b, uint64_t v);
/* u32 length, then the bytes. */
void buf_blob(struct buf *b, const void *p, size_t n);
void buf_str(struct buf *b, const char *s);

/* A cursor over received bytes. The first read past the end sets `bad`, and
 * all reads give zeroes from then on, so a decoder can read a whole structure
 * and check once with reader_done() or `bad`. */
struct reader {
    const uint8_t *p, *end;
    bool bad;
};

static inline struct reader reader_of(const void *p, size_t n)
{
    return (struct reader){p, (const uint8_t *)p + n, false};
}
static inline size_t reader_left(const struct reader *r)
{
    return (size_t)(r->end - r->p);
}
uint8_t read_u8(struct reader *r);
uint16_t read_u16(struct reader *r);
uint32_t read_u32(struct reader *r);
uint64_t read_u64(struct reader *r);
uint64_t read_varint(struct reader *r);
/* The next n bytes in place, or NULL (and bad). */
const uint8_t *read_bytes(struct reader *r, size_t n);
/* A blob written by buf_blob, of at most `max` bytes; *n is its length. */
const uint8_t *read_blob(struct reader *r, size_t max, size_t *n);
/* A string written by buf_str into out[size]: no NUL inside, cut is bad. */
void read_str(struct reader *r, char *out, size_t size);
/* True when all was read, nothing is left over and nothing was bad. */
static inline bool reader_done(const struct reader *r)
{
    return !r->bad && r->p == r->end;
}

/* Fixed-width little-endian at any alignment. */
static inline void put_le32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}
static inline void put_le64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}
static inline uint32_t get_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
           (uint32_t)p[3] << 24;
}
static inline uint64_t get_le64(const uint8_t *p)
{
    return (uint64_t)get_le32(p) | (uint64_t)get_le32(p + 4) << 32;
}

#endif
