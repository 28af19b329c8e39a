// SPDX-License-Identifier: Apache-2.0
/* The shell's life: described on the primary, built on the backup, given its
 * real name after a takeover, destroyed. libxl does the work, in a child
 * process (xen_xl.c). */
#include "hypervisor/xen.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/text.h"

#define GONE_NS (5 * NS_PER_SEC)
#define QUICK_S 60
#define BUILD_S 180 /* hotplug scripts alone have 40 s a device */

/* --- Primary ------------------------------------------------------------- */

static int policy_and_state(struct hv *hv, uint32_t domid, struct buf *cpuid,
                            struct buf *msrs, struct buf *state, struct err *e)
{
    if (xen_policy_get(xen_of(hv), domid, cpuid, msrs, e))
        return -1;
    return xen_get_state(hv, domid, state, e);
}

static void blueprint_fill(struct xen *x, const struct hv_domain *d,
                           struct blueprint *bp)
{
    memset(bp, 0, sizeof *bp);
    xen_version(x, bp->xen, sizeof bp->xen);
    snprintf(bp->name, sizeof bp->name, "%s", d->name);
    memcpy(bp->uuid, d->uuid, sizeof bp->uuid);
    bp->type = d->type;
    bp->vcpus = d->vcpus;
    bp->pages = d->pages;
    bp->max_pages = d->max_pages;
    bp->end_gfn = d->end_gfn;
}

int xen_describe(struct hv *hv, uint32_t domid, struct buf *out, struct err *e)
{
    struct buf config = {0}, cpuid = {0}, msrs = {0}, state = {0};
    struct hv_domain d;
    struct blueprint bp;
    char id[16];
    int rc = -1;

    if (xen_info(hv, domid, &d, e))
        return -1;
    CLEANUP_FREE uint64_t *ram = calloc((d.end_gfn + 63) / 64, sizeof *ram);
    if (!ram)
        abort();
    snprintf(id, sizeof id, "%u", domid);
    const char *argv[] = {"describe", id, NULL};
    if (xen_xl(argv, NULL, 0, QUICK_S, NULL, &config, e) ||
        policy_and_state(hv, domid, &cpuid, &msrs, &state, e) ||
        xen_ram_scan(xen_of(hv), domid, d.end_gfn, ram, e))
        goto out;
    blueprint_fill(xen_of(hv), &d, &bp);
    bp.config = config.data, bp.config_len = config.len;
    bp.cpuid = cpuid.data, bp.cpuid_len = cpuid.len;
    bp.msrs = msrs.data, bp.msrs_len = msrs.len;
    bp.state = state.data, bp.state_len = state.len;
    blueprint_write(out, &bp, ram);
    rc = out->len <= HV_BLUEPRINT_MAX
             ? 0
             : err_set(e, "the VM's memory is too scattered to be described");
out:
    buf_free(&config);
    buf_free(&cpuid);
    buf_free(&msrs);
    buf_free(&state);
    return rc;
}

/* --- Backup -------------------------------------------------------------- */

static bool is_zero(const uint8_t *page)
{
    const uint64_t *p = (const uint64_t *)(const void *)page;
    uint64_t any = 0;

    for (size_t i = 0; i < HV_PAGE / sizeof *p; i++)
        any |= p[i];
    return !any;
}

/* Xen scrubs free memory, but a debug build fills it with a pattern and
 * bootscrub=0 leaves it as it was. The codec relies on zeroes. Also counts:
 * each frame that the VM has must be there. */
static int memory_check(struct hv *hv, uint32_t domid,
                        const struct blueprint *bp, struct err *e)
{
    struct reader runs = bp->runs;
    uint64_t end = 0, gfn, count, lacking = 0;
    struct xen_specials special;
    struct hv_map map;

    if (xen_map(hv, domid, true, &map, e))
        return -1;
    xen_specials(xen_of(hv), domid, &special);
    while (blueprint_run(&runs, &end, &gfn, &count))
        for (uint64_t i = gfn; i < end; i++)
            lacking += i >= map.end_gfn || !(map.ram[i / 64] >> (i % 64) & 1);
    for (uint64_t i = 0; i < map.end_gfn; i++)
        if (map.ram[i / 64] >> (i % 64) & 1 && !is_zero(map.base + i * HV_PAGE))
            memset(map.base + i * HV_PAGE, 0, HV_PAGE);
    xen_unmap(hv, &map);
    if (lacking > special.n)
        return err_set(e, "%lu frames of the VM are missing in its shell",
                       lacking);
    return 0;
}

