// SPDX-License-Identifier: Apache-2.0
/* The program understudy-witness: its directory, the hosts that it knows, the
 * sessions with them, and what an operator may tell it. Used by
 * understudy-witness.c; one thread, and one loop when it serves.
 *
 * The directory holds `state` (witness_file.h), `hosts` (the format of the
 * peers file, its addresses are not looked at), key.pem, cert.pem, and
 * `control`, the socket of the process that serves. A lock on the directory
 * keeps it one process's. */
#ifndef HEARTBEAT_WITNESS_SERVICE_H
#define HEARTBEAT_WITNESS_SERVICE_H

#include <ev.h>

#include "heartbeat/witness_file.h"
#include "link/key.h"
#include "link/peers.h"
#include "link/session.h"

#define WITNESS_SESSIONS_MAX 1024
#define WITNESS_SESSIONS_KEY 300 /* of one key */

struct witness_client;
struct control_client;

struct witness_service {
    char path[256]; /* of the directory */
    struct witness_dir dir;
    struct witness w;
    struct link_peers hosts;
    struct link_key *key;

    /* While it serves. */
    struct ev_loop *loop;
    struct link_tls *tls;
    struct link_listener *listener;
    struct witness_client *clients;
    unsigned client_count;
    bool was_sealed; /* as the clients were told */
    ev_timer sweep;
    int control;
    ev_io control_in;
    struct control_client *operators;
    unsigned operator_count;
    struct err failure; /* why it can't go on; empty: it ends as told */
};

/* Make the directory (0700), a key and an empty memory. ERR_REFUSED when there
 * is a memory already. */
int witness_service_init(struct witness_service *s, const char *path,
                         struct err *e);
/* Open what init made. ERR_GONE when nothing is there, ERR_REFUSED while
 * another process has it. */
int witness_service_open(struct witness_service *s, const char *path,
                         struct err *e);
void witness_service_close(struct witness_service *s);

/* Serve hosts and operators until SIGTERM or SIGINT, or until a change can't
 * be written down (-1: a new start finds out what the disk has). */
int witness_service_run(struct witness_service *s, const char *address,
                        uint16_t port, struct err *e);

/* --- What an operator says (witness_verbs.c) ----------------------------- */

/* key | status [--json] | list [--json] | pin list | pin add NAME PIN |
 * pin remove NAME | seal [WHY..] | unseal | forget UUID. What there is to say
 * is appended to `out`. ERR_USAGE for what is none of them. */
int witness_verb(struct witness_service *s, int argc, char **argv,
                 struct buf *out, struct err *e);
bool witness_verb_known(const char *name);

/* --- Between its files -----------------------------------------------------
 */

/* Hosts or the seal changed: sessions follow (witness_server.c). */
void witness_server_follow(struct witness_service *s);
int witness_server_start(struct witness_service *s, const char *address,
                         uint16_t port, struct err *e);
void witness_server_stop(struct witness_service *s);
/* The socket of the process that serves (witness_control.c). */
int witness_control_start(struct witness_service *s, struct err *e);
void witness_control_stop(struct witness_service *s);
/* Ask the process that serves DIR; blocks, 10 s at most. *there: is there one,
 * so that it has answered, or failed to. */
int witness_control_ask(const char *path, int argc, char **argv, bool *there,
                        struct buf *out, struct err *e);

#endif
