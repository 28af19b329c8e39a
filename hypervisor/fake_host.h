// SPDX-License-Identifier: Apache-2.0
/* The files of a fake host, for the fake's own parts; see fake_host.c. */
#ifndef HYPERVISOR_FAKE_HOST_H
#define HYPERVISOR_FAKE_HOST_H

#include "hypervisor/fake_private.h"

/* The lock on which domains there are: a descriptor, closing it unlocks. */
int fake_lock(const char *dir, struct err *e);
void *fake_file_map(const char *dir, const char *kind, uint32_t domid,
                    size_t *bytes, bool create, bool writable, struct err *e);
int fake_domain_make(const char *dir, const struct fake_spec *spec, bool shell,
                     uint32_t *domid, struct err *e);
int fake_domain_unmake(const char *dir, uint32_t domid, struct err *e);
/* The domain with the lowest number above *after, which moves there: 0 and a
 * view, 1 when it is just going, -1 when there are no more. */
int fake_domain_next(const char *dir, uint32_t *after, struct fake_view *v);

/* DIR/devices, if there is one, does what a toolstack's scripts do with a
 * domain's devices: `add` or `remove`, and the domain. It says ok at the end.
 */
int fake_devices_script(const char *dir, const char *verb, uint32_t domid,
                        struct err *e);

void fake_blueprint_put(struct buf *out, const struct fake_spec *s,
                        uint32_t step_us);
int fake_blueprint_read(const void *p, size_t len, struct fake_spec *s,
                        struct err *e);

/* fake_watchdog.c */
#define FAKE_WATCHDOGS 2
int fake_watchdog(struct hv *hv, unsigned *id, unsigned seconds, struct err *e);
/* How long each timer has, -1: not in use; and whether one has fired. */
int fake_watchdog_look(const char *dir, long long left_ms[FAKE_WATCHDOGS],
                       bool *fired, struct err *e);

/* fake_watcher.c */
int fake_watcher_start(struct hv *hv, uint32_t domid, const char *lock,
                       struct err *e);
int fake_watcher_end(struct hv *hv, uint32_t domid, const char *lock,
                     struct err *e);
enum hv_watcher fake_watcher(struct hv *hv, uint32_t domid, const char *lock);
int fake_devices(struct hv *hv, uint32_t domid, char out[HV_DEVICES_MAX],
                 struct err *e);

#endif
