// SPDX-License-Identifier: Apache-2.0
/* What hosts.c (sessions) and host_calls.c (requests over them) share; nobody
 * else includes this. */
#ifndef AGENT_HOST_SESSION_H
#define AGENT_HOST_SESSION_H

#include "agent/hosts.h"

struct host_session {
    struct host_session *next;
    struct daemon *d;
    struct host *h; /* NULL until an incoming one has shown its key */
    struct link_session *s;
    bool outgoing, hello;
    uint64_t seq, peer_sent_ns, peer_beat_ns;
    struct host_request *requests; /* of the peer, not answered yet */
    unsigned request_count;
};

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
