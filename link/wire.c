// SPDX-License-Identifier: Apache-2.0
/* Encoding and decoding of the preamble, record headers and control payloads;
 * see wire.h and docs/protocol.md. Called by sessions and by the agents that
 * speak through them, on any thread: there is no state here. */
#include "link/wire.h"
#include "common/text.h"

#include <stdio.h>
#include <string.h>

static const char magic[8] = {'U', 'N', 'D', 'R', 'S', 'T', 'D', 'Y'};
static const uint8_t no_uuid[16];

enum { IN_HOST = 1, IN_VM = 2, IN_ARBITER = 4, IN_ALL = 7 };

static const struct type_info {
    uint32_t type;
    const char *name;
    unsigned where;
    uint32_t max;
} types[] = {
    {WIRE_HELLO, "HELLO", IN_ALL, WIRE_CONTROL_MAX},
    {WIRE_BEAT, "BEAT", IN_ALL, WIRE_CONTROL_MAX},
    {WIRE_REFUSE, "REFUSE", IN_ALL, WIRE_CONTROL_MAX},
    {WIRE_BYE, "BYE", IN_ALL, WIRE_CONTROL_MAX},
    {WIRE_REQUEST, "REQUEST", IN_HOST, WIRE_JSON_MAX + 4},
    {WIRE_REPLY, "REPLY", IN_HOST, WIRE_JSON_MAX + 4},
    {WIRE_BLUEPRINT, "BLUEPRINT", IN_VM, WIRE_BULK_CHUNK + 64},
    {WIRE_READY, "READY", IN_VM, WIRE_CONTROL_MAX},
    {WIRE_DISCARD, "DISCARD", IN_VM, WIRE_CONTROL_MAX},
    {WIRE_DISCARDED, "DISCARDED", IN_VM, WIRE_CONTROL_MAX},
    {WIRE_STOP, "STOP", IN_VM, WIRE_CONTROL_MAX},
    {WIRE_STOPPED, "STOPPED", IN_VM, WIRE_CONTROL_MAX},
    {WIRE_ASK, "ASK", IN_ARBITER, WIRE_CONTROL_MAX},
    {WIRE_ANSWER, "ANSWER", IN_ARBITER, WIRE_CONTROL_MAX},
    {WIRE_SEAL, "SEAL", IN_ARBITER, WIRE_CONTROL_MAX},
    {WIRE_PAGES, "PAGES", IN_VM, WIRE_PAYLOAD_MAX},
    {WIRE_STATE, "STATE", IN_VM, WIRE_PAYLOAD_MAX},
    {WIRE_COMMIT, "COMMIT", IN_VM, 64u << 10},
    {WIRE_ACK, "ACK", IN_VM, WIRE_CONTROL_MAX},
    {WIRE_DISK, "DISK", IN_VM, 400u << 10},
    {WIRE_DISK_WANT, "DISK_WANT", IN_VM, WIRE_CONTROL_MAX},
};

static const struct type_info *type_find(uint32_t type)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].type == type)
            return &types[i];
    return NULL;
}

const char *wire_type_name(uint32_t type)
{
    const struct type_info *t = type_find(type);

    return t ? t->name : NULL;
}

bool wire_type_legal(enum wire_kind kind, uint32_t type)
{
    static const unsigned in[] = {
        [WIRE_HOST] = IN_HOST, [WIRE_VM] = IN_VM, [WIRE_ARBITER] = IN_ARBITER};
    const struct type_info *t = type_find(type);

    return t && (t->where & in[kind]);
}

uint32_t wire_type_max(uint32_t type)
{
    const struct type_info *t = type_find(type);

    return t ? t->max : 0;
}

void wire_preamble_put(const struct wire_preamble *p,
                       uint8_t out[WIRE_PREAMBLE])
{
    memset(out, 0, WIRE_PREAMBLE);
    memcpy(out, magic, sizeof magic);
    put_le32(out + 8, p->version | (uint32_t)p->kind << 16);
    memcpy(out + 16, p->uuid, 16);
}

