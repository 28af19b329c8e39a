// SPDX-License-Identifier: Apache-2.0
/* Receiving epochs; see replica.h. These functions run on the loop thread;
 * what is committed, and written into the shell, is replica_apply.c. */
#include "checkpoint/replica_private.h"
#include "checkpoint/harvest.h"
#include "common/clock.h"
#include "common/log.h"

#include <stdlib.h>
#include <string.h>

#define LACKING_MAX    64
#define SLACK_BYTES    (64ull << 20)
#define ENTRY_BYTES    16          /* of bookkeeping a page, at most */
#define LIVE_QUEUE_MAX (64u << 20) /* bytes waiting to be written */
#define LIVE_DISK_MAX  (8u << 20)  /* a disk is slower */
#define ASKS_MAX       (256u << 10)

void held_clear(struct held *h)
{
    for (struct chunk *c = h->first, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    buf_free(&h->state);
    memset(h, 0, sizeof *h);
    h->last = NULL;
}

void disk_records_free(struct disk_records *all)
{
    for (struct disk_record *r = all->first, *next; r; r = next) {
        next = r->next;
        free(r);
    }
    *all = (struct disk_records){0};
}

void disk_records_add(struct disk_records *all, struct disk_record *r)
{
    if (!all->first)
        all->last = &all->first;
    *all->last = r;
    all->last = &r->next;
    all->bytes += r->len;
}

struct disk_record *disk_records_take(struct disk_records *all)
{
    struct disk_record *r = all->first;

    all->first = r->next;
    all->bytes -= r->len;
    r->next = NULL;
    return r;
}

void held_add(struct held *h, struct chunk *c)
{
    if (!h->first)
        h->last = &h->first;
    *h->last = c;
    h->last = &c->next;
    h->bytes += c->size;
}

static size_t bitmap_bytes(const struct replica *rep)
{
    return bitmap_words(rep->config.end_gfn) * sizeof(uint64_t);
}

static void incoming_clear(struct replica *rep)
{
    held_clear(&rep->incoming);
    memset(&rep->got, 0, sizeof rep->got);
    rep->got_disk_bytes = 0;
    memset(rep->seen, 0, bitmap_bytes(rep));
    epoch_hash_reset(rep->hash);
}

/* --- Records -------------------------------------------------------------- */

/* Frames that the shell has no RAM for are its own special pages: few. */
static int lacking_check(struct replica *rep, const struct chunk *c,
                         struct err *e)
{
    uint64_t news = 0;

    for (uint32_t i = 0; i < c->count; i++) {
        uint64_t gfn = chunk_gfn(c, i);
        if (gfn < rep->map.end_gfn && bitmap_test(rep->map.ram, gfn))
            continue;
        news += !bitmap_test(rep->lacking, gfn);
        bitmap_set(rep->lacking, gfn);
    }
    pthread_mutex_lock(&rep->lock);
    rep->status.lacking += news;
    uint64_t lacking = rep->status.lacking;
    pthread_mutex_unlock(&rep->lock);
    if (lacking > rep->config.max_lacking)
        return err_set(e, "the replica lacks %lu pages of the guest", lacking);
    return 0;
}

/* `unchanged` means the content of the epoch before; a page that was sent in
 * this epoch already has another one. */
static int repeats_check(struct replica *rep, const struct chunk *c,
                         struct err *e)
{
    for (uint32_t i = 0; i < c->count; i++) {
        uint64_t gfn = chunk_gfn(c, i);
        if (chunk_kind(c, i) != CODEC_UNCHANGED)
            bitmap_set(rep->seen, gfn);
        else if (bitmap_test(rep->seen, gfn))
            return err_set(e, "page %#lx is unchanged, but was sent", gfn);
    }
    return 0;
}

/* Waits for room among what is to be written; the lock is held. */
static int live_room(struct replica *rep, struct err *e)
{
    while (!rep->failed && (rep->live.bytes > LIVE_QUEUE_MAX ||
                            rep->live_disk.bytes > LIVE_DISK_MAX))
        pthread_cond_wait(&rep->done, &rep->lock);
    if (rep->status.committed || rep->complete.epoch || rep->incoming.epoch)
        return err_set(e, "live records after the first epoch began");
    return 0;
}

/* Writing is faster than any network, so this wait is short and local. */
static int live_queue(struct replica *rep, struct chunk *c, struct err *e)
{
    pthread_mutex_lock(&rep->lock);
    int rc = live_room(rep, e);
    if (!rc) {
        rep->status.live_pages += c->count;
        held_add(&rep->live, c);
        pthread_cond_signal(&rep->work);
    }
    pthread_mutex_unlock(&rep->lock);
    if (!rc)
        rep->live_sequence++;
    return rc;
}

/* The record must belong to the epoch after the committed one, and that one
 * must be acknowledged. */
static int epoch_check(struct replica *rep, uint64_t epoch, struct err *e)
{
    pthread_mutex_lock(&rep->lock);
    uint64_t expected = rep->status.committed + 1;
    bool waiting = rep->complete.epoch != 0;
    pthread_mutex_unlock(&rep->lock);
    if (waiting || epoch != expected)
        return err_set(e, "record of epoch %lu, expected %lu%s", epoch,
                       expected, waiting ? " to be acknowledged first" : "");
    rep->incoming.epoch = epoch;
    return 0;
}

static void record_account(struct replica *rep, const void *payload, size_t len)
{
    epoch_hash_add(rep->hash, payload, len);
    rep->got.bytes += len;
}

static int chunk_take(struct replica *rep, struct chunk *c, struct err *e)
{
    uint32_t expected = c->live ? rep->live_sequence : rep->got.chunks;

    if (c->sequence != expected)
        return err_set(e, "PAGES %u of epoch %lu, expected %u", c->sequence,
                       c->epoch, expected);
    if (lacking_check(rep, c, e))
        return -1;
    if (c->live)
        return live_queue(rep, c, e);
    if (epoch_check(rep, c->epoch, e) || repeats_check(rep, c, e))
        return -1;
    if (rep->incoming.has_state)
        return err_set(e, "PAGES after STATE");
    if (rep->incoming.bytes + c->size > rep->config.max_bytes)
        return err_set(e, "epoch %lu is larger than %lu MiB", c->epoch,
                       rep->config.max_bytes >> 20);
    rep->got.chunks++;
    rep->got.pages += c->count;
    held_add(&rep->incoming, c);
    return 0;
}

static int pages_record(struct replica *rep, const void *payload, size_t len,
                        struct err *e)
{
    struct chunk *c =
        decoder_chunk(rep->decoder, payload, len, rep->config.end_gfn, e);
    if (!c)
        return -1;
    bool live = c->live;
    if (chunk_take(rep, c, e)) {
        free(c);
        return -1;
    }
    if (!live)
        record_account(rep, payload, len);
    return 0;
}

/* What may be asked after the first epoch, in between two, is little; the lock
 * is held. */
static int ask_room(const struct replica *rep, struct err *e)
{
    return rep->live_disk.bytes > ASKS_MAX
               ? err_set(e, "more is asked for than may be")
               : 0;
}

static int disk_queue(struct replica *rep, struct disk_record *r,
                      uint32_t flags, struct err *e)
{
    uint64_t epoch = replica_committed(rep) + 1;

    if (flags & EPOCH_DISK_LIVE) {
        pthread_mutex_lock(&rep->lock);
        bool asks = flags & EPOCH_DISK_ASK && rep->status.committed;
        int rc = asks ? ask_room(rep, e) : live_room(rep, e);
        if (!rc)
            disk_records_add(&rep->live_disk, r);
        pthread_cond_signal(&rep->work);
        pthread_mutex_unlock(&rep->lock);
        return rc;
    }
    if (epoch_check(rep, epoch, e))
        return -1;
    if (rep->incoming.has_state)
        return err_set(e, "DISK after STATE");
    uint64_t max = rep->config.disks->max_bytes;
    if (rep->got_disk_bytes + sizeof *r + r->len > max)
        return err_set(e, "epoch %lu writes more than %lu MiB to disks", epoch,
                       max >> 20);
    rep->got_disk_bytes += sizeof *r + r->len;
    record_account(rep, r->payload, r->len);
    pthread_mutex_lock(&rep->lock);
    disk_records_add(&rep->arriving, r);
    pthread_cond_signal(&rep->work);
    pthread_mutex_unlock(&rep->lock);
    return 0;
}

/* Whose number is the epoch's, the disks see. */
static int disk_record(struct replica *rep, const void *payload, size_t len,
                       struct err *e)
{
    const uint8_t *rest;
    size_t rest_len;
    struct epoch_disk d;

    if (!rep->config.disks)
        return err_set(e, "DISK, and the replica has none");
    if (epoch_disk_read(payload, len, &d, &rest, &rest_len, e))
        return -1;
    struct disk_record *r = malloc(sizeof *r + len);
    if (!r)
        abort();
    r->next = NULL;
    r->len = len;
    memcpy(r->payload, payload, len);
    if (!disk_queue(rep, r, d.flags, e))
        return 0;
    free(r);
    return -1;
}

static int state_record(struct replica *rep, const void *payload, size_t len,
                        struct err *e)
{
    uint64_t epoch;
    const uint8_t *state;
    size_t state_len;

    if (epoch_state_read(payload, len, &epoch, &state, &state_len, e) ||
        epoch_check(rep, epoch, e))
        return -1;
    if (rep->incoming.has_state)
        return err_set(e, "a second STATE in epoch %lu", epoch);
    if (rep->hv->ops->state_check(state, state_len, e))
        return err_add(e, "STATE of epoch %lu", epoch);
    buf_put(&rep->incoming.state, state, state_len);
    rep->incoming.has_state = true;
    rep->incoming.bytes += state_len;
    record_account(rep, payload, len);
    return 0;
}

static int commit_verify(struct replica *rep, const struct epoch_commit *c,
                         struct err *e)
{
    struct epoch_digest digest = epoch_hash_value(rep->hash);

    if (!rep->incoming.has_state)
        return err_set(e, "COMMIT of epoch %lu without STATE", c->epoch);
    if (c->pages != rep->got.pages || c->chunks != rep->got.chunks ||
        c->bytes != rep->got.bytes)
        return err_set(e,
                       "epoch %lu: %lu pages, %u chunks, %lu bytes came, "
                       "COMMIT says %lu, %u, %lu",
                       c->epoch, rep->got.pages, rep->got.chunks,
                       rep->got.bytes, c->pages, c->chunks, c->bytes);
    if (memcmp(&digest, &c->digest, sizeof digest) != 0)
        return err_set(e, "epoch %lu: wrong digest", c->epoch);
    return 0;
}

static int commit_record(struct replica *rep, const void *payload, size_t len,
                         struct err *e)
{
    struct epoch_commit c;

    if (epoch_commit_read(payload, len, &c, e) ||
        epoch_check(rep, c.epoch, e) || commit_verify(rep, &c, e))
        return -1;
    pthread_mutex_lock(&rep->lock);
    rep->complete = rep->incoming;
    rep->status.pages += rep->got.pages;
    pthread_cond_signal(&rep->work);
    pthread_mutex_unlock(&rep->lock);
    memset(&rep->incoming, 0, sizeof rep->incoming);
    incoming_clear(rep);
    return 0;
}

int replica_record(struct replica *rep, enum epoch_record type,
                   const void *payload, size_t len, struct err *e)
{
    int rc;

    pthread_mutex_lock(&rep->lock);
    bool closing = rep->closing, failed = rep->failed;
    rep->status.bytes += len;
    pthread_mutex_unlock(&rep->lock);
    if (closing)
        return err_kind(e, ERR_REFUSED, "the replica is being taken over");
    if (failed)
        return 0; /* the owner was told why, and is about to give it up */
    switch (type) {
    case EPOCH_PAGES:
        rc = pages_record(rep, payload, len, e);
        break;
    case EPOCH_STATE:
        rc = state_record(rep, payload, len, e);
        break;
    case EPOCH_DISK:
        rc = disk_record(rep, payload, len, e);
        break;
    case EPOCH_COMMIT:
        rc = commit_record(rep, payload, len, e);
        break;
    default:
        rc = err_set(e, "record of unknown kind %d", (int)type);
    }
    pthread_mutex_lock(&rep->lock);
    rep->status.held_bytes = rep->incoming.bytes;
    pthread_mutex_unlock(&rep->lock);
    return rc;
}

void replica_session_lost(struct replica *rep)
{
    pthread_mutex_lock(&rep->lock);
    held_clear(&rep->complete);
    held_clear(&rep->live);
    disk_records_free(&rep->live_disk);
    disk_records_free(&rep->arriving);
    rep->coming++;
    rep->status.held_bytes = 0;
    pthread_mutex_unlock(&rep->lock);
    rep->live_sequence = 0;
    incoming_clear(rep);
}

uint64_t replica_committed(struct replica *rep)
{
    pthread_mutex_lock(&rep->lock);
    uint64_t n = rep->status.committed;
    pthread_mutex_unlock(&rep->lock);
    return n;
}

void replica_status(struct replica *rep, struct replica_status *st)
{
    pthread_mutex_lock(&rep->lock);
    *st = rep->status;
    pthread_mutex_unlock(&rep->lock);
}

/* --- Life ------------------------------------------------------------------
 */

static int store_open(struct replica *rep, struct err *e)
{
    struct replica_config *c = &rep->config;

    if (rep->hv->ops->map(rep->hv, c->domid, true, &rep->map, e))
        return err_add(e, "map the replica's memory");
    if (!c->end_gfn)
        c->end_gfn = rep->map.end_gfn;
    if (c->end_gfn > EPOCH_MAX_GFN)
        return err_kind(e, ERR_REFUSED, "the guest is larger than 1 TiB");
    if (!c->max_lacking)
        c->max_lacking = LACKING_MAX;
    if (!c->max_bytes)
        c->max_bytes =
            rep->map.ram_pages * (HV_PAGE + ENTRY_BYTES) + SLACK_BYTES;
    rep->seen = calloc(1, bitmap_bytes(rep));
    rep->lacking = calloc(1, bitmap_bytes(rep));
    if (!rep->seen || !rep->lacking)
        return err_sys(e, "page bitmaps");
    return decoder_open(&rep->decoder, e);
}

static void store_close(struct replica *rep)
{
    held_clear(&rep->incoming);
    held_clear(&rep->live);
    held_clear(&rep->complete);
    held_clear(&rep->committed);
    disk_records_free(&rep->live_disk);
    disk_records_free(&rep->arriving);
    disk_records_free(&rep->handed.records);
    buf_free(&rep->state);
    if (rep->map.base)
        rep->hv->ops->unmap(rep->hv, &rep->map);
    decoder_free(rep->decoder);
    epoch_hash_free(rep->hash);
    free(rep->seen);
    free(rep->lacking);
    pthread_mutex_destroy(&rep->lock);
    pthread_cond_destroy(&rep->work);
    pthread_cond_destroy(&rep->done);
}

int replica_open(struct replica **out, struct hv *hv,
                 const struct replica_config *config, struct err *e)
{
    struct replica *rep = calloc(1, sizeof *rep);

    if (!rep)
        return err_sys(e, "replica");
    rep->hv = hv;
    rep->config = *config;
    rep->hash = epoch_hash_new();
    rep->coming = 1;
    pthread_mutex_init(&rep->lock, NULL);
    pthread_cond_init(&rep->work, NULL);
    pthread_cond_init(&rep->done, NULL);
    if (store_open(rep, e) || replica_thread_start(rep, e)) {
        store_close(rep);
        free(rep);
        return -1;
    }
    *out = rep;
    return 0;
}

void replica_free(struct replica *rep)
{
    if (!rep)
        return;
    replica_thread_stop(rep);
    store_close(rep);
    if (rep->config.disks)
        rep->config.disks->ops->free(rep->config.disks);
    rep->hv->ops->close(rep->hv);
    free(rep);
}
