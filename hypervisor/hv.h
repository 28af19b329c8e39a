// SPDX-License-Identifier: Apache-2.0
/* The seam to the hypervisor: a const table of operations. Behind it stand Xen
 * (hypervisor/xen*.c, the only place besides hypervisor/xl/ that includes
 * Xen's headers) and a fake for tests (hypervisor/fake.c: guest memory in a
 * memfd, written by threads).
 *
 * A `struct hv` is one connection. It belongs to one thread at a time; open a
 * second one for a second thread. Frame numbers are guest frame numbers
 * (gfn == pfn for PVH and HVM), pages are 4096 bytes. Functions return 0 or -1
 * with *e set, unless said otherwise. */
#ifndef HYPERVISOR_HV_H
#define HYPERVISOR_HV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/err.h"

#define HV_PAGE        4096u
#define HV_MAX_VIFS    8
#define HV_REPLICA_TAG "--replica" /* the shell is named NAME--replica */

enum hv_type { HV_PV, HV_PVH, HV_HVM };

/* Why a domain is shut down; Xen's SHUTDOWN_* (public/sched.h). */
enum hv_shutdown {
    HV_RUNNING = -1,
    HV_POWEROFF = 0,
    HV_REBOOT = 1,
    HV_SUSPEND = 2,
    HV_CRASH = 3,
    HV_OTHER = 4,
};

struct hv_domain {
    uint32_t domid;
    uint8_t uuid[16];
    char name[64];
    enum hv_type type;
    bool paused, dying;
    bool ran; /* it has executed something */
    enum hv_shutdown shutdown;
    uint32_t vcpus; /* highest online + 1 */
    uint64_t pages; /* populated now */
    uint64_t max_pages;
    uint64_t end_gfn; /* one past the highest gfn */
};

/* Which VM is meant, as this host has it on record: its replica bears both,
 * whatever a peer says. */
struct hv_vm {
    uint8_t uuid[16];
    char name[64]; /* without HV_REPLICA_TAG */
};

/* A persistent mapping of a guest's memory. `base + gfn * HV_PAGE` is gfn's
 * page when bit gfn of `ram` is set; other pages must not be touched. The
 * caller owns it and gives it back with unmap(). */
struct hv_map {
    uint8_t *base;
    uint64_t end_gfn;
    uint64_t *ram; /* bitmap, (end_gfn + 63) / 64 words */
    uint64_t ram_pages;
    void *priv;
};

enum hv_suspend_path { HV_SUSPEND_XENSTORE, HV_SUSPEND_EVTCHN };

/* What suspend() found. */
enum hv_suspend_result {
    HV_SUSPENDED,    /* stopped for us; resume() is now owed */
    HV_NOT_IN_TIME,  /* request withdrawn, the guest runs */
    HV_LATE,         /* the guest runs, but may suspend at any time: call
                        suspend() again at once, or suspend_recover() */
    HV_SHUT_DOWN,    /* rebooted, powered off or crashed: see info() */
    HV_SUSPEND_ERROR /* *e says why; the guest runs */
};

/* Whether somebody acts when a domain shuts down; see watcher_start(). */
enum hv_watcher {
    HV_WATCHER_NONE,
    HV_WATCHER_WAITS, /* for the domain to shut down */
    HV_WATCHER_ACTS,  /* destroys it, starts it again, ... */
};

#define HV_DEVICES_MAX 512

struct hv;

struct hv_ops {
    const char *name; /* "xen" or "fake" */
    void (*close)(struct hv *hv);

    /* --- Domains ------------------------------------------------------- */
    /* By name, or by decimal id. ERR_GONE when there is none. */
    int (*find)(struct hv *hv, const char *name, struct hv_domain *d,
                struct err *e);
    /* By uuid; domains named ...--replica are only found when `replica`. */
    int (*find_uuid)(struct hv *hv, const uint8_t uuid[16], bool replica,
                     struct hv_domain *d, struct err *e);
    /* ERR_GONE when the domain is not there or dying. */
    int (*info)(struct hv *hv, uint32_t domid, struct hv_domain *d,
                struct err *e);
    int (*pause)(struct hv *hv, uint32_t domid, struct err *e);
    int (*unpause)(struct hv *hv, uint32_t domid, struct err *e);
    /* xenstore names of the VM's vif backends in this host's driver domain 0:
     * "vif3.0", ... in devid order; *n at most HV_MAX_VIFS. An error that
     * names the device when an interface lives in another driver domain. */
    int (*vifs)(struct hv *hv, uint32_t domid, char names[][16], int *n,
                struct err *e);

