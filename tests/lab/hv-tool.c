// SPDX-License-Identifier: Apache-2.0
/* One operation of hv.h on a lab host, for scenarios and for looking.
 * `hv-tool` alone says which there are. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/store.h"
#include "common/clock.h"
#include "common/log.h"
#include "hypervisor/hv.h"

static struct hv *hv;
static struct err err = ERR_INIT;
static struct hv_domain dom;

static int find(const char *name)
{
    return hv->ops->find(hv, name, &dom, &err);
}

static int load(const char *path, struct buf *b)
{
    FILE *f = fopen(path, "re");
    size_t n;

    if (!f)
        return err_sys(&err, "open %s", path);
    do {
        buf_reserve(b, 1 << 16);
        n = fread(b->data + b->len, 1, 1 << 16, f);
        b->len += n;
    } while (n);
    fclose(f);
    return 0;
}

static int op_info(char **argv)
{
    char names[HV_MAX_VIFS][16];
    int n;

    if (find(argv[0]) || hv->ops->vifs(hv, dom.domid, names, &n, &err))
        return -1;
    printf("%s domid=%u type=%d paused=%d shutdown=%d vcpus=%u pages=%lu "
           "max=%lu end=%#lx vifs=",
           dom.name, dom.domid, dom.type, dom.paused, dom.shutdown, dom.vcpus,
           dom.pages, dom.max_pages, dom.end_gfn);
    for (int i = 0; i < n; i++)
        printf("%s ", names[i]);
    printf("\n");
    return 0;
}

static int op_check(char **argv)
{
    return find(argv[0]) ? -1 : hv->ops->check_protect(hv, dom.domid, &err);
}

static int op_describe(char **argv)
{
    struct buf b = {0};

    if (find(argv[0]) || hv->ops->describe(hv, dom.domid, &b, &err))
        return -1;
    FILE *f = fopen(argv[1], "we");
    if (!f)
        return err_sys(&err, "open %s", argv[1]);
    fwrite(b.data, 1, b.len, f);
    return fclose(f);
}

/* NAME and UUID as the record of a backup has them. */
static int blueprint_of(char **argv, struct hv_vm *vm, struct buf *b)
{
    if (!uuid_parse(argv[1], vm->uuid))
        return err_kind(&err, ERR_USAGE, "%s is no uuid", argv[1]);
    snprintf(vm->name, sizeof vm->name, "%s", argv[0]);
    return load(argv[2], b);
}

static int op_fits(char **argv)
{
    struct buf b = {0};
    struct hv_vm vm;

    if (blueprint_of(argv, &vm, &b))
        return -1;
    return hv->ops->shell_check(hv, &vm, b.data, b.len, &err);
}

static int op_build(char **argv)
{
    struct buf b = {0};
    struct hv_vm vm;
    uint32_t domid = 0;

    if (blueprint_of(argv, &vm, &b) ||
        hv->ops->shell_build(hv, &vm, b.data, b.len, &domid, &err))
        return -1;
    printf("domid=%u\n", domid);
    return 0;
}

static int op_destroy(char **argv)
{
    return find(argv[0]) ? -1 : hv->ops->destroy(hv, dom.domid, &err);
}

static int op_rename(char **argv)
{
    return find(argv[0]) ? -1 : hv->ops->rename(hv, dom.domid, argv[1], &err);
}

/* NAME DEADLINE_MS TIMES: suspend and resume. */
static int op_suspend(char **argv)
{
    static const char *const names[] = {"suspended", "not in time", "shut down",
                                        "error"};
    int times = atoi(argv[2]);

    if (find(argv[0]) || hv->ops->suspend_open(hv, dom.domid, &err))
        return -1;
    for (int i = 0; i < times; i++) {
        uint64_t t = clock_ns();
        err_clear(&err);
        enum hv_suspend_result r = hv->ops->suspend(
            hv, dom.domid, (unsigned)atoi(argv[1]), NULL, &err);
        printf("%s after %.1f ms %s\n", names[r],
               (double)(clock_ns() - t) / 1e6, err.text);
        fflush(stdout);
        if (r == HV_SUSPENDED && getenv("HOLD"))
            pause();
        if (r == HV_SUSPENDED && hv->ops->resume(hv, dom.domid, &err))
            return -1;
        if (r == HV_SHUT_DOWN)
            break;
        usleep(300000);
    }
    uint64_t t = clock_ns();
    hv->ops->suspend_close(hv, dom.domid);
    printf("closed after %.1f ms\n", (double)(clock_ns() - t) / 1e6);
    return 0;
}

static int op_recover(char **argv)
{
    return find(argv[0]) ? -1
                         : hv->ops->suspend_recover(
                               hv, dom.domid, (unsigned)atoi(argv[1]), &err);
}

/* NAME SECONDS: log-dirty, a harvest a second. */
static int op_dirty(char **argv)
{
    struct hv_map map;
    int rc = 0;

    if (find(argv[0]) || hv->ops->map(hv, dom.domid, false, &map, &err) ||
        hv->ops->logdirty_start(hv, dom.domid, &err))
        return -1;
    uint64_t *bits = calloc((map.end_gfn + 63) / 64, 8);
    for (int i = 0; i < atoi(argv[1]) && !rc; i++) {
        uint64_t n = 0, out = 0;
        rc = hv->ops->logdirty_clean(hv, dom.domid, bits, map.end_gfn, false,
                                     &err);
        for (uint64_t w = 0; !rc && w < (map.end_gfn + 63) / 64; w++) {
            n += (uint64_t)__builtin_popcountll(bits[w]);
            out += (uint64_t)__builtin_popcountll(bits[w] & ~map.ram[w]);
        }
        printf("%lu dirty, %lu outside of ram, stale=%d\n", n, out,
               hv->ops->map_stale(hv, dom.domid, &map));
        fflush(stdout);
        sleep(1);
    }
    hv->ops->logdirty_stop(hv, dom.domid);
    hv->ops->unmap(hv, &map);
    return rc;
}

static const struct {
    const char *name, *args;
    int n;
    int (*run)(char **argv);
} ops[] = {
    {"info", "NAME", 1, op_info},
    {"check", "NAME", 1, op_check},
    {"describe", "NAME FILE", 2, op_describe},
    {"fits", "NAME UUID FILE", 3, op_fits},
    {"build", "NAME UUID FILE", 3, op_build},
    {"destroy", "NAME", 1, op_destroy},
    {"rename", "NAME NEW", 2, op_rename},
    {"suspend", "NAME DEADLINE_MS TIMES", 3, op_suspend},
    {"recover", "NAME DEADLINE_MS", 2, op_recover},
    {"dirty", "NAME SECONDS", 2, op_dirty},
};

int main(int argc, char **argv)
{
    log_setup("hv-tool", getenv("DEBUG") ? LOG_DEBUG : LOG_INFO);
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        if (argc - 2 != ops[i].n || strcmp(argv[1], ops[i].name) != 0)
            continue;
        int rc = hv_xen_open(&hv, &err) ? -1 : ops[i].run(argv + 2);
        if (rc)
            fprintf(stderr, "hv-tool: %s\n  %s\n", err.text, err.hint);
        if (hv)
            hv->ops->close(hv);
        return rc ? 1 : 0;
    }
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        printf("%s %s\n", ops[i].name, ops[i].args);
    return 2;
}
