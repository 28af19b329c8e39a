// SPDX-License-Identifier: Apache-2.0
/* The fake's watcher: there always is one, the test, which destroys what has
 * shut down and starts it again, or not. Any thread. */
#include "hypervisor/fake_host.h"

int fake_watcher_start(struct hv *hv, uint32_t domid, const char *lock,
                       struct err *e)
{
    (void)hv, (void)domid, (void)lock, (void)e;
    return 0;
}

int fake_watcher_end(struct hv *hv, uint32_t domid, const char *lock,
                     struct err *e)
{
    (void)hv, (void)domid, (void)lock, (void)e;
    return 0;
}

enum hv_watcher fake_watcher(struct hv *hv, uint32_t domid, const char *lock)
{
    (void)hv, (void)domid, (void)lock;
    return HV_WATCHER_WAITS;
}

int fake_devices(struct hv *hv, uint32_t domid, char out[HV_DEVICES_MAX],
                 struct err *e)
{
    (void)hv, (void)domid, (void)e;
    out[0] = '\0';
    return 0;
}
