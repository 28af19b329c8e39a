// SPDX-License-Identifier: Apache-2.0
/* The durable records of protected VMs, /var/lib/understudy/vms/UUID.json: what
 * was decided is written here before it is done. The daemon creates a record
 * (protect, prepare); from then on only the VM's agent writes and deletes it.
 *
 * A record is replaced atomically (temporary file, fsync, rename, fsync of the
 * directory). Reading is strict: an unknown key, a missing key, a value out of
 * range or a file name that does not match its uuid is an error that names the
 * file, and the record is not acted on. Blocks on the disk: not for use while
 * a guest is stopped. Any thread, one writer per VM. */
#ifndef AGENT_STORE_H
#define AGENT_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/state.h"
#include "common/err.h"
#include "common/text.h"

#define STORE_VERSION  1
#define STORE_MAX_VMS  1024
#define STORE_UUID_LEN (UUID_TEXT - 1)

enum vm_role { ROLE_PRIMARY = 1, ROLE_BACKUP };

/* How far a primary came: what an end before it is Protected goes back to. */
enum vm_stage {
    STAGE_NEW,         /* the first `protect` is under way: unprotected */
    STAGE_ESTABLISHED, /* was Protected: nothing but `unprotect` ends it */
    STAGE_TAKEN_OVER,  /* it runs here since a takeover, the first `protect`
                        * since is under way: to the record of the takeover */
};

struct vm_record {
    char uuid[STORE_UUID_LEN + 1]; /* lower case, with dashes */
    char name[64];                 /* the VM's, without the replica tag */
    enum vm_role role;             /* this host's */
    enum vm_stage stage;           /* a backup's is STAGE_NEW */
    char peer[64];                 /* a name in the peers file */
    char arbiter[512];             /* "none", or a line of arbiter.h */
    uint64_t generation;           /* >= 1 */
    /* With an arbiter only: */
    uint64_t claim; /* nonce of a claim of generation + 1 that may be on its
                     * way, below 2^63; 0: none */
    char lease[12]; /* what a successor has to go on from: "guarded",
                     * "yielded", "fenced", "standby", "won", "returning",
                     * "lost"; or "" */
    bool paused;    /* we have paused the guest, or are about to */
    uint8_t incarnation[16]; /* random, one per `protect` or reboot */
    int64_t domid;           /* guest or shell; -1: none yet */
    unsigned interval_ms;    /* between epochs, 1..60000 */
    unsigned timeout_ms;     /* T, 100..600000 */
    enum vm_state state;     /* at the last write */
    bool running;            /* this host runs the VM with output out */
    bool wanted;             /* false: unprotect was decided */
};

const char *vm_role_name(enum vm_role role); /* "primary", "backup" */
bool vm_role_parse(const char *name, enum vm_role *role);

/* ERR_GONE when there is no such record. */
int store_load(const char *uuid, struct vm_record *r, struct err *e);
/* Call `each` for every good record and `bad` (may be NULL) for every file
 * that is not one, with its name. Order is by name of file. Fails only when
 * the directory can't be read. Temporary files of a dead writer are removed.
 */
int store_scan(void (*each)(void *arg, const struct vm_record *r),
               void (*bad)(void *arg, const char *file, const struct err *why),
               void *arg, struct err *e);
/* Write the record durably; checks it as strictly as load does. */
int store_save(const struct vm_record *r, struct err *e);
/* Remove what dead writers of this record had begun. */
void store_tidy(const char *uuid);
/* Durably gone. Fine when it was gone. */
int store_delete(const char *uuid, struct err *e);

#endif