    /* The VM's devices in this host's words, "vif/0 vif/1 vbd/51712", sorted:
     * to see that one was plugged in or out. Cheap. */
    int (*devices)(struct hv *hv, uint32_t domid, char out[HV_DEVICES_MAX],
                   struct err *e);

    /* --- Who acts when the VM shuts down -------------------------------
     * A watcher is a process of its own that waits for the domain's end and
     * then does what the VM's configuration says (on_poweroff, on_reboot,
     * on_crash, on_watchdog), and goes on with the domain that it started
     * instead. `xl create` leaves one, which our suspends confuse. `lock` is
     * the path of a file that only one watcher of a VM holds at a time. */
    /* Start one that outlives us, unless there is one, xl's included. One
     * that finds the domain shut down already acts at once. */
    int (*watcher_start)(struct hv *hv, uint32_t domid, const char *lock,
                         struct err *e);
    /* End the domain's watcher, whether ours or xl's. One that acts finishes
     * that first, and is not waited for. */
    int (*watcher_end)(struct hv *hv, uint32_t domid, const char *lock,
                       struct err *e);
    enum hv_watcher (*watcher)(struct hv *hv, uint32_t domid, const char *lock);

    /* --- Primary: preflight, memory, suspend --------------------------- */
    /* Refuse by name what cannot be protected: not PVH, disks without our
     * script, passthrough, vNUMA, populate-on-demand not settled, vifs in
     * driver domains, 9p, vtpm, framebuffers. ERR_REFUSED with a hint. */
    int (*check_protect)(struct hv *hv, uint32_t domid, struct err *e);
    /* Everything the other host needs to build the shell: libxl's
     * configuration (JSON), CPU policy, the populated gfns, provisional
     * platform state, sizes. Opaque bytes, parsed by shell_* only; at most
     * HV_BLUEPRINT_MAX. The guest runs. */
    int (*describe)(struct hv *hv, uint32_t domid, struct buf *blueprint,
                    struct err *e);
    int (*map)(struct hv *hv, uint32_t domid, bool writable, struct hv_map *map,
               struct err *e);
    void (*unmap)(struct hv *hv, struct hv_map *map);
    /* Set when the guest's memory layout changed since map(): a change of
     * populated pages, of max_pages or of end_gfn. */
    bool (*map_stale)(struct hv *hv, uint32_t domid, const struct hv_map *map);
    int (*logdirty_start)(struct hv *hv, uint32_t domid, struct err *e);
    /* Read and clear the dirty bitmap into `bitmap` (map's size), all
     * hypercall memory preallocated by logdirty_start. Only the bits of
     * map.ram mean something. `final`: the guest is stopped, add the frames
     * that the hypervisor itself has mapped. An error of kind ERR_GONE means
     * that somebody else read, restarted or ended log-dirty mode, and that
     * dirty bits are lost: nothing but a full copy helps. */
    int (*logdirty_clean)(struct hv *hv, uint32_t domid, uint64_t *bitmap,
                          uint64_t end_gfn, bool final, struct err *e);
    /* Idempotent; fine when it is off already or the domain is gone. */
    void (*logdirty_stop)(struct hv *hv, uint32_t domid);

