// SPDX-License-Identifier: Apache-2.0
/* What the files of the Xen implementation share; nobody outside of
 * hypervisor/ and the lab's test program includes this. One `struct xen` is
 * one connection and belongs to one thread at a time, as hv.h says. */
#ifndef HYPERVISOR_XEN_H
#define HYPERVISOR_XEN_H

#include <xencall.h>
#include <xenctrl.h>
#include <xendevicemodel.h>
#include <xenevtchn.h>
#include <xenforeignmemory.h>
#include <xenstore.h>
#include <xentoollog.h>

#include "hypervisor/blueprint.h"
#include "hypervisor/hv.h"

#define XEN_SPECIALS_MAX 16
#define XEN_PARAMS_MAX   16

/* Frames that belong to a domain's own plumbing, never to the guest's state:
 * xenstore and console rings, ioreq pages, monitor rings. */
struct xen_specials {
    uint64_t gfn[XEN_SPECIALS_MAX];
    unsigned n;
};

/* Log-dirty mode that we have switched on (xen_memory.c). */
struct xen_dirty {
    bool on;
    uint32_t domid;
    uint64_t end_gfn;
    xc_hypercall_buffer_t bitmap;
    uint64_t canary; /* a special frame that we mark after each CLEAN */
};

/* How we ask the guest to suspend (xen_suspend.c). */
struct xen_suspend {
    uint32_t guest_port; /* the guest's end of `port` */
    bool open;
    uint32_t domid;
    enum hv_suspend_path path;
    int port;    /* our end of the event channel; -1: we poll */
    int lock_fd; /* libxc's lock of the suspend event channel */
    char control[64];
    vcpu_guest_context_t *vcpu; /* hypercall memory, for resume() */
    uint64_t offer_ns;          /* when to look again for an event channel */
    int events;                 /* watch events of `control` beyond our own */
    bool asked;                 /* through `control` */
    uint64_t recover_ns;        /* first look for what a predecessor asked */
    uint64_t asked_ns;
    bool late; /* asked, not answered, could not be withdrawn */
};

/* Buffers for get_state(), allocated by its first call (xen_state.c). */
struct xen_state {
    uint32_t domid;
    uint8_t *context; /* hypercall memory */
    size_t context_pages;
    uint64_t params[XEN_PARAMS_MAX];
};

struct xen {
    struct hv hv;
    xentoollog_logger log;
    char said[256]; /* the last thing a Xen library complained about */
    xc_interface *xch;
    xencall_handle *xcall;
    xenforeignmemory_handle *fmem;
    xendevicemodel_handle *dmod;
    xenevtchn_handle *xce;
    struct xs_handle *xs;
    struct xen_domctl *op; /* hypercall memory for xen_domctl() */
    struct xen_dirty dirty;
    struct xen_suspend suspend;
    struct xen_state state;
};

static inline struct xen *xen_of(struct hv *hv)
{
    return (struct xen *)hv;
}

/* xen.c ------------------------------------------------------------------- */
/* Xen's idea of a domain. ERR_GONE when it is not there or dying. */
int xen_dominfo(struct xen *x, uint32_t domid, xc_domaininfo_t *info,
                struct err *e);
/* A node of xenstore as a string into out[size]; false when it is not there or
 * does not fit. */
