// SPDX-License-Identifier: Apache-2.0
/* A session: records in both directions over TLS 1.3 on one TCP connection,
 * in a libev loop. Both sides prove a key; each knows the other by its pin.
 *
 * Everything here is for the thread that runs the loop, except link_pipe_begin,
 * _room, _send and _queued, which are for one other thread a pipe. Nothing
 * blocks but link_pipe_room and link_pipe_send. Callbacks come from the loop
 * only, never from inside a call of this API, and with no lock held; all calls
 * are allowed in them. No session of this process works for longer than about
 * 256 KiB of data before the loop's other watchers get their turn.
 *
 * A process that uses this must ignore SIGPIPE (link_tls_new() does it). */
#ifndef LINK_SESSION_H
#define LINK_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "link/key.h"
#include "link/wire.h"

struct ev_loop;
struct link_session;
struct link_tls;

/* Bytes queued with link_send() above which the caller should stop (nothing
 * enforces it but LINK_QUEUE_MAX), and below which `drained` is called. */
#define LINK_HIGH_WATER (4u << 20)
#define LINK_LOW_WATER  (1u << 20)
#define LINK_QUEUE_MAX  (64u << 20)

/* The keys and TLS settings of a process, for any number of sessions, which
 * must end before it. Copies what it needs of `key`. */
int link_tls_new(const struct link_key *key, struct link_tls **tls,
                 struct err *e);
void link_tls_free(struct link_tls *tls);

struct link_callbacks {
    /* Both keys were accepted as far as this side can see, records may be
     * sent. A client can still be refused by the server after this, and
     * learns it from `closed`: rely on the peer's HELLO, not on this. */
    void (*ready)(struct link_session *s, void *arg);
    /* One whole record; the payload is valid during the call only. Only types
     * that are legal in this session's kind arrive, in legal lengths, HELLO
     * first and once. REFUSE and BYE do not come here: they end the session,
     * and what they say is in `why`. */
    void (*record)(struct link_session *s, uint32_t type,
                   const uint8_t *payload, size_t len, void *arg);
    /* The queue was at or above LINK_HIGH_WATER and fell below
     * LINK_LOW_WATER. May be NULL. */
    void (*drained)(struct link_session *s, void *arg);
    /* Exactly once, last: the session is freed when this returns. `why` is
     * never NULL; why->kind is 0 when link_close() was called and everything
     * was delivered, ERR_GONE when the peer or the connection went away,
     * ERR_TIMEOUT, ERR_REFUSED (a key), or ERR_FAILED (a violation). */
    void (*closed)(struct link_session *s, const struct err *why, void *arg);
};

/* Server side: is this pin known? Return true and fill name[64] with what to
 * call the peer. Runs inside the handshake: look it up, nothing else. */
typedef bool link_lookup(void *arg, const uint8_t pin[PIN_BYTES],
                         char name[WIRE_NAME_MAX]);

/* A connection to make. Copied. */
struct link_target {
    const char *peer;    /* its name, for sentences */
    const char *address; /* numeric, or a name: see link_connect() */
    uint16_t port;
    const uint8_t *pin; /* PIN_BYTES: the only key that is accepted */
    enum wire_kind kind;
    uint8_t uuid[16];     /* kind vm: the VM; else zeroes */
    unsigned deadline_ms; /* resolving, connecting and handshake; 0: 5000 */
};

/* Connect, send the preamble, do TLS as the client. Errors after this call
 * come through `closed`. A numeric address is used as it is; a name is
 * resolved (getaddrinfo, so /etc/hosts works) once a connection, by a helper
 * thread that outlives the session if the resolver hangs: the loop never
 * waits for a resolver. */
int link_connect(struct ev_loop *loop, struct link_tls *tls,
                 const struct link_target *target,
                 const struct link_callbacks *cb, void *arg,
                 struct link_session **s, struct err *e);

/* Do TLS as the server on a connection whose preamble was read. Takes `fd`
 * (also on error). Handshake bound: 5 s; at most 64 handshakes at a time a
 * link_tls: one more ends the oldest from an address where no known key was
 * ever shown, else the oldest if this one's address is such; ERR_REFUSED
 * else. */
int link_accept(struct ev_loop *loop, struct link_tls *tls, int fd,
                enum wire_kind kind, link_lookup *lookup, void *lookup_arg,
                const struct link_callbacks *cb, void *arg,
                struct link_session **s, struct err *e);

/* --- Sending (loop thread) --------------------------------------------- */

/* Queue a copy of one record. Only from `ready` on; before it, and after the
 * end began, it is dropped silently (closed is on its way). More than
 * LINK_QUEUE_MAX queued ends the session. */
void link_send(struct link_session *s, uint32_t type, const void *payload,
               size_t len);
/* The same, but goes out before everything queued that has not begun. For
 * beats and small control records that may overtake bulk data. At most
 * WIRE_CONTROL_MAX bytes. */