/* `how` is build or boot. */
static int replica_make(const char *how, const struct hv_vm *vm,
                        const void *blueprint, size_t len, uint32_t *domid,
                        struct err *e)
{
    char name[sizeof vm->name + sizeof HV_REPLICA_TAG], uuid[UUID_TEXT];

    snprintf(name, sizeof name, "%s%s", vm->name, HV_REPLICA_TAG);
    uuid_format(vm->uuid, uuid);
    const char *argv[] = {how, name, uuid, NULL};
    return xen_xl(argv, blueprint, len, BUILD_S, domid, NULL, e)
               ? err_add(e, "%s %s", how, name)
               : 0;
}

int xen_shell_build_as(struct hv *hv, const struct hv_vm *vm,
                       const void *blueprint, size_t len, uint32_t *domid,
                       struct err *e)
{
    struct blueprint bp;

    if (blueprint_parse(blueprint, len, &bp, e) ||
        replica_make("build", vm, blueprint, len, domid, e))
        return -1;
    if (!memory_check(hv, *domid, &bp, e))
        return 0;
    xen_destroy(hv, *domid, NULL);
    return err_add(e, "build %s" HV_REPLICA_TAG, vm->name);
}

int xen_shell_build(struct hv *hv, const struct hv_vm *vm,
                    const void *blueprint, size_t len, uint32_t *domid,
                    struct err *e)
{
    struct blueprint bp;

    if (blueprint_parse(blueprint, len, &bp, e) ||
        blueprint_is_of(vm, bp.name, bp.uuid, e))
        return -1;
    return xen_shell_build_as(hv, vm, blueprint, len, domid, e);
}

int xen_boot(struct hv *hv, const struct hv_vm *vm, const void *blueprint,
             size_t len, uint32_t *domid, struct err *e)
{
    const char *fits[] = {"fits", NULL};
    struct blueprint bp;

    (void)hv;
    if (blueprint_parse(blueprint, len, &bp, e) ||
        blueprint_is_of(vm, bp.name, bp.uuid, e) ||
        xen_xl(fits, blueprint, len, QUICK_S, NULL, NULL, e))
        return -1;
    return replica_make("boot", vm, blueprint, len, domid, e);
}

int xen_rename(struct hv *hv, uint32_t domid, const char *name, struct err *e)
{
    char id[16];

    (void)hv;
    snprintf(id, sizeof id, "%u", domid);
    const char *argv[] = {"rename", id, name, NULL};
    if (xen_xl(argv, NULL, 0, QUICK_S, NULL, NULL, e))
        return err_add(e, "rename domain %u to %s", domid, name);
    return 0;
}

/* Xen keeps a dying domain until the last mapping of its memory is gone, ours
 * included; it never runs again. */
static void wait_gone(struct xen *x, uint32_t domid)
{
    struct timespec ts = {.tv_nsec = 20 * NS_PER_MS};
    uint64_t until = clock_ns() + GONE_NS;
    xc_domaininfo_t info;

    while (xc_domain_getinfolist(x->xch, domid, 1, &info) == 1 &&
           info.domain == domid) {
        if (clock_ns() >= until) {
            log_warn("domain %u is dead, and its memory still in use", domid);
            return;
        }
        nanosleep(&ts, NULL);
    }
}

int xen_destroy(struct hv *hv, uint32_t domid, struct err *e)
{
    char id[16];
    xc_domaininfo_t info;
    struct err gone = ERR_INIT;

    if (domid == 0)
        return err_set(e, "domain 0 is not to be destroyed");
    if (xen_dominfo(xen_of(hv), domid, &info, &gone) && gone.kind == ERR_GONE)
        return 0;
    snprintf(id, sizeof id, "%u", domid);
    const char *argv[] = {"destroy", id, NULL};
    if (xen_xl(argv, NULL, 0, BUILD_S, NULL, NULL, e))
        return err_add(e, "destroy domain %u", domid);
    wait_gone(xen_of(hv), domid);
    return 0;
}
