// SPDX-License-Identifier: Apache-2.0
/* Bounded byte reader and writer; see bytes.h. No shared state. */
#include "common/bytes.h"

#include <stdlib.h>
#include <string.h>

void buf_free(struct buf *b)
{
    free(b->data);
    memset(b, 0, sizeof *b);
}

void buf_reserve(struct buf *b, size_t more)
{
    if (more <= b->cap - b->len)
        return;
    size_t cap = b->cap ? b->cap : 64;
    while (cap - b->len < more) {
        if (cap > SIZE_MAX / 2)
            abort();
        cap *= 2;
    }
    uint8_t *data = realloc(b->data, cap);
    if (!data)
        abort();
    memset(data + b->cap, 0, cap - b->cap); /* prefault */
    b->data = data;
    b->cap = cap;
}

uint8_t *buf_extend(struct buf *b, size_t n)
{
    if (b->fixed && n > b->cap - b->len) {
        b->overflow = true;
        return NULL;
    }
    buf_reserve(b, n);
    uint8_t *p = b->data + b->len;
    b->len += n;
    return p;
}

void buf_put(struct buf *b, const void *p, size_t n)
{
    uint8_t *to = n ? buf_extend(b, n) : NULL;

    if (to)
        memcpy(to, p, n);
}

void buf_u8(struct buf *b, uint8_t v)
{
    buf_put(b, &v, 1);
}

void buf_u16(struct buf *b, uint16_t v)
{
    uint8_t p[2] = {(uint8_t)v, (uint8_t)(v >> 8)};

    buf_put(b, p, sizeof p);
}

void buf_u32(struct buf *b, uint32_t v)
{
    uint8_t p[4];

    put_le32(p, v);
    buf_put(b, p, sizeof p);
}

void buf_u64(struct buf *b, uint64_t v)
{
    uint8_t p[8];

    put_le64(p, v);
    buf_put(b, p, sizeof p);
}

void buf_varint(struct buf *b, uint64_t v)
{
    while (v >= 0x80) {
        buf_u8(b, (uint8_t)(v | 0x80));
        v >>= 7;
    }
    buf_u8(b, (uint8_t)v);
}

void buf_blob(struct buf *b, const void *p, size_t n)
{
    if (n > UINT32_MAX)
        abort();
    buf_u32(b, (uint32_t)n);
    buf_put(b, p, n);
}

void buf_str(struct buf *b, const char *s)
{
    buf_blob(b, s, strlen(s));
}

const uint8_t *read_bytes(struct reader *r, size_t n)
{
    if (r->bad || n > reader_left(r)) {
        r->bad = true;
        return NULL;
    }
    const uint8_t *p = r->p;
    r->p += n;
    return p;
}

uint8_t read_u8(struct reader *r)
{
    const uint8_t *p = read_bytes(r, 1);

    return p ? *p : 0;
}

uint16_t read_u16(struct reader *r)
{
    const uint8_t *p = read_bytes(r, 2);

    return p ? (uint16_t)(p[0] | p[1] << 8) : 0;
}

uint32_t read_u32(struct reader *r)
{
    const uint8_t *p = read_bytes(r, 4);

    return p ? get_le32(p) : 0;
}

uint64_t read_u64(struct reader *r)
{
    const uint8_t *p = read_bytes(r, 8);

    return p ? get_le64(p) : 0;
}

uint64_t read_varint(struct reader *r)
{
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = read_u8(r);
        uint64_t low = byte & 0x7f;
        if (shift == 63 && low > 1)
            break;
        v |= low << shift;
        if (!(byte & 0x80))
            return r->bad ? 0 : v;
    }
    r->bad = true;
    return 0;
}

const uint8_t *read_blob(struct reader *r, size_t max, size_t *n)
{
    size_t len = read_u32(r);

    *n = 0;
    if (len > max)
        r->bad = true;
    const uint8_t *p = read_bytes(r, len);
    if (p)
        *n = len;
    return p;
}

void read_str(struct reader *r, char *out, size_t size)
{
    size_t n;
    const uint8_t *p = read_blob(r, size - 1, &n);

    if (p && memchr(p, 0, n))
        r->bad = true;
    if (!p || r->bad)
        n = 0;
    if (n)
        memcpy(out, p, n);
    out[n] = '\0';
}
