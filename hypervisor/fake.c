// SPDX-License-Identifier: Apache-2.0
/* The fake hypervisor behind hv.h, for tests and for trying things out without
 * Xen: the operations on a directory that is a host (fake_host.c), whose guests
 * are executed by threads (fake_guest.c). One thread a connection. */
#include "hypervisor/fake_host.h"
#include "hypervisor/blueprint.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define PAUSE_US 2000000

struct map_priv {
    uint64_t pages, max_pages, end_gfn;
    size_t bytes;
};

static struct fake *fake_of(struct hv *hv)
{
    return (struct fake *)(void *)hv;
}

/* The domain's files stay mapped from one call to the next: nothing is opened
 * while a guest is stopped. */
static struct fake_dom *dom_of(struct hv *hv, uint32_t domid, struct err *e)
{
    struct fake *f = fake_of(hv);

    if (f->domid != domid || load(&f->view.dom->dying)) {
        fake_view_close(&f->view);
        f->domid = 0;
        if (fake_view_open(&f->view, f->dir, domid, e))
            return NULL;
        f->domid = domid;
    }
    return f->view.dom;
}

static void op_close(struct hv *hv)
{
    struct fake *f = fake_of(hv);

    fake_view_close(&f->view);
    free(f);
}

/* --- Domains ---------------------------------------------------------------
 */

static void dom_describe(struct fake_dom *d, struct hv_domain *out)
{
    memset(out, 0, sizeof *out);
    out->domid = d->domid;
    memcpy(out->uuid, d->spec.uuid, sizeof out->uuid);
    snprintf(out->name, sizeof out->name, "%s", d->spec.name);
    out->type = HV_PVH;
    out->paused = load(&d->paused);
    out->ran = load(&d->ran);
    out->dying = load(&d->dying);
    out->shutdown = (enum hv_shutdown)load(&d->shutdown);
    out->vcpus = d->spec.writers;
    out->pages = load(&d->pages);
    out->max_pages = load(&d->max_pages);
    out->end_gfn = d->end_gfn;
}

static bool is_replica(const char *name)
{
    size_t n = strlen(name), tag = strlen(HV_REPLICA_TAG);

    return n > tag && !strcmp(name + n - tag, HV_REPLICA_TAG);
}

/* The first domain with that name, or (name NULL) with that uuid. */
static int dom_find(struct hv *hv, const char *name, const uint8_t *uuid,
                    bool replica, struct hv_domain *out, struct err *e)
{
    struct fake_view v;
    uint32_t domid = 0;
    int r;

    while ((r = fake_domain_next(fake_of(hv)->dir, &domid, &v)) >= 0) {
        if (r)
            continue;
        dom_describe(v.dom, out);
        fake_view_close(&v);
        if (name ? !strcmp(out->name, name)
                 : !memcmp(out->uuid, uuid, sizeof out->uuid) &&
                       is_replica(out->name) == replica)
            return 0;
    }
    err_kind(e, ERR_GONE, "there is no domain %s", name ? name : "so");
    return err_hint(e, "`guest list` shows the domains");
}

static int op_info(struct hv *hv, uint32_t domid, struct hv_domain *out,
                   struct err *e)
{
    struct fake_dom *d = dom_of(hv, domid, e);

    if (!d)
        return -1;
    dom_describe(d, out);
    return 0;
}

static int op_find(struct hv *hv, const char *name, struct hv_domain *out,
                   struct err *e)
{
    char *end;
    unsigned long id = strtoul(name, &end, 10);

    if (*name && !*end && id < UINT32_MAX)
        return op_info(hv, (uint32_t)id, out, e);
    return dom_find(hv, name, NULL, false, out, e);
}

static int op_find_uuid(struct hv *hv, const uint8_t uuid[16], bool replica,
                        struct hv_domain *out, struct err *e)
{
    return dom_find(hv, NULL, uuid, replica, out, e);
}

static bool runner_lives(struct fake_dom *d)
{
    uint32_t pid = load(&d->runner);

    return pid && (!kill((pid_t)pid, 0) || errno == EPERM);
}

