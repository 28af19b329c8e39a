// SPDX-License-Identifier: Apache-2.0
/* The primary's log of disk writes by cuts; see epochlog.h. Called by the
 * block server under its log lock, and by tests. */
#include "disk-replicate/epochlog.h"

#include <stdlib.h>
#include <string.h>

#define NONE          UINT32_MAX
#define BLOCK_SECTORS (EPOCHLOG_BLOCK / SECTOR)

/* What one block holds: sectors in `data` are in the page, those in `zero` are
 * zeroes, the others were not written. */
struct entry {
    uint64_t block;
    uint32_t page; /* NONE when `data` is empty */
    uint32_t slot; /* where the table names it */
    uint8_t data, zero;
};

struct map {
    struct entry *entry;
    uint32_t count;
    uint32_t *table; /* open addressing: indices of `entry`, or NONE */
};

struct epochlog {
    uint32_t pages, entries, table_size, table_shift;
    uint32_t limit; /* pages, at most those there are */
    uint8_t *pool;
    uint32_t *unused, unused_count; /* stack of pages */
    struct map open, closed;
    uint64_t open_cut;    /* label of `open` */
    uint64_t closed_last; /* highest label in `closed` */
    uint64_t whole_cut;   /* only later cuts can be fetched */
    uint32_t *order;      /* of closed's entries, by block */
    uint32_t order_count, order_at, sector_at;
    bool fetching;
};

/* --- Maps ----------------------------------------------------------------- */

static uint32_t slot_of(const struct epochlog *log, const struct map *m,
                        uint64_t block)
{
    uint32_t slot =
        (uint32_t)((block * 0x9e3779b97f4a7c15ull) >> log->table_shift);

    while (m->table[slot] != NONE && m->entry[m->table[slot]].block != block)
        slot = (slot + 1) & (log->table_size - 1);
    return slot;
}

static struct entry *map_find(const struct epochlog *log, const struct map *m,
                              uint64_t block)
{
    uint32_t i = m->table[slot_of(log, m, block)];

    return i == NONE ? NULL : &m->entry[i];
}

static struct entry *map_add(const struct epochlog *log, struct map *m,
                             uint64_t block)
{
    uint32_t slot = slot_of(log, m, block);
    struct entry *x = &m->entry[m->count];

    *x = (struct entry){.block = block, .page = NONE, .slot = slot};
    m->table[slot] = m->count++;
    return x;
}

static void page_free(struct epochlog *log, struct entry *x)
{
    if (x->page != NONE)
        log->unused[log->unused_count++] = x->page;
    x->page = NONE;
}

/* Forget the entries; their pages are gone or free already. */
static void map_empty(struct map *m)
{
    for (uint32_t i = 0; i < m->count; i++)
        m->table[m->entry[i].slot] = NONE;
    m->count = 0;
}

static uint8_t *page_at(const struct epochlog *log, uint32_t page)
{
    return log->pool + (size_t)page * EPOCHLOG_BLOCK;
}

/* --- Cuts ----------------------------------------------------------------- */

static void sectors_copy(uint8_t *to, const uint8_t *from, uint8_t mask)
{
    for (unsigned s = 0; s < BLOCK_SECTORS; s++)
        if (mask & 1u << s)
            memcpy(to + s * SECTOR, from + s * SECTOR, SECTOR);
}

/* `late` was written after `early`, the same block; early gets both. */
static void entry_overlay(struct epochlog *log, struct entry *early,
                          struct entry *late)
{
    early->data = (uint8_t)((early->data & ~late->zero) | late->data);
    early->zero = (uint8_t)((early->zero & ~late->data) | late->zero);
    uint8_t kept = (uint8_t)(early->data & ~late->data);
    if (late->page == NONE || !kept) {
        /* One of the two pages has all that is left. */
        if (!kept) {
            page_free(log, early);
            early->page = late->page;
        }
        return;
    }
    sectors_copy(page_at(log, early->page), page_at(log, late->page),
                 late->data);
    page_free(log, late);
}

static void open_merge(struct epochlog *log)
{
    for (uint32_t i = 0; i < log->open.count; i++) {
        struct entry *late = &log->open.entry[i];
        struct entry *early = map_find(log, &log->closed, late->block);
        if (early) {
            entry_overlay(log, early, late);
            continue;
        }
        early = map_add(log, &log->closed, late->block);
        early->page = late->page;
        early->data = late->data;
        early->zero = late->zero;
    }
    map_empty(&log->open);
}

/* `cut` is the open one now. */
static void roll(struct epochlog *log, uint64_t cut)
{
    if (cut <= log->open_cut)
        return;
    if (log->open.count) {
        log->fetching = false;
        log->closed_last = log->open_cut;
        if (log->closed.count) {
            open_merge(log);
        } else {
            struct map m = log->closed;
            log->closed = log->open;
            log->open = m;
        }
    }
    log->open_cut = cut;
}