bool xen_read(struct xen *x, char *out, size_t size, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Clear x->op for a domctl, to be filled in and given to xen_domctl_do(), which
 * returns 0 or sets errno: for the few operations whose libxc wrapper would
 * allocate at each call, or is not public. */
struct xen_domctl *xen_domctl(struct xen *x, uint32_t cmd, uint32_t domid);
int xen_domctl_do(struct xen *x);
int xen_find(struct hv *hv, const char *name, struct hv_domain *d,
             struct err *e);
int xen_find_uuid(struct hv *hv, const uint8_t uuid[16], bool replica,
                  struct hv_domain *d, struct err *e);
int xen_info(struct hv *hv, uint32_t domid, struct hv_domain *d, struct err *e);

/* xen_devices.c ----------------------------------------------------------- */
int xen_vifs(struct hv *hv, uint32_t domid, char names[][16], int *n,
             struct err *e);
int xen_devices(struct hv *hv, uint32_t domid, char out[HV_DEVICES_MAX],
                struct err *e);

/* xen_watchdog.c ---------------------------------------------------------- */
int xen_watchdog(struct hv *hv, unsigned *id, unsigned seconds, struct err *e);

/* xen_watcher.c ----------------------------------------------------------- */
int xen_watcher_start(struct hv *hv, uint32_t domid, const char *lock,
                      struct err *e);
int xen_watcher_end(struct hv *hv, uint32_t domid, const char *lock,
                    struct err *e);
enum hv_watcher xen_watcher(struct hv *hv, uint32_t domid, const char *lock);
/* Somebody else's `xl save` or `xl migrate` of this domain is under way: its
 * log-dirty mode is not ours to turn off. */
bool xen_is_saved(uint32_t domid);

/* xen_memory.c ------------------------------------------------------------ */
void xen_specials(struct xen *x, uint32_t domid, struct xen_specials *s);
/* The gfns below end_gfn that are backed by RAM, into a bitmap. */
int xen_ram_scan(struct xen *x, uint32_t domid, uint64_t end_gfn, uint64_t *ram,
                 struct err *e);
int xen_map(struct hv *hv, uint32_t domid, bool writable, struct hv_map *map,
            struct err *e);
void xen_unmap(struct hv *hv, struct hv_map *map);
bool xen_map_stale(struct hv *hv, uint32_t domid, const struct hv_map *map);
int xen_logdirty_start(struct hv *hv, uint32_t domid, struct err *e);
int xen_logdirty_clean(struct hv *hv, uint32_t domid, uint64_t *bitmap,
                       uint64_t end_gfn, bool final, struct err *e);
void xen_logdirty_stop(struct hv *hv, uint32_t domid);

/* xen_suspend.c ----------------------------------------------------------- */
int xen_suspend_open(struct hv *hv, uint32_t domid, struct err *e);
enum hv_suspend_path xen_suspend_path(struct hv *hv, uint32_t domid);
enum hv_suspend_result xen_suspend(struct hv *hv, uint32_t domid,
                                   unsigned deadline_ms, const bool *over,
                                   struct err *e);
int xen_resume(struct hv *hv, uint32_t domid, struct err *e);
void xen_suspend_close(struct hv *hv, uint32_t domid);
int xen_suspend_recover(struct hv *hv, uint32_t domid, unsigned deadline_ms,
                        struct err *e);

/* xen_control.c ----------------------------------------------------------- */
/* Ask the guest of x->suspend through control/shutdown. ERR_TIMEOUT when
 * somebody else asks for something there. */
int xen_control_ask(struct xen *x, struct err *e);
/* Take such a request back. True: the guest never saw it. */
bool xen_control_withdraw(struct xen *x, const char *control);
/* The guest took our request and one of an `xl save` as one: its suspend is
 * theirs. */
bool xen_control_taken(struct xen *x);

/* xen_state.c ------------------------------------------------------------- */
int xen_get_state(struct hv *hv, uint32_t domid, struct buf *out,
                  struct err *e);
int xen_set_state(struct hv *hv, uint32_t domid, const void *state, size_t len,
                  struct err *e);
void xen_state_free(struct xen *x);

/* xen_policy.c ------------------------------------------------------------ */
/* The domain's CPUID and MSR policy in Xen's serialised form. */
int xen_policy_get(struct xen *x, uint32_t domid, struct buf *cpuid,
                   struct buf *msrs, struct err *e);
/* Can this host run a guest with that policy? ERR_REFUSED names what is
 * missing. */
int xen_policy_check(struct xen *x, const struct blueprint *bp, struct err *e);

/* xen_check.c ------------------------------------------------------------- */
int xen_check_protect(struct hv *hv, uint32_t domid, struct err *e);
int xen_shell_check(struct hv *hv, const struct hv_vm *vm,
                    const void *blueprint, size_t len, struct err *e);
/* This Xen's version as "4.17" into out[size]. */
void xen_version(struct xen *x, char *out, size_t size);

/* xen_shell.c ------------------------------------------------------------- */
int xen_describe(struct hv *hv, uint32_t domid, struct buf *blueprint,
                 struct err *e);
int xen_shell_build(struct hv *hv, const struct hv_vm *vm,
                    const void *blueprint, size_t len, uint32_t *domid,
                    struct err *e);
/* The same without asking whose the blueprint is, for a test on one host: the
 * VM itself is there too. */
int xen_shell_build_as(struct hv *hv, const struct hv_vm *vm,
                       const void *blueprint, size_t len, uint32_t *domid,
                       struct err *e);
int xen_boot(struct hv *hv, const struct hv_vm *vm, const void *blueprint,
             size_t len, uint32_t *domid, struct err *e);
int xen_rename(struct hv *hv, uint32_t domid, const char *name, struct err *e);
int xen_destroy(struct hv *hv, uint32_t domid, struct err *e);

/* xen_xl.c ---------------------------------------------------------------- */
/* Run understudy-xl with these arguments (NULL-terminated, without the
 * program), `input` on its standard input, for at most timeout_s seconds. On
 * success *domid (may be NULL) is the domain it names, and `output` (may be
 * NULL) gets the bytes it sends back. */
int xen_xl(const char *const argv[], const void *input, size_t input_len,
           unsigned timeout_s, uint32_t *domid, struct buf *output,
           struct err *e);

#endif
