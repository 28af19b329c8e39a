// SPDX-License-Identifier: Apache-2.0
/* A limit of bytes a second; see rate.h. Called by the engine's thread. */
#include "disk-replicate/rate.h"

#include "common/clock.h"

#define SAVED 10 /* a part of a second that may be saved up */

/* Credit may become negative by one grant, which is paid back. */
bool rate_take(struct rate *r, uint64_t bytes, uint64_t now_ns)
{
    uint64_t passed = now_ns - r->last_ns;
    int64_t most = (int64_t)(r->bytes_s / SAVED);

    if (!r->bytes_s)
        return true;
    if (!r->last_ns || passed > NS_PER_SEC)
        passed = NS_PER_SEC;
    /* In microseconds, to stay within 64 bits; the rest of them is kept. */
    r->credit += (int64_t)(passed / 1000 * r->bytes_s / 1000000);
    r->last_ns = now_ns - passed % 1000;
    if (r->credit > most)
        r->credit = most;
    if (r->credit < 0)
        return false;
    r->credit -= (int64_t)bytes;
    return true;
}
