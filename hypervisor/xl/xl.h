// SPDX-License-Identifier: Apache-2.0
/* understudy-xl: libxl in a process of its own. Started by xen_xl.c once for
 * each job, one thread (and a feeder for the restore stream). */
#ifndef HYPERVISOR_XL_XL_H
#define HYPERVISOR_XL_XL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libxl.h>
#include <libxl_utils.h>

#include "common/bytes.h"
#include "common/err.h"
#include "hypervisor/blueprint.h"

/* The process's libxl and what it complained about first since
 * said_clear(). */
struct xl {
    xentoollog_logger log;
    libxl_ctx *ctx;
    char said[400];
};

/* main.c ------------------------------------------------------------------ */
void said_clear(struct xl *x);
/* An error of libxl: "WHAT: the deepest thing that libxl said". Returns -1. */
int xl_err(struct xl *x, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Answer to the parent; see xen_xl.c. At most once. */
void answer_ok(uint32_t domid, const void *bytes, size_t n);
/* The blueprint on standard input. `raw` owns the bytes that `bp` points to. */
int blueprint_read(struct buf *raw, struct blueprint *bp, struct err *e);
/* The configuration in a blueprint; dispose it after use, also on error. */
int config_of(struct xl *x, const struct blueprint *bp,
              libxl_domain_config *config, struct err *e);

/* check.c ----------------------------------------------------------------- */
/* Can a VM with this configuration be protected at all? */
int config_check(libxl_domain_config *config, struct err *e);
/* Can this host hold it: name free, memory, bridges, scripts. */
int config_fits(struct xl *x, libxl_domain_config *config, struct err *e);

/* files.c ----------------------------------------------------------------- */
/* The files that the VM is started from lie where they may: on every host that
 * protects it, and again when it is started. UNDERSTUDY_KERNEL_DIRS names the
 * folders, with colons between. */
int files_check(const libxl_domain_config *config, struct err *e);
/* The same for a disk's image: UNDERSTUDY_DISK_DIRS, and not where VMs are
 * started from. */
int image_check(const char *path, struct err *e);

/* stream.c ---------------------------------------------------------------- */
/* Write a libxl save image of an empty VM with the blueprint's platform state
 * into fd (blocking), for libxl_domain_create_restore. Closes fd. Returns
 * false when the reader went away. */
bool stream_write(int fd, const struct blueprint *bp);

/* build.c ----------------------------------------------------------------- */
/* `name` and `uuid` are the shell's, whatever the blueprint says. `boots`: from
 * the kernel that the configuration names. */
int shell_build(struct xl *x, const char *name, const char *uuid, bool boots,
                uint32_t *domid, struct err *e);

/* watch.c ----------------------------------------------------------------- */
/* Become a process that nobody waits for; before libxl is opened. */
void watch_detach(void);
/* Act when the domain shuts down, for as long as it, or one that it was
 * started again as, is there. Answers as soon as it waits. Holds `lock`; when
 * another process has it, there is nothing to do. */
int watch(struct xl *x, uint32_t domid, const char *lock, struct err *e);

#endif
