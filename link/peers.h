// SPDX-License-Identifier: Apache-2.0
/* The hosts that this host knows, and the file they are kept in. A line a
 * peer: `NAME ADDRESS[:PORT] PIN [ADDRESS[:PORT]]...`; IPv6 addresses in
 * brackets; the addresses after the pin are further heartbeat paths. '#' starts
 * a comment line. Comments are kept, but move to the top when the file is
 * rewritten. No lock in here: one thread; the daemon is the file's writer. */
#ifndef LINK_PEERS_H
#define LINK_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/err.h"
#include "link/key.h"

#define PEERS_MAX     256
#define PEER_MORE_MAX 7 /* further addresses of one peer */

struct link_address {
    char host[256]; /* without brackets: a host name, IPv4 or IPv6 */
    uint16_t port;  /* never 0: WIRE_PORT when none was written */
};

struct link_peer {
    char name[64];          /* [A-Za-z0-9._-], first a letter or digit */
    struct link_address at; /* the replication link */
    uint8_t pin[PIN_BYTES];
    struct link_address more[PEER_MORE_MAX];
    unsigned more_count;
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
/* ERR_USAGE. */
int address_parse(struct link_address *a, const char *text, struct err *e);
bool address_equal(const struct link_address *a, const struct link_address *b);
/* "10.0.0.1:7788", "[fd00::1]:7788". */
#define ADDRESS_TEXT 272
void address_format(const struct link_address *a, char out[ADDRESS_TEXT]);

/* One more path to the peer. ERR_REFUSED when it has that address already, or
 * PEER_MORE_MAX of them. */
int peer_path_add(struct link_peer *peer, const struct link_address *a,
                  struct err *e);
/* ERR_GONE when it is none of them; ERR_REFUSED for the replication link. */
int peer_path_remove(struct link_peer *peer, const struct link_address *a,
                     struct err *e);

#endif