/* --- Writing -------------------------------------------------------------- */

/* The sectors of `block` that sector..end covers. */
static uint8_t mask_of(uint64_t block, uint64_t sector, uint64_t end)
{
    uint64_t first = block * BLOCK_SECTORS, last = first + BLOCK_SECTORS;
    unsigned from = sector > first ? (unsigned)(sector - first) : 0;
    unsigned to = end < last ? (unsigned)(end - first) : BLOCK_SECTORS;

    return (uint8_t)((0xffu << from) & (0xffu >> (BLOCK_SECTORS - to)));
}

static bool has_room(const struct epochlog *log, uint64_t first, uint64_t last,
                     bool data)
{
    uint64_t used = (uint64_t)log->open.count + log->closed.count;
    uint64_t entries = 0, pages = 0;

    if (last - first >= log->entries)
        return false;
    for (uint64_t block = first; block <= last; block++) {
        const struct entry *x = map_find(log, &log->open, block);
        entries += !x;
        pages += data && (!x || x->page == NONE);
    }
    return used + entries <= log->entries && pages <= log->unused_count;
}

static void block_write(struct epochlog *log, uint64_t block, uint8_t mask,
                        const uint8_t *data)
{
    struct entry *x = map_find(log, &log->open, block);

    if (!x)
        x = map_add(log, &log->open, block);
    if (!data) {
        x->zero |= mask;
        x->data &= (uint8_t)~mask;
        if (!x->data)
            page_free(log, x);
        return;
    }
    if (x->page == NONE)
        x->page = log->unused[--log->unused_count];
    x->data |= mask;
    x->zero &= (uint8_t)~mask;
    unsigned from = (unsigned)__builtin_ctz(mask);
    unsigned n = (unsigned)__builtin_popcount(mask);
    memcpy(page_at(log, x->page) + from * SECTOR, data, (size_t)n * SECTOR);
}

bool epochlog_write(struct epochlog *log, uint64_t cut, uint64_t sector,
                    uint32_t sectors, const void *data)
{
    const uint8_t *from = data;
    uint64_t end = sector + sectors;

    if (!sectors)
        return true;
    roll(log, cut);
    uint64_t first = sector / BLOCK_SECTORS, last = (end - 1) / BLOCK_SECTORS;
    if (!has_room(log, first, last, data != NULL))
        return false;
    for (uint64_t block = first; block <= last; block++) {
        uint8_t mask = mask_of(block, sector, end);
        block_write(log, block, mask, from);
        if (from)
            from += (size_t)__builtin_popcount(mask) * SECTOR;
    }
    return true;
}

bool epochlog_fits(const struct epochlog *log, uint32_t sectors)
{
    return sectors / BLOCK_SECTORS + 2ull <= log->pages;
}

void epochlog_whole(struct epochlog *log, uint64_t cut)
{
    log->whole_cut = cut;
}

/* --- Reading -------------------------------------------------------------- */

static int by_block(const void *a, const void *b, void *arg)
{
    const struct map *m = arg;
    uint64_t x = m->entry[*(const uint32_t *)a].block;
    uint64_t y = m->entry[*(const uint32_t *)b].block;

    return x < y ? -1 : x > y;
}

bool epochlog_fetch(struct epochlog *log, uint64_t open)
{
    if (open <= log->whole_cut)
        return false;
    roll(log, open);
    log->order_count = log->closed.count;
    for (uint32_t i = 0; i < log->order_count; i++)
        log->order[i] = i;
    qsort_r(log->order, log->order_count, sizeof *log->order, by_block,
            &log->closed);
    log->order_at = log->sector_at = 0;
    log->fetching = true;
    return true;
}

/* The run of sectors of one kind at `from` in x; sectors 0: only gaps left. */
static struct extent run_at(const struct epochlog *log, const struct entry *x,
                            unsigned from)
{
    struct extent run = {0};
    unsigned to = from;

    while (from < BLOCK_SECTORS && !((x->data | x->zero) & 1u << from))
        from++;
    if (from == BLOCK_SECTORS)
        return run;
    uint8_t mask = x->data & 1u << from ? x->data : x->zero;
    for (to = from; to < BLOCK_SECTORS && mask & 1u << to; to++)
        ;
    run.sector = x->block * BLOCK_SECTORS + from;
    run.sectors = to - from;
    run.kind = x->data & 1u << from ? EXTENT_DATA : EXTENT_ZERO;
    if (run.kind == EXTENT_DATA)
        run.data = page_at(log, x->page) + from * SECTOR;
    return run;
}