    /* Prepare suspending: event channel, subscription where it works.
     * Cleaned up by suspend_close; leftovers of a crashed predecessor are
     * cleaned up by the next suspend_open or suspend_close. */
    int (*suspend_open)(struct hv *hv, uint32_t domid, struct err *e);
    /* How the next suspend() will ask. Looks at what the guest offers now, and
     * makes ready for that: its module comes and goes. */
    enum hv_suspend_path (*suspend_path)(struct hv *hv, uint32_t domid);
    /* Ask the guest to suspend and wait until it has, at most `deadline_ms`,
     * and no longer than until *over (set by any thread, atomically; or NULL).
     * A guest that took the request and is late (HV_LATE) still has it, for up
     * to 25 s: the next suspend() waits for the same answer. A guest that is
     * paused, or that somebody else suspends, is HV_NOT_IN_TIME.
     * The caller has noted durably that it asks (I5). */
    enum hv_suspend_result (*suspend)(struct hv *hv, uint32_t domid,
                                      unsigned deadline_ms, const bool *over,
                                      struct err *e);
    /* Let a guest that suspended for us run on (fast resume). */
    int (*resume)(struct hv *hv, uint32_t domid, struct err *e);
    void (*suspend_close)(struct hv *hv, uint32_t domid);
    /* A suspend was asked for, maybe by a predecessor, and whether it came is
     * not known: withdraw the request or, when the guest did suspend, resume
     * it. ERR_TIMEOUT after deadline_ms when the guest runs, but has the
     * request still; that is over after 25 s at most. */
    int (*suspend_recover)(struct hv *hv, uint32_t domid, unsigned deadline_ms,
                           struct err *e);

    /* Platform state of a stopped guest, as Xen's migration stream records
     * (TSC info, HVM context, HVM params). `out` is reserved by the first
     * call outside of a pause, so that later ones do not allocate. */
    int (*get_state)(struct hv *hv, uint32_t domid, struct buf *out,
                     struct err *e);

    /* --- Backup: the shell --------------------------------------------- */
    /* Is the blueprint that of `vm`, and can this host hold it: memory, CPU
     * vendor and features, bridges, both names free, kernel modules.
     * ERR_REFUSED with a hint. */
    int (*shell_check)(struct hv *hv, const struct hv_vm *vm,
                       const void *blueprint, size_t len, struct err *e);
    /* Build the paused shell NAME--replica of `vm` with zeroed memory, devices
     * attached. May take seconds; bounded; nothing left behind on error. No
     * other domain is touched. */
    int (*shell_build)(struct hv *hv, const struct hv_vm *vm,
                       const void *blueprint, size_t len, uint32_t *domid,
                       struct err *e);
    /* Boot the VM anew from a blueprint's configuration, with its devices: it
     * is paused, named NAME--replica, and has executed nothing. Of the
     * blueprint's memory and platform state nothing is used. ERR_REFUSED with a
     * hint when this host can't hold it. Else as shell_build(). */
    int (*boot)(struct hv *hv, const struct hv_vm *vm, const void *blueprint,
                size_t len, uint32_t *domid, struct err *e);
    /* Is this a state that set_state() could take? It comes from the peer, and
     * an epoch is not acknowledged without. Pure; any thread. */
    int (*state_check)(const void *state, size_t len, struct err *e);
    /* Platform state of the committed epoch into the paused shell. */
    int (*set_state)(struct hv *hv, uint32_t domid, const void *state,
                     size_t len, struct err *e);
    /* After the takeover: give the domain its real name. */
    int (*rename)(struct hv *hv, uint32_t domid, const char *name,
                  struct err *e);
    /* Destroy a domain and wait until it is gone; fine when it is gone
     * already. One whose memory the caller has mapped is dead but not gone:
     * unmap() first. (Announcing the VM's addresses after an unpause is the
     * guest's own job on resume, netfront does it.) */
    int (*destroy)(struct hv *hv, uint32_t domid, struct err *e);

    /* --- This host ----------------------------------------------------- */
    /* A timer that resets the host when it is not set again in time; there are
     * two, one may be xenwatchdogd's. *id 0: make one, and put its number
     * there. Else set it again, or, with 0 seconds, give it back: ERR_GONE when
     * it is not in use. Does not wait for anything. */
    int (*watchdog)(struct hv *hv, unsigned *id, unsigned seconds,
                    struct err *e);
};

#define HV_BLUEPRINT_MAX (64u << 20)
#define HV_STATE_MAX     (16u << 20)

/* Embedded first in the implementation's own structure. */
struct hv {
    const struct hv_ops *ops;
};

/* The real one. Fails with a hint when this is not a Xen dom0. */
int hv_xen_open(struct hv **hv, struct err *e);
/* The fake: a directory holds its "host" (domains as files), so that several
 * processes see the same one. */
int hv_fake_open(const char *dir, struct hv **hv, struct err *e);

#endif
