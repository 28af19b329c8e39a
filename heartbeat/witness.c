// SPDX-License-Identifier: Apache-2.0
/* The witness's memory; see witness.h. */
#include "heartbeat/witness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATE_VERSION 1

void witness_free(struct witness *w)
{
    free(w->list);
    w->list = NULL;
    w->count = 0;
}

static struct witness_record *find(const struct witness *w,
                                   const uint8_t vm[16])
{
    for (size_t i = 0; i < w->count; i++) {
        if (!memcmp(w->list[i].vm, vm, 16))
            return &w->list[i];
    }
    return NULL;
}

static int member_of(const struct witness_record *r,
                     const uint8_t pin[WITNESS_PIN])
{
    for (int i = 0; i < 2; i++) {
        if (!memcmp(r->member[i], pin, WITNESS_PIN))
            return i;
    }
    return -1;
}

static int save(struct witness *w, struct err *e)
{
    struct buf b = {0};

    witness_put(w, &b);
    int rc = w->save(w->arg, &b, e);
    buf_free(&b);
    w->broken |= rc != 0;
    return rc;
}

int witness_seal(struct witness *w, const char *why, struct err *e)
{
    if (w->sealed)
        return 0;
    w->sealed = true;
    snprintf(w->why, sizeof w->why, "%s", why);
    return save(w, e);
}

int witness_unseal(struct witness *w, struct err *e)
{
    w->sealed = false;
    w->why[0] = '\0';
    return save(w, e);
}

int witness_forget(struct witness *w, const uint8_t vm[16], struct err *e)
{
    struct witness_record *r = find(w, vm);

    if (!r)
        return err_kind(e, ERR_GONE, "there is no record of this VM");
    *r = w->list[--w->count];
    return save(w, e);
}

/* --- Asking -------------------------------------------------------------- */

/* Protection begins: what was before is void. */
static bool registered(struct witness_record *r, int who,
                       const uint8_t asker[WITNESS_PIN],
                       const struct witness_ask *ask)
{
    int me = who < 0 ? 0 : who;
    bool again = r->holder == me && ask->nonce && r->nonce == ask->nonce &&
                 !memcmp(r->member[1 - me], ask->other, WITNESS_PIN);

    if (again || (r->holder != me && r->holder != WITNESS_NOBODY))
        return false;
    memcpy(r->member[me], asker, WITNESS_PIN);
    memcpy(r->member[1 - me], ask->other, WITNESS_PIN);
    r->holder = (uint8_t)me;
    r->nonce = ask->nonce;
    r->running = true;
    r->generation++;
    return true;
}

static void record_new(struct witness_record *r,
                       const uint8_t asker[WITNESS_PIN],
                       const struct witness_ask *ask)
{
    memset(r, 0, sizeof *r);
    memcpy(r->vm, ask->vm, sizeof r->vm);
    r->generation = ask->generation ? ask->generation - 1 : 0;
    r->holder = WITNESS_NOBODY;
    registered(r, -1, asker, ask);
}

/* Of the holder, at the record's generation. True when the record changed. */
static bool holder_apply(struct witness_record *r,
                         const struct witness_ask *ask)
{
    switch (ask->op) {
    case WITNESS_RUNNING:
        if (r->running)
            return false;
        r->running = true;
        return true;
    case WITNESS_RETURN:
        if (r->running)
            return false;
        r->generation++;
        r->holder = (uint8_t)(1 - r->holder);
        r->nonce = 0;
        return true;
    case WITNESS_LEAVE:
        r->generation++;
        r->holder = WITNESS_NOBODY;
        r->nonce = 0;
        r->running = true; /* outside of us: no replica is to be kept for it */
        return true;
    default:
        return false;
    }
}

/* True when the record changed. */
static bool record_apply(struct witness_record *r, int who,
                         const uint8_t asker[WITNESS_PIN],
                         const struct witness_ask *ask)
{
    bool holds = r->holder == who;
    bool same = ask->generation == r->generation;

    if (ask->op == WITNESS_REGISTER)
        return same && registered(r, who, asker, ask);
    if (ask->op != WITNESS_CLAIM)
        return same && holds && holder_apply(r, ask);
    if (!same || !ask->nonce || r->holder == WITNESS_NOBODY)
        return false;
    r->generation++;
    r->holder = (uint8_t)who;
    r->nonce = ask->nonce;
    r->running = false;
    return true;
}

