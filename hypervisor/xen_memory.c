// SPDX-License-Identifier: Apache-2.0
/* A guest's memory: which frames are RAM, the persistent mapping, and
 * log-dirty mode. Called by the engine (primary) and the replica (backup). */
#include "hypervisor/xen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <xen/hvm/params.h>

#include "common/cleanup.h"
#include "common/log.h"

#define SCAN_BATCH 1024u  /* Xen's limit for one question about frame types */
#define MAP_BATCH  32768u /* frames in one mapping call */

static void bit_set(uint64_t *map, uint64_t i)
{
    map[i / 64] |= 1ull << (i % 64);
}

static void bit_clear(uint64_t *map, uint64_t i)
{
    map[i / 64] &= ~(1ull << (i % 64));
}

static bool bit_test(const uint64_t *map, uint64_t i)
{
    return map[i / 64] >> (i % 64) & 1;
}

void xen_specials(struct xen *x, uint32_t domid, struct xen_specials *s)
{
    static const uint32_t params[] = {
        HVM_PARAM_STORE_PFN,        HVM_PARAM_CONSOLE_PFN,
        HVM_PARAM_IOREQ_PFN,        HVM_PARAM_BUFIOREQ_PFN,
        HVM_PARAM_PAGING_RING_PFN,  HVM_PARAM_MONITOR_RING_PFN,
        HVM_PARAM_SHARING_RING_PFN,
    };
    uint64_t gfn;

    s->n = 0;
    for (unsigned i = 0; i < sizeof params / sizeof params[0]; i++)
        if (!xc_hvm_param_get(x->xch, domid, params[i], &gfn) && gfn)
            s->gfn[s->n++] = gfn;
    if (xc_hvm_param_get(x->xch, domid, HVM_PARAM_IOREQ_SERVER_PFN, &gfn) ||
        !gfn)
        return;
    /* Xen lets the toolstack give at most 8 pages to ioreq servers. */
    for (unsigned i = 0; i < 8 && s->n < XEN_SPECIALS_MAX; i++)
        s->gfn[s->n++] = gfn + i;
}

/* The types of n frames from `gfn` on, in place of their numbers in `types`,
 * which is hypercall memory. */
static int types_get(struct xen *x, uint32_t domid, uint64_t gfn, unsigned n,
                     uint64_t *types)
{
    struct xen_domctl *op = xen_domctl(x, XEN_DOMCTL_getpageframeinfo3, domid);

    for (unsigned i = 0; i < n; i++)
        types[i] = gfn + i;
    op->u.getpageframeinfo3.num = n;
    set_xen_guest_handle_raw(op->u.getpageframeinfo3.array, (xen_pfn_t *)types);
    return xen_domctl_do(x);
}

static bool is_ram(uint64_t type)
{
    switch (type & XEN_DOMCTL_PFINFO_LTAB_MASK) {
    case XEN_DOMCTL_PFINFO_XTAB:
    case XEN_DOMCTL_PFINFO_XALLOC:
    case XEN_DOMCTL_PFINFO_BROKEN:
        return false;
    }
    return true;
}

int xen_ram_scan(struct xen *x, uint32_t domid, uint64_t end_gfn, uint64_t *ram,
                 struct err *e)
{
    size_t pages = SCAN_BATCH * sizeof(uint64_t) / HV_PAGE;
    uint64_t *types = xencall_alloc_buffer_pages(x->xcall, pages);
    int rc = 0;

    if (!types)
        return err_sys(e, "allocate hypercall memory");
    for (uint64_t gfn = 0; gfn < end_gfn && !rc; gfn += SCAN_BATCH) {
        uint64_t left = end_gfn - gfn;
        unsigned n = left < SCAN_BATCH ? (unsigned)left : SCAN_BATCH;
        rc = types_get(x, domid, gfn, n, types);
        for (unsigned i = 0; i < n && !rc; i++)
            if (is_ram(types[i]))
                bit_set(ram, gfn + i);
    }
    if (rc)
        err_sys(e, "ask for the frame types of domain %u", domid);
    xencall_free_buffer_pages(x->xcall, types, pages);
    return rc;
}

/* What a mapping remembers, in hv_map.priv. */
struct mapping {
    uint64_t pages, max_pages, end_gfn;
    size_t bytes;
};

/* Arguments of mapping calls. */
struct batch {
    xen_pfn_t gfns[MAP_BATCH];
    int errs[MAP_BATCH];
};

/* Map the frames [gfn, gfn + n) to their place. Frames that Xen won't map lose
 * their bit. */
static int run_map(struct xen *x, uint32_t domid, int prot, struct hv_map *map,
                   struct batch *b, uint64_t gfn, uint64_t n, struct err *e)
{
    for (uint64_t i = 0; i < n; i++)
        b->gfns[i] = gfn + i;
    if (!xenforeignmemory_map2(x->fmem, domid, map->base + gfn * HV_PAGE, prot,
                               MAP_FIXED, n, b->gfns, b->errs))
        return err_sys(e, "map %lu frames at %#lx of domain %u", n, gfn, domid);
    for (uint64_t i = 0; i < n; i++)
        if (b->errs[i])
            bit_clear(map->ram, gfn + i);
    return 0;
}