int wire_preamble_get(struct wire_preamble *p, const uint8_t in[WIRE_PREAMBLE],
                      struct err *e)
{
    memset(p, 0, sizeof *p);
    if (memcmp(in, magic, sizeof magic) != 0)
        return err_set(e, "the connection does not begin like one of ours");
    p->version = (uint16_t)get_le32(in + 8);
    if (p->version != WIRE_PREAMBLE_VERSION)
        return err_kind(e, ERR_REFUSED,
                        "the connector's preamble is version %u, not %u",
                        p->version, WIRE_PREAMBLE_VERSION);
    p->kind = (uint16_t)(get_le32(in + 8) >> 16);
    memcpy(p->uuid, in + 16, 16);
    bool zero = !memcmp(p->uuid, no_uuid, 16);
    bool known = p->kind >= WIRE_HOST && p->kind <= WIRE_ARBITER;
    if (get_le32(in + 12) != 0 || !known || zero != (p->kind != WIRE_VM))
        return err_set(e, "the connection's preamble is malformed");
    return 0;
}

void wire_header_put(const struct wire_header *h, uint8_t out[WIRE_HEADER])
{
    put_le32(out, h->type);
    put_le32(out + 4, h->length);
    put_le64(out + 8, 0);
}

int wire_header_get(struct wire_header *h, const uint8_t in[WIRE_HEADER],
                    struct err *e)
{
    h->type = get_le32(in);
    h->length = get_le32(in + 4);
    const struct type_info *t = type_find(h->type);
    if (!t)
        return err_set(e, "the peer sent a record of unknown type %u", h->type);
    if (h->length > t->max)
        return err_set(e, "the peer sent a %s record of %u bytes, more than %u",
                       t->name, h->length, t->max);
    if (get_le64(in + 8) != 0)
        return err_set(e, "the reserved field of a %s record is not zero",
                       t->name);
    return 0;
}

static int malformed(uint32_t type, struct err *e)
{
    return err_set(e, "the peer sent a malformed %s record",
                   wire_type_name(type));
}

static void read_text(struct reader *r, char *out, size_t size)
{
    read_str(r, out, size);
    text_printable(out);
}

/* Senders cut their texts to the limit instead of breaking the protocol. */
static void put_text(struct buf *b, const char *s, size_t size)
{
    size_t n = strnlen(s, size - 1);

    buf_blob(b, s, n);
}

static void read_id(struct reader *r, uint8_t out[16])
{
    const uint8_t *p = read_bytes(r, 16);

    memset(out, 0, 16);
    if (p)
        memcpy(out, p, 16);
}

void hello_put(struct buf *b, const struct wire_hello *h)
{
    buf_u16(b, h->protocol);
    buf_u16(b, h->kind);
    buf_u16(b, h->role);
    buf_u16(b, (uint16_t)((h->has_replica ? 1 : 0) | (h->running ? 2 : 0)));
    buf_put(b, h->uuid, 16);
    buf_put(b, h->incarnation, 16);
    buf_u64(b, h->generation);
    buf_u64(b, h->committed);
    buf_u64(b, h->beat_ms);
    put_text(b, h->version, sizeof h->version);
    put_text(b, h->name, sizeof h->name);
}

static bool hello_fits(const struct wire_hello *h, uint16_t flags)
{
    bool host = h->kind != WIRE_VM;
    bool zero = !memcmp(h->uuid, no_uuid, 16);

    if (h->kind < WIRE_HOST || h->kind > WIRE_ARBITER)
        return false;
    if (h->role > WIRE_BACKUP || host != (h->role == WIRE_ROLE_HOST) ||
        host != zero)
        return false;
    if (flags > 3 || (host && flags))
        return false;
    if (h->has_replica && (h->role != WIRE_BACKUP || !h->committed))
        return false;
    if (h->generation > WIRE_NUMBER_MAX || h->committed > WIRE_NUMBER_MAX)
        return false;
    return h->beat_ms >= 1 && h->beat_ms <= 60000 && h->version[0] &&
           h->name[0];
}

int hello_get(struct wire_hello *h, const void *p, size_t n, struct err *e)
{
    struct reader r = reader_of(p, n);

    memset(h, 0, sizeof *h);
    h->protocol = read_u16(&r);
    if (r.bad)
        return malformed(WIRE_HELLO, e);
    if (h->protocol != WIRE_VERSION)
        return 0;
    h->kind = read_u16(&r);
    h->role = read_u16(&r);
    uint16_t flags = read_u16(&r);
    h->has_replica = flags & 1;
    h->running = flags & 2;
    read_id(&r, h->uuid);
    read_id(&r, h->incarnation);
    h->generation = read_u64(&r);
    h->committed = read_u64(&r);
    h->beat_ms = read_u64(&r);
    read_text(&r, h->version, sizeof h->version);
    read_text(&r, h->name, sizeof h->name);
    if (!reader_done(&r) || !hello_fits(h, flags))
        return malformed(WIRE_HELLO, e);
    return 0;
}

