// SPDX-License-Identifier: Apache-2.0
/* Configuration files in the syntax of xl.conf(5): `name = value` lines, read
 * by libxlutil so that quoting and comments are the ones Xen's users know.
 * Used once at start by the daemon and by each agent; one thread. */
#ifndef HYPERVISOR_XLCFG_H
#define HYPERVISOR_XLCFG_H

#include <stddef.h>

#include "common/err.h"

struct xlcfg;

/* Read and parse the whole file. ERR_GONE when it does not exist, so that the
 * caller may go on with its defaults; ERR_USAGE with file and line when it
 * can't be parsed or is larger than 64 KiB. Give back with xlcfg_close(). */
int xlcfg_open(const char *path, struct xlcfg **cfg, struct err *e);
/* NULL is fine. */
void xlcfg_close(struct xlcfg *cfg);

/* A string setting into out[size], or `def` (may be "") when the file does not
 * have it. A value that does not fit, or a list, is ERR_USAGE. With cfg NULL
 * both functions give the default. */
int xlcfg_string(struct xlcfg *cfg, const char *name, const char *def,
                 char *out, size_t size, struct err *e);
/* A whole number within [min, max], or `def`. ERR_USAGE with file, line and
 * the bounds otherwise. */
int xlcfg_long(struct xlcfg *cfg, const char *name, long def, long min,
               long max, long *out, struct err *e);

#endif
