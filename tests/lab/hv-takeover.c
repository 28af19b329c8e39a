// SPDX-License-Identifier: Apache-2.0
/* Takes over a running PVH guest on its own host, through hv.h alone, and
 * prints how long each step took: describe, build a shell of it (with another
 * uuid, as the guest is here too), map both, copy everything, some epochs, then
 * suspend it for the last time, give its state to the shell, destroy it, and
 * let the shell run under its name. The guest's clients should not notice.
 *
 *   hv-takeover NAME [EPOCHS [INTERVAL_MS]]  */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "hypervisor/xen.h"

#define DEADLINE_MS 20000

static struct hv *hv;
static struct hv_domain guest;
static uint32_t shell;
static struct hv_map from, to;
static uint64_t *bitmap;
static struct buf state;
static struct err err;

static uint64_t began;

static void step(const char *what)
{
    uint64_t now = clock_ns();

    printf("%-28s %9.3f ms\n", what, (double)(now - began) / 1e6);
    fflush(stdout);
    began = clock_ns();
}

static void need(int rc)
{
    if (!rc)
        return;
    fprintf(stderr, "hv-takeover: %s\n%s\n", err.text, err.hint);
    if (hv && guest.domid) {
        hv->ops->suspend_close(hv, guest.domid);
        hv->ops->logdirty_stop(hv, guest.domid);
    }
    if (hv && shell)
        hv->ops->destroy(hv, shell, NULL);
    exit(1);
}

static uint64_t copy(bool all)
{
    uint64_t n = 0;

    for (uint64_t i = 0; i < (from.end_gfn + 63) / 64; i++) {
        uint64_t w = from.ram[i] & (all ? ~0ull : bitmap[i]);
        for (; w; w &= w - 1) {
            uint64_t gfn = i * 64 + (uint64_t)__builtin_ctzll(w);
            if (!(to.ram[gfn / 64] >> (gfn % 64) & 1)) {
                err_set(&err, "gfn %#lx is not in the shell", gfn);
                need(-1);
            }
            memcpy(to.base + gfn * HV_PAGE, from.base + gfn * HV_PAGE, HV_PAGE);
            n++;
        }
    }
    return n;
}

static void suspend_guest(void)
{
    switch (hv->ops->suspend(hv, guest.domid, DEADLINE_MS, NULL, &err)) {
    case HV_SUSPENDED:
        return;
    case HV_SHUT_DOWN:
        err_set(&err, "the guest shut down");
        break;
    default:
        break;
    }
    need(-1);
}

static void epoch(bool last)
{
    uint64_t t[6];

    t[0] = clock_ns();
    suspend_guest();
    t[1] = clock_ns();
    need(hv->ops->logdirty_clean(hv, guest.domid, bitmap, from.end_gfn, true,
                                 &err));
    t[2] = clock_ns();
    uint64_t n = copy(false);
    t[3] = clock_ns();
    buf_clear(&state);
    need(hv->ops->get_state(hv, guest.domid, &state, &err));
    t[4] = clock_ns();
    if (!last)
        need(hv->ops->resume(hv, guest.domid, &err));
    t[5] = clock_ns();
    printf("epoch: suspend %.3f clean %.3f copy %.3f (%lu pages) state %.3f "
           "(%zu bytes) resume %.3f ms\n",
           (double)(t[1] - t[0]) / 1e6, (double)(t[2] - t[1]) / 1e6,
           (double)(t[3] - t[2]) / 1e6, n, (double)(t[4] - t[3]) / 1e6,
           state.len, (double)(t[5] - t[4]) / 1e6);
}

static void prepare(const char *name, struct buf *blueprint)
{
    struct hv_vm vm;

    need(hv->ops->find(hv, name, &guest, &err));
    need(hv->ops->check_protect(hv, guest.domid, &err));
    step("find, check_protect");
    need(hv->ops->describe(hv, guest.domid, blueprint, &err));
    step("describe");
    printf("blueprint: %zu bytes, end_gfn %#lx, %lu pages\n", blueprint->len,
           guest.end_gfn, guest.pages);
    memcpy(vm.uuid, guest.uuid, sizeof vm.uuid);
    memcpy(vm.name, guest.name, sizeof vm.name);
    if (!hv->ops->shell_check(hv, &vm, blueprint->data, blueprint->len, &err)) {
        err_set(&err, "shell_check did not see that the name is taken");
        need(-1);
    }
    printf("shell_check, as it must: %s\n  %s\n", err.text, err.hint);
    step("shell_check");
    for (int i = 0; i < 4; i++)
        vm.uuid[i] ^= (uint8_t)(getpid() >> 8 * i);
    need(xen_shell_build_as(hv, &vm, blueprint->data, blueprint->len, &shell,
                            &err));
    step("shell_build");
}

int main(int argc, char **argv)
{
    struct buf blueprint = {0};
    int epochs = argc > 2 ? atoi(argv[2]) : 10;
    unsigned interval_ms = argc > 3 ? (unsigned)atoi(argv[3]) : 200;

    log_setup("hv-takeover", LOG_DEBUG);
    if (argc < 2)
        return 2;
    began = clock_ns();
    need(hv_xen_open(&hv, &err));
    prepare(argv[1], &blueprint);
    need(hv->ops->map(hv, guest.domid, false, &from, &err));
    step("map the guest");
    need(hv->ops->map(hv, shell, true, &to, &err));
    step("map the shell");
    printf("guest: %lu frames, shell: %lu frames\n", from.ram_pages,
           to.ram_pages);
    bitmap = calloc((from.end_gfn + 63) / 64, 8);
    need(hv->ops->logdirty_start(hv, guest.domid, &err));
    step("logdirty_start");
    copy(true);
    step("copy all");
    need(hv->ops->suspend_open(hv, guest.domid, &err));
    need(hv->ops->get_state(hv, guest.domid, &state, &err));
    step("suspend_open, get_state");
    for (int i = 0; i < epochs; i++) {
        epoch(false);
        usleep(interval_ms * 1000);
    }
    began = clock_ns();
    epoch(true);
    step("last epoch");
    need(hv->ops->set_state(hv, shell, state.data, state.len, &err));
    step("set_state");
    hv->ops->unmap(hv, &from);
    hv->ops->unmap(hv, &to);
    step("unmap");
    hv->ops->suspend_close(hv, guest.domid);
    hv->ops->logdirty_stop(hv, guest.domid);
    need(hv->ops->destroy(hv, guest.domid, &err));
    step("destroy the guest");
    need(hv->ops->rename(hv, shell, guest.name, &err));
    step("rename");
    need(hv->ops->unpause(hv, shell, &err));
    step("unpause");
    hv->ops->close(hv);
    printf("done: domain %u\n", shell);
    return 0;
}