void beat_put(struct buf *b, const struct wire_beat *w)
{
    buf_u64(b, w->seq);
    buf_u64(b, w->sent_ns);
    buf_u64(b, w->echo_ns);
    buf_u64(b, w->held_ns);
}

int beat_get(struct wire_beat *w, const void *p, size_t n, struct err *e)
{
    struct reader r = reader_of(p, n);

    w->seq = read_u64(&r);
    w->sent_ns = read_u64(&r);
    w->echo_ns = read_u64(&r);
    w->held_ns = read_u64(&r);
    return reader_done(&r) && w->seq ? 0 : malformed(WIRE_BEAT, e);
}

void refuse_put(struct buf *b, const struct err *why)
{
    buf_u32(b, why->kind ? (uint32_t)why->kind : (uint32_t)ERR_FAILED);
    put_text(b, why->text, sizeof why->text);
    put_text(b, why->hint, sizeof why->hint);
}

int refuse_get(struct err *why, const void *p, size_t n, struct err *e)
{
    struct reader r = reader_of(p, n);
    struct err got = ERR_INIT;

    uint32_t kind = read_u32(&r);
    read_text(&r, got.text, sizeof got.text);
    read_text(&r, got.hint, sizeof got.hint);
    if (!reader_done(&r) || kind < ERR_FAILED || kind > ERR_GONE)
        return malformed(WIRE_REFUSE, e);
    got.kind = (enum err_kind)kind;
    *why = got;
    return 0;
}

void bye_put(struct buf *b, const char *text)
{
    put_text(b, text, 256);
}

int bye_get(char text[256], const void *p, size_t n, struct err *e)
{
    struct reader r = reader_of(p, n);

    read_text(&r, text, 256);
    return reader_done(&r) ? 0 : malformed(WIRE_BYE, e);
}

void call_put(struct buf *b, const struct wire_call *c)
{
    buf_u32(b, c->id);
    buf_put(b, c->json, c->len);
}

int call_get(struct wire_call *c, const void *p, size_t n, struct err *e)
{
    struct reader r = reader_of(p, n);

    c->id = read_u32(&r);
    c->len = reader_left(&r);
    c->json = (const char *)r.p;
    if (r.bad || c->len > WIRE_JSON_MAX)
        return err_set(e, "the peer sent a malformed REQUEST or REPLY record");
    return 0;
}

void ask_put(struct buf *b, const struct wire_ask *w)
{
    buf_u32(b, w->id);
    buf_u32(b, w->op);
    buf_put(b, w->vm, sizeof w->vm);
    buf_u64(b, w->generation);
    buf_u64(b, w->nonce);
    buf_put(b, w->other, sizeof w->other);
}

int ask_get(struct wire_ask *w, const void *p, size_t n, struct err *e)
{
    struct reader r = reader_of(p, n);

    w->id = read_u32(&r);
    w->op = read_u32(&r);
    read_id(&r, w->vm);
    w->generation = read_u64(&r);
    w->nonce = read_u64(&r);
    const uint8_t *other = read_bytes(&r, sizeof w->other);
    if (!reader_done(&r) || w->op < 1 || w->op > 6 ||
        w->generation > INT64_MAX || !memcmp(w->vm, no_uuid, 16))
        return malformed(WIRE_ASK, e);
    memcpy(w->other, other, sizeof w->other);
    return 0;
}

void answer_put(struct buf *b, const struct wire_answer *w)
{
    buf_u32(b, w->id);
    buf_u32(b, w->status);
    buf_u64(b, w->generation);
    buf_u8(b, w->mine);
    buf_u8(b, w->running);
}