static int op_pause(struct hv *hv, uint32_t domid, struct err *e)
{
    struct fake_dom *d = dom_of(hv, domid, e);

    if (!d)
        return -1;
    store(&d->paused, 1);
    fake_bump(d);
    uint64_t until = clock_ns() + PAUSE_US * 1000ull;
    for (;;) {
        uint32_t word = load(&d->word);
        if (!runner_lives(d) || load(&d->parked) == d->spec.writers)
            return 0;
        if (clock_ns() > until)
            return err_kind(e, ERR_TIMEOUT, "domain %u does not pause", domid);
        fake_wait(d, word, 10000);
    }
}

static int op_unpause(struct hv *hv, uint32_t domid, struct err *e)
{
    struct fake_dom *d = dom_of(hv, domid, e);

    if (!d)
        return -1;
    store(&d->paused, 0);
    store(&d->ran, 1);
    fake_bump(d);
    return 0;
}

static int op_vifs(struct hv *hv, uint32_t domid, char names[][16], int *n,
                   struct err *e)
{
    (void)names;
    *n = 0;
    return dom_of(hv, domid, e) ? 0 : -1;
}

/* --- Primary ---------------------------------------------------------------
 */

static int op_check_protect(struct hv *hv, uint32_t domid, struct err *e)
{
    struct fake_dom *d = dom_of(hv, domid, e);

    if (!d)
        return -1;
    if (is_replica(d->spec.name)) {
        err_kind(e, ERR_REFUSED, "%s is a replica", d->spec.name);
        return err_hint(e, "protect the VM on the host where it runs");
    }
    return 0;
}

static int op_describe(struct hv *hv, uint32_t domid, struct buf *out,
                       struct err *e)
{
    struct fake_dom *d = dom_of(hv, domid, e);

    if (!d)
        return -1;
    fake_blueprint_put(out, &d->spec, load(&d->step_us));
    return 0;
}

static void ram_fill(const struct fake_dom *d, struct hv_map *map)
{
    map->ram_pages = 0;
    for (uint64_t i = 0; i < d->spec.ram_pages; i++) {
        uint64_t gfn = fake_gfn(&d->spec, i);
        if (d->shell && d->spec.lacking && gfn == d->spec.lacking - 1)
            continue;
        map->ram[gfn / 64] |= 1ull << (gfn % 64);
        map->ram_pages++;
    }
}

static int op_map(struct hv *hv, uint32_t domid, bool writable,
                  struct hv_map *map, struct err *e)
{
    struct fake_dom *d = dom_of(hv, domid, e);

    memset(map, 0, sizeof *map);
    if (!d)
        return -1;
    struct map_priv *priv = calloc(1, sizeof *priv);
    map->ram = calloc((d->end_gfn + 63) / 64, sizeof *map->ram);
    if (!priv || !map->ram)
        abort();
    priv->pages = load(&d->pages);
    priv->max_pages = load(&d->max_pages);
    priv->end_gfn = map->end_gfn = d->end_gfn;
    map->priv = priv;
    ram_fill(d, map);
    map->base = fake_file_map(fake_of(hv)->dir, "mem", domid, &priv->bytes,
                              false, writable, e);
    if (map->base)
        return 0;
    hv->ops->unmap(hv, map);
    return -1;
}

static void op_unmap(struct hv *hv, struct hv_map *map)
{
    struct map_priv *priv = map->priv;

    (void)hv;
    if (map->base)
        munmap(map->base, priv->bytes);
    free(map->ram);
    free(priv);
    memset(map, 0, sizeof *map);
}

static bool op_map_stale(struct hv *hv, uint32_t domid,
                         const struct hv_map *map)
{
    struct fake_dom *d = dom_of(hv, domid, NULL);
    const struct map_priv *priv = map->priv;

    return !d || load(&d->pages) != priv->pages ||
           load(&d->max_pages) != priv->max_pages ||
           d->end_gfn != priv->end_gfn;
}