bool epochlog_next(struct epochlog *log, struct extents_builder *b,
                   uint64_t epoch, uint32_t sequence)
{
    if (!log->fetching)
        return false;
    extents_begin(b, epoch, sequence);
    while (log->order_at < log->order_count) {
        const struct entry *x = &log->closed.entry[log->order[log->order_at]];
        struct extent run = run_at(log, x, log->sector_at);
        if (run.sectors && !extents_add(b, &run))
            break;
        log->sector_at = (uint32_t)(run.sector % BLOCK_SECTORS) + run.sectors;
        if (!run.sectors || log->sector_at == BLOCK_SECTORS) {
            log->order_at++;
            log->sector_at = 0;
        }
    }
    return b->count > 0;
}

bool epochlog_commit(struct epochlog *log, uint64_t cut)
{
    if (log->closed.count && log->closed_last > cut)
        return false;
    for (uint32_t i = 0; i < log->closed.count; i++)
        page_free(log, &log->closed.entry[i]);
    map_empty(&log->closed);
    log->fetching = false;
    return true;
}

bool epochlog_has(const struct epochlog *log, uint64_t block)
{
    return map_find(log, &log->closed, block) ||
           map_find(log, &log->open, block);
}

bool epochlog_at_cut(const struct epochlog *log, uint64_t block, uint8_t *data)
{
    const struct entry *in = map_find(log, &log->closed, block);
    const struct entry *later = map_find(log, &log->open, block);
    uint8_t known = in ? in->data | in->zero : 0;

    for (unsigned s = 0; s < BLOCK_SECTORS && in; s++)
        if (in->zero & 1u << s)
            memset(data + s * SECTOR, 0, SECTOR);
    if (in && in->data)
        sectors_copy(data, page_at(log, in->page), in->data);
    return !later || !((later->data | later->zero) & ~known);
}

static unsigned over_percent(uint32_t used, uint32_t all)
{
    uint32_t half = all / 2;

    return used > half ? (unsigned)((used - half) * 100ull / (all - half)) : 0;
}

void epochlog_limit(struct epochlog *log, uint64_t bytes)
{
    uint64_t pages = bytes / EPOCHLOG_BLOCK;

    log->limit = pages && pages < log->pages ? (uint32_t)pages : log->pages;
}

struct epochlog_load epochlog_load(const struct epochlog *log)
{
    struct epochlog_load l = {
        .pages = log->pages,
        .pages_used = log->pages - log->unused_count,
        .entries = log->entries,
        .entries_used = log->open.count + log->closed.count,
        .half = (log->limit - log->limit / 2) * (uint64_t)EPOCHLOG_BLOCK,
    };

    l.early = l.pages_used > log->limit / 2 || l.entries_used > l.entries / 2;
    l.over_percent = over_percent(l.pages_used, log->limit);
    unsigned entries = over_percent(l.entries_used, l.entries);
    if (entries > l.over_percent)
        l.over_percent = entries;
    return l;
}

/* --- Life ----------------------------------------------------------------- */

static bool map_open(const struct epochlog *log, struct map *m)
{
    m->entry = calloc(log->entries, sizeof *m->entry);
    m->table = malloc(log->table_size * sizeof *m->table);
    if (!m->entry || !m->table)
        return false;
    memset(m->table, 0xff, log->table_size * sizeof *m->table);
    return true;
}

int epochlog_open(struct epochlog **out, const struct epochlog_config *c,
                  struct err *e)
{
    struct epochlog *log = NULL;

    if (!c->pages || c->entries < c->pages || c->entries > 1u << 30)
        return err_kind(e, ERR_USAGE, "disk log of %u pages, %u entries",
                        c->pages, c->entries);
    log = calloc(1, sizeof *log);
    if (!log)
        return err_sys(e, "disk log");
    log->pages = log->unused_count = log->limit = c->pages;
    log->entries = c->entries;
    log->table_shift = 63;
    for (log->table_size = 2; log->table_size < 2 * c->entries;
         log->table_size *= 2)
        log->table_shift--;
    log->whole_cut = c->lacking ? UINT64_MAX : 0;
    log->pool = malloc((size_t)c->pages * EPOCHLOG_BLOCK);
    log->unused = malloc(c->pages * sizeof *log->unused);
    log->order = malloc(c->entries * sizeof *log->order);
    if (!log->pool || !log->unused || !log->order ||
        !map_open(log, &log->open) || !map_open(log, &log->closed)) {
        epochlog_free(log);
        return err_set(e, "no memory for a disk log of %u pages", c->pages);
    }
    for (uint32_t i = 0; i < c->pages; i++)
        log->unused[i] = c->pages - 1 - i;
    *out = log;
    return 0;
}

void epochlog_free(struct epochlog *log)
{
    if (!log)
        return;
    free(log->open.entry);
    free(log->open.table);
    free(log->closed.entry);
    free(log->closed.table);
    free(log->order);
    free(log->unused);
    free(log->pool);
    free(log);
}
