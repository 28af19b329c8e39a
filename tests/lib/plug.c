// SPDX-License-Identifier: Apache-2.0
/* Disks that lose power; see plug.h. */
#include "tests/lib/plug.h"

#include <stdlib.h>
#include <string.h>

uint64_t plug_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
    return *seed >> 33;
}

/* The plug is out, or comes out right here. */
static bool gone(struct plug_disk *d, struct err *e)
{
    if (!d->line->off && ++d->line->ops == d->line->pulled_at)
        d->line->off = true;
    if (d->line->off)
        err_set(e, "%s: power", d->store.name);
    return d->line->off;
}

static struct plug_write *write_new(uint64_t offset, const void *p, size_t len)
{
    struct plug_write *w = calloc(1, sizeof *w);

    w->offset = offset;
    w->len = len;
    w->data = calloc(1, len);
    if (p)
        memcpy(w->data, p, len);
    return w;
}

static void write_free(struct plug_write *w)
{
    if (w)
        free(w->data);
    free(w);
}

static void pending_clear(struct plug_disk *d)
{
    for (struct plug_write *w = d->pending, *next; w; w = next) {
        next = w->next;
        write_free(w);
    }
    d->pending = NULL;
    d->last = &d->pending;
}

static int plug_read(struct store *s, uint64_t offset, void *p, size_t len,
                     struct err *e)
{
    struct plug_disk *d = (struct plug_disk *)s;

    if (offset > d->bytes || len > d->bytes - offset)
        return err_set(e, "read %s: it ends there", s->name);
    memcpy(p, d->now + offset, len);
    return 0;
}

static int plug_write(struct store *s, uint64_t offset, const void *p,
                      size_t len, struct err *e)
{
    struct plug_disk *d = (struct plug_disk *)s;
    bool was_off = d->line->off;

    if (offset > d->bytes || len > d->bytes - offset)
        abort(); /* nobody may write there */
    bool off = gone(d, e);
    if (was_off)
        return -1;
    struct plug_write *w = write_new(offset, p, len);
    if (off) {
        d->cut = w;
        return -1;
    }
    *d->last = w;
    d->last = &w->next;
    memcpy(d->now + offset, w->data, len);
    return 0;
}

static int plug_zero(struct store *s, uint64_t offset, uint64_t len,
                     struct err *e)
{
    return plug_write(s, offset, NULL, (size_t)len, e);
}

static int plug_sync(struct store *s, struct err *e)
{
    struct plug_disk *d = (struct plug_disk *)s;

    if (gone(d, e))
        return -1;
    if (d->fail_sync)
        return err_set(e, "sync %s: EIO", s->name);
    for (const struct plug_write *w = d->pending; w; w = w->next)
        memcpy(d->durable + w->offset, w->data, w->len);
    pending_clear(d);
    return 0;
}

static const struct store_ops plug_ops = {plug_read, plug_write, plug_zero,
                                          plug_sync};

void plug_open(struct plug_disk *d, struct plug_line *line, const char *name,
               size_t bytes)
{
    memset(d, 0, sizeof *d);
    d->store = (struct store){&plug_ops, -1, name};
    d->line = line;
    d->bytes = bytes;
    d->now = calloc(1, bytes);
    d->durable = calloc(1, bytes);
    d->last = &d->pending;
}

void plug_close(struct plug_disk *d)
{
    pending_clear(d);
    write_free(d->cut);
    free(d->now);
    free(d->durable);
    memset(d, 0, sizeof *d);
}

/* Sectors of w that survive, at most `len` bytes. */
static void write_survives(struct plug_disk *to, const struct plug_write *w,
                           size_t len, bool coin, uint64_t *seed)
{
    for (size_t i = 0; i < len; i += PLUG_SECTOR) {
        size_t n = len - i < PLUG_SECTOR ? len - i : PLUG_SECTOR;
        if (!coin || plug_random(seed) & 1)
            memcpy(to->durable + w->offset + i, w->data + i, n);
    }
}

void plug_back(struct plug_disk *to, const struct plug_disk *from,
               enum plug_outcome outcome, size_t torn, uint64_t *seed)
{
    bool coin = outcome == PLUG_SOME;

    if (to != from)
        memcpy(to->durable, from->durable, from->bytes);
    for (const struct plug_write *w = from->pending;
         w && outcome != PLUG_NOTHING; w = w->next)
        write_survives(to, w, w->len, coin, seed);
    if (from->cut && outcome != PLUG_NOTHING)
        write_survives(to, from->cut,
                       torn < from->cut->len ? torn : from->cut->len, coin,
                       seed);
    pending_clear(to);
    write_free(to->cut);
    to->cut = NULL;
    memcpy(to->now, to->durable, from->bytes);
}
