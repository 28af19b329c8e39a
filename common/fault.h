// SPDX-License-Identifier: Apache-2.0
/* Fault points: named places in the code where a test can stop or kill the
 * process. They are compiled in always, and armed by writing
 *
 *     NAME ACTION [SKIP]\n       ACTION: stop | kill | hold | mark | fail
 *
 * into the file `faults` of the run directory, which is root's (0600) and
 * mapped by every process of ours; the first process to reach NAME for the
 * (SKIP+1)th time takes it: it disarms the file, writes NAME into
 * `faults.hit`, and does ACTION: SIGSTOP to itself, SIGKILL to itself, keep
 * this thread there until `faults.hit` is removed (a minute at most), nothing,
 * or return true. Not armed, a point costs a load and a branch. */
#ifndef COMMON_FAULT_H
#define COMMON_FAULT_H

#include <stdbool.h>

/* Map DIR/faults, created when missing. Without this call, or when it fails
 * (it logs why), all points are off. */
void fault_setup(const char *dir);
bool fault_hit(const char *name);
extern const volatile char *fault_page; /* first byte 0: nothing is armed */

/* True only when the point is armed with `fail`. Any thread. */
static inline bool fault_point(const char *name)
{
    return fault_page && fault_page[0] && fault_hit(name);
}

#endif