int answer_get(struct wire_answer *w, const void *p, size_t n, struct err *e)
{
    struct reader r = reader_of(p, n);

    w->id = read_u32(&r);
    w->status = read_u32(&r);
    w->generation = read_u64(&r);
    uint8_t mine = read_u8(&r), running = read_u8(&r);
    w->mine = mine;
    w->running = running;
    if (!reader_done(&r) || w->status < 1 || w->status > 5 || mine > 1 ||
        running > 1 || w->generation > INT64_MAX)
        return malformed(WIRE_ANSWER, e);
    return 0;
}

void seal_put(struct buf *b, const struct wire_seal *w)
{
    buf_u8(b, w->sealed);
    put_text(b, w->why, sizeof w->why);
}

int seal_get(struct wire_seal *w, const void *p, size_t n, struct err *e)
{
    struct reader r = reader_of(p, n);
    uint8_t sealed = read_u8(&r);

    w->sealed = sealed;
    read_text(&r, w->why, sizeof w->why);
    return reader_done(&r) && sealed <= 1 ? 0 : malformed(WIRE_SEAL, e);
}

void blueprint_put(struct buf *b, const struct wire_blueprint *w)
{
    buf_u32(b, w->total);
    buf_u32(b, w->offset);
    buf_u8(b, w->last);
    buf_put(b, w->data, w->len);
}

int blueprint_get(struct wire_blueprint *w, const void *p, size_t n,
                  struct err *e)
{
    struct reader r = reader_of(p, n);

    memset(w, 0, sizeof *w);
    w->total = read_u32(&r);
    w->offset = read_u32(&r);
    uint8_t last = read_u8(&r);
    w->last = last == 1;
    w->len = reader_left(&r);
    w->data = r.p;
    if (r.bad || last > 1 || !w->total || w->total > WIRE_BLUEPRINT_MAX ||
        !w->len || w->offset > w->total || w->len > w->total - w->offset ||
        w->last != (w->offset + w->len == w->total))
        return malformed(WIRE_BLUEPRINT, e);
    return 0;
}

int blueprint_collect(struct buf *all, const struct wire_blueprint *w,
                      bool *done, struct err *e)
{
    *done = false;
    if (w->offset != all->len)
        return err_set(e,
                       "the peer sent the blueprint out of order: %u bytes in, "
                       "%zu expected",
                       w->offset, all->len);
    buf_put(all, w->data, w->len);
    *done = w->last;
    return 0;
}

void ready_put(struct buf *b, const struct wire_ready *w)
{
    buf_u64(b, w->generation);
    buf_u64(b, w->committed);
}

int ready_get(struct wire_ready *w, const void *p, size_t n, struct err *e)
{
    struct reader r = reader_of(p, n);

    w->generation = read_u64(&r);
    w->committed = read_u64(&r);
    return reader_done(&r) ? 0 : malformed(WIRE_READY, e);
}

void discard_put(struct buf *b, const struct wire_discard *w)
{
    buf_u64(b, w->generation);
    buf_put(b, w->incarnation, 16);
    put_text(b, w->text, sizeof w->text);
}

int discard_get(struct wire_discard *w, const void *p, size_t n, struct err *e)
{
    struct reader r = reader_of(p, n);

    w->generation = read_u64(&r);
    read_id(&r, w->incarnation);
    read_text(&r, w->text, sizeof w->text);
    return reader_done(&r) ? 0 : malformed(WIRE_DISCARD, e);
}

const char *stop_reason_name(uint32_t reason)
{
    static const char *const names[] = {
        [WIRE_STOP_UNPROTECT] = "unprotect", [WIRE_STOP_POWEROFF] = "power-off",
        [WIRE_STOP_REBOOT] = "reboot",       [WIRE_STOP_CRASH] = "crash",
        [WIRE_STOP_MIGRATE] = "migrate",     [WIRE_STOP_GONE] = "gone",
    };

    return reason < sizeof names / sizeof names[0] ? names[reason] : NULL;
}

void stop_put(struct buf *b, const struct wire_stop *w)
{
    buf_u32(b, w->reason);
    buf_u64(b, w->generation);
    buf_put(b, w->incarnation, 16);
}

int stop_get(struct wire_stop *w, const void *p, size_t n, struct err *e)
{
    struct reader r = reader_of(p, n);

    w->reason = read_u32(&r);
    w->generation = read_u64(&r);
    read_id(&r, w->incarnation);
    return reader_done(&r) && stop_reason_name(w->reason)
               ? 0
               : malformed(WIRE_STOP, e);
}
