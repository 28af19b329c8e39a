// SPDX-License-Identifier: Apache-2.0
/* The hosts that this host knows, and the file they are kept in. A line a
 * peer: `NAME ADDRESS[:PORT] PIN`; IPv6 addresses in brackets; '#' starts a
 * comment line. Comments are kept, but move to the top when the file is
 * rewritten. No lock in here: one thread; the daemon is the file's writer. */
#ifndef LINK_PEERS_H
#define LINK_PEERS_H

#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/err.h"
#include "link/key.h"

#define PEERS_MAX 256

struct link_peer {
    char name[64];     /* [A-Za-z0-9._-], starts with a letter or digit */
    char address[256]; /* without brackets: a host name, IPv4 or IPv6 */
    uint16_t port;     /* never 0: WIRE_PORT when the line had none */
    uint8_t pin[PIN_BYTES];
};

struct link_peers {
    struct link_peer *list;
    size_t count;
    struct buf comments;
};

/* Replaces what *p held (zero-initialise it first). A missing file is an empty
 * list. Errors name the file and the line; *p is then unchanged. Two peers of
 * one name, or of one pin, are refused. */
int peers_load(struct link_peers *p, const char *path, struct err *e);
/* Written beside, fsynced, renamed over, directory fsynced; mode 0600. */
int peers_save(const struct link_peers *p, const char *path, struct err *e);
void peers_free(struct link_peers *p);

/* ERR_REFUSED when name or pin is there already, or the list is full. */
int peers_add(struct link_peers *p, const struct link_peer *peer,
              struct err *e);
/* ERR_GONE when there is no such name. */
int peers_remove(struct link_peers *p, const char *name, struct err *e);
/* NULL when unknown; valid until the next add, remove or load. */
const struct link_peer *peers_by_name(const struct link_peers *p,
                                      const char *name);
const struct link_peer *peers_by_pin(const struct link_peers *p,
                                     const uint8_t pin[PIN_BYTES]);

/* The three fields as a person types them. ERR_USAGE. */
int peer_parse(struct link_peer *peer, const char *name, const char *address,
               const char *pin, struct err *e);
/* "10.0.0.1:7788", "[fd00::1]:7788". */
void peer_address_format(const struct link_peer *peer, char *out, size_t size);

#endif
