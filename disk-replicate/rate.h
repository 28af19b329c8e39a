// SPDX-License-Identifier: Apache-2.0
/* So many bytes a second and no more. Pure: the clock is an argument. */
#ifndef DISK_REPLICATE_RATE_H
#define DISK_REPLICATE_RATE_H

#include <stdbool.h>
#include <stdint.h>

/* Zero-initialise, set `bytes_s`. */
struct rate {
    uint64_t bytes_s; /* 0: no limit; up to 2^44 */
    uint64_t last_ns; /* the following are rate_take()'s */
    int64_t credit;
};

/* May `bytes` be done now? Then they count as done. Over any time no more is
 * granted than the rate times that time, a tenth of a second's worth, and what
 * was asked for once. */
bool rate_take(struct rate *r, uint64_t bytes, uint64_t now_ns);

#endif
