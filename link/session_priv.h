// SPDX-License-Identifier: Apache-2.0
/* The inside of a session, shared by tls.c, session.c, session_io.c,
 * connect.c and pipe.c. All of it belongs to the loop's thread. */
#ifndef LINK_SESSION_PRIV_H
#define LINK_SESSION_PRIV_H

#include <netinet/in.h>
#include <sys/socket.h>

#include <ev.h>
#include <openssl/types.h>

#include "common/bytes.h"
#include "link/session.h"

#define HANDSHAKE_MS       5000
#define HANDSHAKES_MAX     64
#define FRIENDS_MAX        32
#define FAIL_CLOSE_MS      1000
#define LINGER_MS          500         /* for the peer to read our alert */
#define BURST              (256 << 10) /* bytes each way, each iteration */
#define TLS_RECORD_BYTES   (16 << 10)  /* at most, of payload */
#define RESOLVED_MAX       8
#define TCP_UNACKED_MS     30000
#define TLS_REKEY_BYTES    (64ull << 30)
#define CONNECT_DEFAULT_MS 5000

struct link_tls {
    SSL_CTX *ctx;
    uint8_t pin[PIN_BYTES];      /* our own, for sentences */
    unsigned handshakes;         /* as a server, now under way */
    struct link_session *oldest; /* of those */
    char friends[FRIENDS_MAX][INET6_ADDRSTRLEN]; /* where keys were proven */
    unsigned friend_next;
    uint64_t rekey_bytes; /* TLS_REKEY_BYTES; tests make it small */
};

/* One encoded record on its way out. */
struct chunk {
    struct chunk *next;
    size_t len;
    uint8_t data[];
};

struct chunk_queue {
    struct chunk *head, **tail; /* tail NULL: not used yet */
};

struct chunk *chunk_new(uint32_t type, const void *payload, size_t len);
void queue_put(struct chunk_queue *q, struct chunk *c);
struct chunk *queue_take(struct chunk_queue *q); /* NULL: empty */
void queue_free(struct chunk_queue *q);

/* Only forwards, but any state may be skipped. */
enum session_state {
    S_RESOLVING,
    S_CONNECTING,
    S_HANDSHAKE,
    S_OPEN,
    S_CLOSING, /* what is queued goes out, what comes in is dropped */
    S_LINGER,  /* our direction is shut, waiting for the peer's end */
    S_DEAD,    /* `closed` is due */
};

struct link_session {
    struct ev_loop *loop;
    struct link_tls *tls;
    struct link_callbacks cb;
    void *arg;
    enum session_state state;
    enum wire_kind kind;
    bool server;
    unsigned depth; /* callbacks on the stack: do not free */
    bool dropped;   /* free when depth is 0 again */

    int fd;
    SSL *ssl;
    struct ev_io in, out;
    struct ev_timer deadline; /* of connecting, handshake or closing */
    struct ev_timer again;    /* next iteration: more to do, or to end */

    /* Who the peer is. */
    link_lookup *lookup; /* server only */
    void *lookup_arg;
    uint8_t peer_pin[PIN_BYTES]; /* expected (client), then proven */
    char peer_name[WIRE_NAME_MAX];
    char where[320]; /* address for sentences */

    /* Connecting. */
    uint8_t uuid[16];
    uint16_t port;
    double deadline_at; /* on ev_now()'s scale */
    struct sockaddr_storage addr[RESOLVED_MAX];
    socklen_t addr_len[RESOLVED_MAX];
    unsigned addr_count, addr_next;
    struct err attempt_err;

    /* Sending. */
    struct chunk_queue urgent, bulk;
    struct chunk *current; /* begun, must be finished */
    size_t current_off;
    bool current_piped; /* came from the pipe: not in `queued` */
    size_t queued;
    bool above_high;    /* `drained` is owed */
    bool write_retry;   /* SSL_write() wants `current` again */
    bool write_blocked; /* TLS waits for room in the socket */
    uint64_t rekey_at;  /* bytes_sent */
    struct link_pipe *pipe;

    /* Receiving. */
    uint8_t head[WIRE_HEADER];
    size_t head_len;
    struct wire_header header; /* valid when head_len == WIRE_HEADER */
    struct buf payload;
    bool greeted; /* HELLO came */
    bool hold;
    bool counted; /* in tls->handshakes, and in the list of them */
    bool known_address;
    struct link_session *younger;

    struct link_stats stats;
    struct err why; /* kind 0: not known yet */
};

/* session.c */
struct link_session *session_new(struct ev_loop *loop, struct link_tls *tls,
                                 enum wire_kind kind,
                                 const struct link_callbacks *cb, void *arg);
/* The end: `closed` comes in the next iteration. The first reason stays. */
void session_end(struct link_session *s, const struct err *why);
/* The same after the peer had a chance to read what we wrote last. */
void session_end_gently(struct link_session *s, const struct err *why);
void session_deadline(struct link_session *s, double seconds);
void session_again(struct link_session *s);
/* Watch `fd` and start TLS on it. */
void session_start_tls(struct link_session *s);
/* "birch (10.0.0.2:7788)", or the address when there is no name. */
void session_who(const struct link_session *s, char *out, size_t size);

/* handshakes.c */
/* Make room for a handshake as the server, or refuse it. */
int handshake_begin(struct link_session *s, struct err *e);
/* It is over (idempotent); as either side's when `proven`. */
void handshake_over(struct link_session *s, bool proven);
/* The numeric address of the other end; empty: unknown. */
void address_text(int fd, char out[INET6_ADDRSTRLEN]);

/* session_io.c: work on whatever is possible now, then set the watchers. */
void session_pump(struct link_session *s);
/* Something to send was queued. */
void session_output_due(struct link_session *s);

/* connect.c */
void connect_readable(struct link_session *s); /* the resolver answered */
void connect_writable(struct link_session *s);
void connect_late(struct link_session *s); /* the deadline passed */
/* What sockets of sessions have in common; failures don't matter. */
void socket_tune(int fd);
/* While it is corked, only full segments go out. */
void socket_cork(int fd, bool on);
int socket_nonblocking(int fd);

/* tls.c */
SSL *tls_start(struct link_session *s);
/* The SSL call that returned `r` failed for good: a sentence. */
void tls_explain(struct link_session *s, int r, int saved_errno, struct err *e);
/* Order of cipher suites as if the processor had AES or not. */
int tls_set_ciphers(struct link_tls *tls, bool has_aes);

/* pipe.c */
struct chunk *pipe_take(struct link_pipe *p);
bool pipe_waiting(struct link_pipe *p);
void pipe_session_gone(struct link_pipe *p);
/* The sender gets ERR_GONE from now on; what it queued stays, to be sent. */
void pipe_shut(struct link_pipe *p);

#endif