static int runs_map(struct xen *x, uint32_t domid, int prot, struct hv_map *map,
                    struct err *e)
{
    CLEANUP_FREE struct batch *b = malloc(sizeof *b);

    if (!b)
        abort();
    for (uint64_t gfn = 0; gfn < map->end_gfn;) {
        if (gfn % 64 == 0 && !map->ram[gfn / 64]) {
            gfn += 64;
            continue;
        }
        uint64_t n = 0;
        while (n < MAP_BATCH && gfn + n < map->end_gfn &&
               bit_test(map->ram, gfn + n))
            n++;
        if (n && run_map(x, domid, prot, map, b, gfn, n, e))
            return -1;
        gfn += n ? n : 1;
    }
    for (uint64_t i = 0; i < (map->end_gfn + 63) / 64; i++)
        map->ram_pages += (uint64_t)__builtin_popcountll(map->ram[i]);
    return 0;
}

static int map_reserve(struct hv_map *map, uint64_t end_gfn, struct err *e)
{
    struct mapping *m = calloc(1, sizeof *m);

    map->end_gfn = end_gfn;
    map->ram = calloc((end_gfn + 63) / 64, sizeof *map->ram);
    if (!m || !map->ram)
        abort();
    map->priv = m;
    m->bytes = end_gfn * HV_PAGE;
    void *base = mmap(NULL, m->bytes, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return err_sys(e, "reserve %zu bytes of address space", m->bytes);
    map->base = base;
    return 0;
}

int xen_map(struct hv *hv, uint32_t domid, bool writable, struct hv_map *map,
            struct err *e)
{
    struct xen *x = xen_of(hv);
    struct xen_specials special;
    struct hv_domain d;

    memset(map, 0, sizeof *map);
    if (xen_info(hv, domid, &d, e))
        return -1;
    if (map_reserve(map, d.end_gfn, e) ||
        xen_ram_scan(x, domid, d.end_gfn, map->ram, e)) {
        xen_unmap(hv, map);
        return -1;
    }
    struct mapping *m = map->priv;
    m->pages = d.pages;
    m->max_pages = d.max_pages;
    m->end_gfn = d.end_gfn;
    xen_specials(x, domid, &special);
    for (unsigned i = 0; i < special.n; i++)
        if (special.gfn[i] < map->end_gfn)
            bit_clear(map->ram, special.gfn[i]);
    if (runs_map(x, domid, writable ? PROT_READ | PROT_WRITE : PROT_READ, map,
                 e)) {
        xen_unmap(hv, map);
        return -1;
    }
    return 0;
}

void xen_unmap(struct hv *hv, struct hv_map *map)
{
    struct mapping *m = map->priv;

    (void)hv;
    if (map->base)
        munmap(map->base, m->bytes);
    free(map->ram);
    free(m);
    memset(map, 0, sizeof *map);
}

bool xen_map_stale(struct hv *hv, uint32_t domid, const struct hv_map *map)
{
    struct xen *x = xen_of(hv);
    const struct mapping *m = map->priv;
    xc_domaininfo_t info;
    xen_pfn_t end_gfn;

    if (xen_dominfo(x, domid, &info, NULL) ||
        xc_domain_nr_gpfns(x->xch, domid, &end_gfn) < 0)
        return true;
    return info.tot_pages != m->pages || info.max_pages != m->max_pages ||
           end_gfn != m->end_gfn;
}

/* --- Log-dirty ----------------------------------------------------------- */

/* Xen answers CLEAN with an empty bitmap, not with an error, when somebody
 * else turned log-dirty mode off (xen/arch/x86/mm/paging.c), and loses our
 * bits without a word when somebody else cleans. So one frame that no guest
 * cares about, the xenstore ring, is marked dirty after each CLEAN; when the
 * next one does not show it, our bits are gone. */
static int canary_mark(struct xen *x, struct err *e)
{
    struct xen_dirty *d = &x->dirty;

    if (xendevicemodel_modified_memory(x->dmod, (domid_t)d->domid, d->canary,
                                       1))
        return err_sys(e, "mark a frame of domain %u dirty", d->domid);
    return 0;
}

static size_t bitmap_pages(uint64_t end_gfn)
{
    return (end_gfn / 8 + HV_PAGE) / HV_PAGE;
}

static int dirty_enable(struct xen *x, uint32_t domid)
{
    unsigned op = XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY;

    if (xc_shadow_control(x->xch, domid, op, NULL, 0) >= 0)
        return 0;
    if (errno != EINVAL)
        return -1;
    if (xen_is_saved(domid)) {
        errno = EBUSY;
        return -1;
    }
    /* Left on by a predecessor that crashed. */
    if (xc_shadow_control(x->xch, domid, XEN_DOMCTL_SHADOW_OP_OFF, NULL, 0) < 0)
        return -1;
    return xc_shadow_control(x->xch, domid, op, NULL, 0) < 0 ? -1 : 0;
}

int xen_logdirty_start(struct hv *hv, uint32_t domid, struct err *e)
{
    struct xen *x = xen_of(hv);
    struct xen_dirty *d = &x->dirty;
    DECLARE_HYPERCALL_BUFFER_SHADOW(uint8_t, bitmap, &d->bitmap);
    xen_pfn_t end_gfn;

    if (d->on)
        xen_logdirty_stop(hv, d->domid);
    if (xc_domain_nr_gpfns(x->xch, domid, &end_gfn) < 0)
        return err_sys(e, "ask for the memory size of domain %u", domid);
    if (xc_hvm_param_get(x->xch, domid, HVM_PARAM_STORE_PFN, &d->canary) ||
        !d->canary || d->canary >= end_gfn)
        return err_set(e, "domain %u has no xenstore ring", domid);
    bitmap = xc_hypercall_buffer_alloc_pages(x->xch, bitmap,
                                             (int)bitmap_pages(end_gfn));
    if (!bitmap)
        return err_sys(e, "allocate the dirty bitmap of domain %u", domid);
    d->on = true;
    d->domid = domid;
    d->end_gfn = end_gfn;
    if (dirty_enable(x, domid)) {
        bool busy = errno == EBUSY;
        err_sys(e, "turn log-dirty mode of domain %u on", domid);
        err_hint(e,
                 busy ? "wait until its `xl save` or `xl migrate` ends"
                      : "its paging pool may be too small: raise shadow_memory "
                        "in the VM's configuration");
        xen_logdirty_stop(hv, domid);
        return -1;
    }
    if (!canary_mark(x, e))
        return 0;
    xen_logdirty_stop(hv, domid);
    return -1;
}

/* Hypercalls that fail with EBUSY (another toolstack's paging operation is
 * being continued) are worth a second try, within the pause's budget. */
static int clean(struct xen *x, bool final)
{
    struct xen_dirty *d = &x->dirty;
    DECLARE_HYPERCALL_BUFFER_SHADOW(uint8_t, bitmap, &d->bitmap);
    xc_shadow_op_stats_t stats;

    (void)bitmap;
    for (int tries = 0;; tries++) {
        long long n = xc_logdirty_control(
            x->xch, d->domid, XEN_DOMCTL_SHADOW_OP_CLEAN,
            HYPERCALL_BUFFER(bitmap), d->end_gfn,
            final ? XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL : 0, &stats);
        if (n >= 0 && (uint64_t)n >= d->end_gfn)
            return 0;
        if (n >= 0)
            errno = EMSGSIZE;
        if (errno != EBUSY || tries == 3)
            return -1;
    }
}

int xen_logdirty_clean(struct hv *hv, uint32_t domid, uint64_t *out,
                       uint64_t end_gfn, bool final, struct err *e)
{
    struct xen *x = xen_of(hv);
    struct xen_dirty *d = &x->dirty;
    DECLARE_HYPERCALL_BUFFER_SHADOW(uint64_t, bitmap, &d->bitmap);

    if (!d->on || d->domid != domid || end_gfn > d->end_gfn)
        return err_set(e,
                       "log-dirty mode of domain %u was not started for "
                       "%#lx frames",
                       domid, end_gfn);
    if (clean(x, final)) {
        enum err_kind kind = errno == ESRCH ? ERR_GONE : ERR_FAILED;
        err_sys(e, "read the dirty bitmap of domain %u", domid);
        if (e)
            e->kind = kind;
        return -1;
    }
    if (!bit_test(bitmap, d->canary)) {
        err_kind(e, ERR_GONE,
                 "somebody else read or ended log-dirty mode of "
                 "domain %u",
                 domid);
        return err_hint(e, "`xl save` and `xl migrate` do that: leave the VM "
                           "alone while it is protected");
    }
    memcpy(out, bitmap, (end_gfn + 63) / 64 * sizeof *out);
    if (d->canary < end_gfn)
        bit_clear(out, d->canary);
    if (end_gfn % 64)
        out[end_gfn / 64] &= (1ull << (end_gfn % 64)) - 1;
    return canary_mark(x, e);
}

void xen_logdirty_stop(struct hv *hv, uint32_t domid)
{
    struct xen *x = xen_of(hv);
    struct xen_dirty *d = &x->dirty;
    DECLARE_HYPERCALL_BUFFER_SHADOW(uint8_t, bitmap, &d->bitmap);

    (void)bitmap;
    if (!xen_is_saved(domid) &&
        xc_shadow_control(x->xch, domid, XEN_DOMCTL_SHADOW_OP_OFF, NULL, 0) <
            0 &&
        errno != ESRCH)
        log_debug("domain %u: turn log-dirty mode off: %s", domid,
                  strerror(errno));
    if (d->on && d->domid == domid) {
        xc_hypercall_buffer_free_pages(x->xch, bitmap,
                                       (int)bitmap_pages(d->end_gfn));
        memset(d, 0, sizeof *d);
    }
}
