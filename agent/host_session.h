// SPDX-License-Identifier: Apache-2.0
/* What hosts.c (sessions), host_paths.c (where they go to) and host_calls.c
 * (requests over them) share; nobody else includes this. */
#ifndef AGENT_HOST_SESSION_H
#define AGENT_HOST_SESSION_H

#include "agent/hosts.h"

struct host_session {
    struct host_session *next;
    struct daemon *d;
    struct host *h; /* NULL until an incoming one has shown its key */
    struct link_session *s;
    struct host_path *path; /* outgoing: on which; NULL: incoming */
    bool hello;
    uint64_t seq, peer_sent_ns, peer_beat_ns;
    struct host_request *requests; /* of the peer, not answered yet */
    unsigned request_count;
};

/* One address of a peer. */
struct host_path {
    struct host_path *next;
    struct host *h;
    struct link_address at;
    struct host_session *session; /* NULL: waits for `retry` */
    ev_timer retry;
    double backoff;
    uint64_t added_ns;
    uint64_t heard_ns; /* on sessions that ended; 0: never */
    struct err why;    /* why the last one failed */
    bool lost;         /* as was said last */
};

/* --- hosts.c */
struct host_session *host_session_new(struct daemon *d, struct host *h);
/* Its end comes by host_path_ended(), unless this fails: then it is freed. */
int host_session_connect(struct host_session *x, const struct link_target *t,
                         struct err *e);
/* At once, without a word. */
void host_session_drop(struct host_session *x);
uint64_t host_session_heard(const struct host_session *x);

/* --- host_paths.c */
/* Follow h->peer. */
void host_paths_update(struct host *h);
void host_paths_end(struct host *h);
/* Each beat: tell of paths that are lost or back. */
void host_paths_watch(struct host *h, uint64_t now);
/* Its session got the peer's HELLO. */
void host_path_ready(struct host_path *p);
/* Its session is gone. */
void host_path_ended(struct host_path *p, const struct err *why);

/* --- host_calls.c */
/* Records from the peer. */
void host_session_request(struct host_session *x, const uint8_t *payload,
                          size_t len);
void host_session_reply(struct host_session *x, const uint8_t *payload,
                        size_t len);
/* The session ends: requests lose it, calls over it fail with `why` (NULL:
 * it was ours to end). */
void host_session_detach(struct host_session *x, const struct err *why);
/* What to do when the peer does not answer. Returns -1. */
int host_hint(const struct host *h, struct err *e);
/* A session is up: send the calls that wait. */
void host_calls_flush(struct host *h);
/* The peer can't be reached: calls that wait fail with host_error(). */
void host_calls_unreachable(struct host *h);

#endif