void link_send_urgent(struct link_session *s, uint32_t type,
                      const void *payload, size_t len);
/* Bytes accepted by link_send and link_send_urgent and not yet encrypted;
 * a pipe's bytes count separately. */
size_t link_queued_bytes(const struct link_session *s);

/* Stop (true) or go on reading. While stopped the sender is held back by TCP,
 * nothing is delivered, an end of the connection is not noticed, and heard_ns
 * stands still: keep it short against the heartbeat timeout. */
void link_hold(struct link_session *s, bool hold);

/* --- Ending ------------------------------------------------------------ */

/* Send what is queued (a pipe's bytes too; its sender gets ERR_GONE from now
 * on), say goodbye in TLS, and wait for the peer's end, all within bound_ms;
 * then `closed`. Records that still arrive are dropped. */
void link_close(struct link_session *s, unsigned bound_ms);
/* End at once: nothing more is sent or delivered; `closed` comes from the loop
 * with `why` (copied), or with a plain ERR_GONE when NULL. */
void link_abort(struct link_session *s, const struct err *why);
/* The peer broke the protocol or is refused: send REFUSE with `why`, close
 * within a second, and report `why` to `closed`. */
void link_fail(struct link_session *s, const struct err *why);
/* End at once and forget: no callback comes any more, s is invalid. */
void link_drop(struct link_session *s);

/* --- Looking ----------------------------------------------------------- */

struct link_stats {
    uint64_t bytes_sent;     /* plaintext with headers, taken by TLS */
    uint64_t bytes_received; /* plaintext with headers */
    uint64_t heard_ns;       /* clock_ns() when bytes last came; 0: never */
    uint64_t ready_ns;       /* 0: not yet */
    char cipher[48];         /* "TLS_AES_128_GCM_SHA256" */
};
void link_stats(const struct link_session *s, struct link_stats *out);
/* The peer's name: the target's, or what lookup said; "" before. */
const char *link_peer_name(const struct link_session *s);
const uint8_t *link_peer_pin(const struct link_session *s);
bool link_is_ready(const struct link_session *s);

/* --- A pipe: records from another thread --------------------------------- */

/* A bounded queue in front of a session's own. It outlives sessions: it is
 * attached to one, loses it, and is attached to the next. */
struct link_pipe;

/* `limit`: payload bytes that may wait. A larger record is accepted when the
 * pipe is empty. */
struct link_pipe *link_pipe_new(struct ev_loop *loop, size_t limit);
/* The other thread must be done with it. */
void link_pipe_free(struct link_pipe *p);
/* Loop thread. Attach to a session (its first pipe, this pipe's first
 * session); returns a ticket, never 0, that the other thread needs. Whatever
 * was queued for an earlier session is gone. The end of the session detaches
 * it, before `closed` is called. */
uint64_t link_pipe_attach(struct link_pipe *p, struct link_session *s);
/* Loop thread: throw away what is queued, let a blocked sender go with
 * ERR_GONE. A record that has begun is finished by the session. */
void link_pipe_detach(struct link_pipe *p);

/* Other thread: from now on send into the session of this ticket. ERR_GONE
 * when that is not the one attached. The ticket keeps half a stream that was
 * meant for a lost session out of the next one. */
int link_pipe_begin(struct link_pipe *p, uint64_t ticket, struct err *e);
/* Other thread, after link_pipe_begin(): wait until `len` bytes can be queued
 * without blocking. ERR_TIMEOUT after wait_ns; ERR_GONE. */
int link_pipe_room(struct link_pipe *p, size_t len, uint64_t wait_ns,
                   struct err *e);
/* Other thread: queue a copy; blocks while `limit` is exceeded. ERR_GONE when
 * the session that was begun is no longer attached. */
int link_pipe_send(struct link_pipe *p, uint32_t type, const void *payload,
                   size_t len, struct err *e);
/* Any thread: bytes that wait. */
size_t link_pipe_queued(struct link_pipe *p);

/* --- Listening ----------------------------------------------------------- */

struct link_listener;
/* A connection whose preamble is well-formed. The callee owns fd (nonblocking,
 * close-on-exec). `from` is the address for logs: nothing about it or the
 * preamble is proven. */
typedef void link_arrival(void *arg, const struct wire_preamble *p, int fd,
                          const char *from);

/* Listen on a numeric address (NULL: all, IPv6 and IPv4) and port (0: any,
 * see link_listener_port). Each connection has 5 s for its preamble; of more
 * than 64 that have not sent it the oldest is closed. */
int link_listen(struct ev_loop *loop, const char *address, uint16_t port,
                link_arrival *cb, void *arg, struct link_listener **l,
                struct err *e);
uint16_t link_listener_port(const struct link_listener *l);
void link_listener_free(struct link_listener *l);

#endif