static int op_logdirty_start(struct hv *hv, uint32_t domid, struct err *e)
{
    struct fake_dom *d = dom_of(hv, domid, e);

    if (!d)
        return -1;
    if (load(&d->logdirty))
        return err_set(e, "log-dirty mode is on already");
    /* Guests set bits at all times, so none is lost around this moment. */
    for (size_t i = 0; i < fake_of(hv)->view.log_bytes / 8; i++)
        store(&fake_of(hv)->view.log[i], 0);
    store(&d->logdirty, 1);
    return 0;
}

static int op_logdirty_clean(struct hv *hv, uint32_t domid, uint64_t *bitmap,
                             uint64_t end_gfn, bool final, struct err *e)
{
    struct fake_dom *d = dom_of(hv, domid, e);

    if (!d)
        return -1;
    if (!load(&d->logdirty))
        return err_kind(e, ERR_GONE, "somebody else turned log-dirty mode off");
    if (end_gfn != d->end_gfn)
        return err_set(e, "the bitmap has the wrong size");
    for (size_t i = 0; i < (end_gfn + 63) / 64; i++)
        bitmap[i] =
            __atomic_exchange_n(&fake_of(hv)->view.log[i], 0, __ATOMIC_SEQ_CST);
    if (final)
        bitmap[0] |= 1; /* the board */
    return 0;
}

static void op_logdirty_stop(struct hv *hv, uint32_t domid)
{
    struct fake_dom *d = dom_of(hv, domid, NULL);

    if (d)
        store(&d->logdirty, 0);
}

static int op_suspend_open(struct hv *hv, uint32_t domid, struct err *e)
{
    return dom_of(hv, domid, e) ? 0 : -1;
}

static enum hv_suspend_path op_suspend_path(struct hv *hv, uint32_t domid)
{
    struct fake_dom *d = dom_of(hv, domid, NULL);

    return d && load(&d->stock) ? HV_SUSPEND_XENSTORE : HV_SUSPEND_EVTCHN;
}

