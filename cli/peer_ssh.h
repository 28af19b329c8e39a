// SPDX-License-Identifier: Apache-2.0
/* The other host's half of `understudy peer add root@HOST`, over ssh. The
 * variable UNDERSTUDY_SSH names another program than ssh; it gets the target
 * and a command line as its two arguments. */
#ifndef CLI_PEER_SSH_H
#define CLI_PEER_SSH_H

#include <jansson.h>

#include "common/err.h"

/* One of the two hosts. */
struct ssh_peer {
    char name[64], pin[65];
    char address[128]; /* with ":PORT" when the port is not the usual one */
    long long port;
};

/* From what `understudy key show --json` says on `whose`; all of it is
 * checked, it goes into a command line. */
int ssh_peer_of(struct ssh_peer *p, const json_t *key, const char *whose,
                struct err *e);
int ssh_key_show(const char *target, struct ssh_peer *them, struct err *e);
/* Run `understudy peer add` there for us. */
int ssh_peer_add(const char *target, const struct ssh_peer *us, struct err *e);
/* Fill both addresses: as given, or their host's and the local one that this
 * host reaches it from. */
int ssh_addresses(const char *target, const char *theirs, const char *ours,
                  struct ssh_peer *them, struct ssh_peer *us, struct err *e);

#endif