bool witness_apply(struct witness_record *r, bool there,
                   const uint8_t asker[WITNESS_PIN],
                   const struct witness_ask *ask, struct witness_answer *out)
{
    int who = there ? member_of(r, asker) : 0;
    bool nobody = there && r->holder == WITNESS_NOBODY;
    bool changed = true;

    memset(out, 0, sizeof *out);
    if (!there && ask->op != WITNESS_REGISTER)
        out->status = WITNESS_UNKNOWN;
    else if (who < 0 && !(nobody && ask->op == WITNESS_REGISTER))
        out->status = WITNESS_STRANGER;
    if (out->status)
        return false;
    if (!there)
        record_new(r, asker, ask);
    else
        changed = record_apply(r, who, asker, ask);
    out->status = WITNESS_RECORD;
    out->generation = r->generation;
    out->mine =
        r->holder == (who < 0 ? 0 : who) &&
        (r->nonce == ask->nonce || (!r->nonce && ask->op != WITNESS_REGISTER));
    out->running = r->running;
    return changed;
}

/* A host that knows a later number than the record: what we remember is old. */
static int outdated(struct witness *w, const struct witness_record *r,
                    uint64_t theirs, struct err *e)
{
    char why[256];

    snprintf(why, sizeof why,
             "a host knows generation %llu of a VM that has %llu here: this "
             "state is older than what was once answered",
             (unsigned long long)theirs, (unsigned long long)r->generation);
    return witness_seal(w, why, e);
}

/* The record, or room for one. */
static struct witness_record *room(struct witness *w)
{
    struct witness_record *list;

    list = realloc(w->list, (w->count + 1) * sizeof *list);
    if (!list)
        abort();
    w->list = list;
    return list + w->count;
}

int witness_ask(struct witness *w, const uint8_t asker[WITNESS_PIN],
                const struct witness_ask *ask, struct witness_answer *out,
                struct err *e)
{
    struct witness_record *r = find(w, ask->vm);
    bool there = r;

    memset(out, 0, sizeof *out);
    if (w->broken)
        return err_set(e, "the last change could not be written down");
    if (ask->op < WITNESS_REGISTER || ask->op > WITNESS_LEAVE)
        return err_set(e, "%u is nothing to ask for", ask->op);
    if (there && member_of(r, asker) >= 0 && ask->generation > r->generation &&
        outdated(w, r, ask->generation, e))
        return -1;
    if (w->sealed)
        out->status = WITNESS_SEALED;
    else if (!there && ask->op == WITNESS_REGISTER &&
             w->count >= WITNESS_VMS_MAX)
        out->status = WITNESS_FULL;
    if (out->status)
        return 0;
    if (!there)
        r = room(w);
    bool changed = witness_apply(r, there, asker, ask, out);
    w->count += changed && !there;
    return changed ? save(w, e) : 0;
}

/* --- Bytes --------------------------------------------------------------- */

void witness_put(const struct witness *w, struct buf *out)
{
    buf_u32(out, STATE_VERSION);
    buf_u8(out, w->sealed);
    buf_str(out, w->why);
    buf_u32(out, (uint32_t)w->count);
    for (size_t i = 0; i < w->count; i++) {
        const struct witness_record *r = &w->list[i];
        buf_put(out, r->vm, sizeof r->vm);
        buf_put(out, r->member, sizeof r->member);
        buf_u8(out, r->holder);
        buf_u8(out, r->running);
        buf_u64(out, r->generation);
        buf_u64(out, r->nonce);
    }
}

static void bytes_get(struct reader *r, void *out, size_t n)
{
    const uint8_t *p = read_bytes(r, n);

    if (p)
        memcpy(out, p, n);
}

static int record_get(struct witness *w, struct reader *r, struct err *e)
{
    struct witness_record new = {0};

    bytes_get(r, new.vm, sizeof new.vm);
    bytes_get(r, new.member, sizeof new.member);
    new.holder = read_u8(r);
    uint8_t running = read_u8(r);
    new.running = running;
    new.generation = read_u64(r);
    new.nonce = read_u64(r);
    if (r->bad || new.holder > WITNESS_NOBODY || running > 1 || !new.generation)
        return err_set(e, "record %zu is none", w->count + 1);
    if (find(w, new.vm))
        return err_set(e, "record %zu is there twice", w->count + 1);
    w->list[w->count++] = new;
    return 0;
}

int witness_get(struct witness *w, const void *data, size_t len, struct err *e)
{
    struct reader r = reader_of(data, len);
    uint32_t version = read_u32(&r);
    uint8_t sealed = read_u8(&r);

    read_str(&r, w->why, sizeof w->why);
    uint32_t count = read_u32(&r);
    if (r.bad || version != STATE_VERSION || sealed > 1 ||
        count > WITNESS_VMS_MAX)
        return err_set(e, "the state is of another version (%u), or broken",
                       version);
    w->sealed = sealed;
    w->list = calloc(count ? count : 1, sizeof *w->list);
    if (!w->list)
        abort();
    for (uint32_t i = 0; i < count; i++) {
        if (record_get(w, &r, e))
            goto bad;
    }
    if (reader_done(&r))
        return 0;
    err_set(e, "the state has bytes left over");
bad:
    witness_free(w);
    return -1;
}