/* Nobody executes the guest: it does what it is asked at once. */
static void still_suspend(struct fake_dom *d)
{
    uint32_t asked = FAKE_ASKED;

    if (!load(&d->refuse) && fake_runs(d) &&
        __atomic_compare_exchange_n(&d->request, &asked, FAKE_ACKNOWLEDGED,
                                    false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        store(&d->shutdown, HV_SUSPEND);
}

/* True when the guest stopped running, for whatever reason. */
static bool shutdown_wait(struct fake_dom *d, uint64_t us, const bool *over)
{
    uint64_t until = clock_ns() + us * 1000;

    for (;;) {
        uint32_t word = load(&d->word);
        if (load(&d->shutdown) != HV_RUNNING || load(&d->dying))
            return true;
        if (!runner_lives(d))
            still_suspend(d);
        uint64_t now = clock_ns();
        if (load(&d->shutdown) != HV_RUNNING)
            return true;
        if (now >= until || (over && __atomic_load_n(over, __ATOMIC_RELAXED)))
            return false;
        uint64_t left = (until - now) / 1000 + 1;
        fake_wait(d, word, left < 20000 ? left : 20000);
    }
}

static enum hv_suspend_result op_suspend(struct hv *hv, uint32_t domid,
                                         unsigned deadline_ms, const bool *over,
                                         struct err *e)
{
    struct fake *f = fake_of(hv);
    struct fake_dom *d = dom_of(hv, domid, e);
    uint32_t none = FAKE_NO_REQUEST, asked = FAKE_ASKED;

    if (!d || (!f->late && load(&d->shutdown) != HV_RUNNING))
        return HV_SHUT_DOWN;
    if (!f->late &&
        !__atomic_compare_exchange_n(&d->request, &none, FAKE_ASKED, false,
                                     __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        err_set(e, "a suspend is under way already");
        return HV_SUSPEND_ERROR;
    }
    fake_bump(d);
    f->late = false;
    if (shutdown_wait(d, deadline_ms * 1000ull, over)) {
        if (load(&d->shutdown) == HV_SUSPEND)
            return HV_SUSPENDED;
        store(&d->request, FAKE_NO_REQUEST);
        return HV_SHUT_DOWN;
    }
    err_kind(e, ERR_TIMEOUT, "domain %u did not suspend within %u ms", domid,
             deadline_ms);
    f->late =
        !__atomic_compare_exchange_n(&d->request, &asked, FAKE_NO_REQUEST,
                                     false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return f->late ? HV_LATE : HV_NOT_IN_TIME;
}

static int op_resume(struct hv *hv, uint32_t domid, struct err *e)
{
    struct fake_dom *d = dom_of(hv, domid, e);

    if (!d)
        return -1;
    if (load(&d->shutdown) != HV_SUSPEND)
        return err_set(e, "domain %u is not suspended", domid);
    store(&d->request, FAKE_NO_REQUEST);
    store(&d->shutdown, HV_RUNNING);
    fake_bump(d);
    return 0;
}

static void op_suspend_close(struct hv *hv, uint32_t domid)
{
    (void)hv;
    (void)domid;
}

static int op_suspend_recover(struct hv *hv, uint32_t domid,
                              unsigned deadline_ms, struct err *e)
{
    struct fake_dom *d = dom_of(hv, domid, e);
    uint32_t asked = FAKE_ASKED;

    if (!d)
        return -1;
    fake_of(hv)->late = false;
    if (load(&d->shutdown) == HV_RUNNING &&
        (__atomic_compare_exchange_n(&d->request, &asked, FAKE_NO_REQUEST,
                                     false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST) ||
         asked == FAKE_NO_REQUEST))
        return 0;
    if (!shutdown_wait(d, deadline_ms * 1000ull, NULL))
        return err_kind(e, ERR_TIMEOUT, "the guest is about to suspend");
    return load(&d->shutdown) == HV_SUSPEND ? op_resume(hv, domid, e) : 0;
}

static int op_get_state(struct hv *hv, uint32_t domid, struct buf *out,
                        struct err *e)
{
    static const uint8_t pad[4096];
    struct fake_dom *d = dom_of(hv, domid, e);

    if (!d)
        return -1;
    buf_u32(out, FAKE_MAGIC);
    for (int i = 0; i < FAKE_WRITERS_MAX; i++)
        buf_u64(out, load(&d->steps[i]));
    log_debug("domain %u: state of step %lu", domid, load(&d->steps[0]));
    for (uint32_t left = load(&d->state_pad); left;) {
        uint32_t n = left < sizeof pad ? left : (uint32_t)sizeof pad;
        buf_put(out, pad, n);
        left -= n;
    }
    return 0;
}

/* --- Backup ----------------------------------------------------------------
 */

static int op_shell_check(struct hv *hv, const struct hv_vm *vm,
                          const void *blueprint, size_t len, struct err *e)
{
    struct fake_spec s;
    struct hv_domain d;

    if (fake_blueprint_read(blueprint, len, &s, e) ||
        blueprint_is_of(vm, s.name, s.uuid, e))
        return -1;
    for (int i = 0; i < 2; i++) {
        if (!dom_find(hv, s.name, NULL, false, &d, NULL)) {
            err_kind(e, ERR_REFUSED, "there is a domain %s here", s.name);
            return err_hint(e, "destroy or rename it first");
        }
        strcat(s.name, HV_REPLICA_TAG);
    }
    return 0;
}

static int op_shell_build(struct hv *hv, const struct hv_vm *vm,
                          const void *blueprint, size_t len, uint32_t *domid,
                          struct err *e)
{
    struct fake_spec s;

    if (op_shell_check(hv, vm, blueprint, len, e) ||
        fake_blueprint_read(blueprint, len, &s, e))
        return -1;
    strcat(s.name, HV_REPLICA_TAG);
    if (fake_domain_make(fake_of(hv)->dir, &s, true, domid, e))
        return -1;
    if (!fake_devices_script(fake_of(hv)->dir, "add", *domid, e))
        return 0;
    /* As libxl does, of what was made before it failed. */
    fake_devices_script(fake_of(hv)->dir, "remove", *domid, NULL);
    fake_domain_unmake(fake_of(hv)->dir, *domid, NULL);
    return -1;
}

static int op_state_check(const void *state, size_t len, struct err *e)
{
    struct reader r = reader_of(state, len);

    if (read_u32(&r) != FAKE_MAGIC ||
        !read_bytes(&r, FAKE_WRITERS_MAX * sizeof(uint64_t)))
        return err_set(e, "malformed platform state");
    return 0;
}

static int op_set_state(struct hv *hv, uint32_t domid, const void *state,
                        size_t len, struct err *e)
{
    struct fake_dom *d = dom_of(hv, domid, e);
    struct reader r = reader_of(state, len);
    uint64_t steps[FAKE_WRITERS_MAX];

    if (!d)
        return -1;
    if (op_state_check(state, len, e))
        return -1;
    read_u32(&r);
    for (int i = 0; i < FAKE_WRITERS_MAX; i++)
        steps[i] = read_u64(&r);
    if (!load(&d->paused))
        return err_set(e, "domain %u is not paused", domid);
    for (int i = 0; i < FAKE_WRITERS_MAX; i++)
        store(&d->steps[i], steps[i]);
    return 0;
}

static int op_rename(struct hv *hv, uint32_t domid, const char *name,
                     struct err *e)
{
    struct fake_dom *d = dom_of(hv, domid, e);

    CLEANUP_CLOSE int lock = d ? fake_lock(fake_of(hv)->dir, e) : -1;
    if (lock < 0)
        return -1;
    if (strlen(name) >= sizeof d->spec.name)
        return err_kind(e, ERR_USAGE, "the name %s is too long", name);
    strcpy(d->spec.name, name);
    return 0;
}

static int op_destroy(struct hv *hv, uint32_t domid, struct err *e)
{
    return fake_devices_script(fake_of(hv)->dir, "remove", domid, e) ||
                   fake_domain_unmake(fake_of(hv)->dir, domid, e)
               ? -1
               : 0;
}

static const struct hv_ops fake_ops = {
    .name = "fake",
    .close = op_close,
    .find = op_find,
    .find_uuid = op_find_uuid,
    .info = op_info,
    .pause = op_pause,
    .unpause = op_unpause,
    .vifs = op_vifs,
    .devices = fake_devices,
    .watcher_start = fake_watcher_start,
    .watcher_end = fake_watcher_end,
    .watcher = fake_watcher,
    .check_protect = op_check_protect,
    .describe = op_describe,
    .map = op_map,
    .unmap = op_unmap,
    .map_stale = op_map_stale,
    .logdirty_start = op_logdirty_start,
    .logdirty_clean = op_logdirty_clean,
    .logdirty_stop = op_logdirty_stop,
    .suspend_open = op_suspend_open,
    .suspend_path = op_suspend_path,
    .suspend = op_suspend,
    .resume = op_resume,
    .suspend_close = op_suspend_close,
    .suspend_recover = op_suspend_recover,
    .get_state = op_get_state,
    .shell_check = op_shell_check,
    .shell_build = op_shell_build,
    .boot = op_shell_build,
    .state_check = op_state_check,
    .set_state = op_set_state,
    .rename = op_rename,
    .destroy = op_destroy,
    .watchdog = fake_watchdog,
};

int hv_fake_open(const char *dir, struct hv **hv, struct err *e)
{
    struct fake *f = calloc(1, sizeof *f);

    if (!f)
        return err_sys(e, "fake hypervisor");
    if (strlen(dir) >= sizeof f->dir || access(dir, R_OK | W_OK | X_OK)) {
        free(f);
        return err_set(e, "%s is no directory for a fake host", dir);
    }
    strcpy(f->dir, dir);
    f->hv.ops = &fake_ops;
    *hv = &f->hv;
    return 0;
}
