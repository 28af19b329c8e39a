// SPDX-License-Identifier: Apache-2.0
/* Framing and parsing of migration stream records; see records.h. Pure. */
#include "hypervisor/records.h"

#include <string.h>

#define HEADER 8u

size_t record_begin(struct buf *b, enum record_type type)
{
    size_t at = b->len;

    buf_u32(b, type);
    buf_u32(b, 0);
    return at;
}

void record_end(struct buf *b, size_t at)
{
    static const uint8_t zero[8];

    if (b->overflow)
        return;
    size_t body = b->len - at - HEADER;
    put_le32(b->data + at + 4, (uint32_t)body);
    buf_put(b, zero, -body & 7);
}

void record_put(struct buf *b, enum record_type type, const void *body,
                size_t n)
{
    size_t at = record_begin(b, type);

    buf_put(b, body, n);
    record_end(b, at);
}

static bool tsc_parse(struct reader r, struct record_state *s)
{
    s->tsc_mode = read_u32(&r);
    s->tsc_khz = read_u32(&r);
    s->tsc_nsec = read_u64(&r);
    s->tsc_incarnation = read_u32(&r);
    read_u32(&r);
    return reader_done(&r);
}

static bool params_parse(struct reader r, struct record_state *s)
{
    uint32_t count = read_u32(&r);

    read_u32(&r);
    if (count > RECORD_PARAMS_MAX)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        s->params[i].index = read_u64(&r);
        s->params[i].value = read_u64(&r);
    }
    s->n_params = count;
    return reader_done(&r);
}

static bool context_parse(struct reader r, struct record_state *s)
{
    s->context_len = (uint32_t)reader_left(&r);
    s->context = r.p;
    return s->context_len && s->context_len <= RECORD_CONTEXT_MAX;
}

static bool body_parse(uint32_t type, struct reader body,
                       struct record_state *s)
{
    switch (type) {
    case RECORD_TSC_INFO:
        return tsc_parse(body, s);
    case RECORD_HVM_CONTEXT:
        return context_parse(body, s);
    case RECORD_HVM_PARAMS:
        return params_parse(body, s);
    }
    return false;
}

int record_state_parse(const void *p, size_t n, struct record_state *s,
                       struct err *e)
{
    struct reader r = reader_of(p, n);
    unsigned seen = 0;

    memset(s, 0, sizeof *s);
    while (reader_left(&r)) {
        uint32_t type = read_u32(&r), len = read_u32(&r);
        const uint8_t *body = read_bytes(&r, len);
        read_bytes(&r, -len & 7);
        if (r.bad)
            return err_set(e, "platform state is cut short");
        if (type > RECORD_HVM_PARAMS || seen & 1u << type ||
            !body_parse(type, reader_of(body, len), s))
            return err_set(e,
                           "platform state has a bad record (type %#x, %u "
                           "bytes)",
                           type, len);
        seen |= 1u << type;
    }
    if (seen != (1u << RECORD_TSC_INFO | 1u << RECORD_HVM_CONTEXT |
                 1u << RECORD_HVM_PARAMS))
        return err_set(e, "platform state lacks a record (has %#x)", seen);
    return 0;
}

#define CONTEXT_HEADER 1u
#define CONTEXT_END    0u

static bool context_check(struct reader r)
{
    unsigned type = CONTEXT_HEADER;

    for (bool first = true; reader_left(&r) && type != CONTEXT_END;
         first = false) {
        type = read_u16(&r);
        read_u16(&r);
        uint32_t len = read_u32(&r);
        read_bytes(&r, len);
        if (first != (type == CONTEXT_HEADER) || (type == CONTEXT_END && len))
            return false;
    }
    return type == CONTEXT_END && reader_done(&r);
}

int record_state_check(const void *p, size_t n, struct err *e)
{
    struct record_state s;

    if (record_state_parse(p, n, &s, e))
        return -1;
    if (!context_check(reader_of(s.context, s.context_len)))
        return err_set(e, "platform state has a bad HVM context");
    return 0;
}
