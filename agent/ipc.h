// SPDX-License-Identifier: Apache-2.0
/* JSON objects, one a line, over unix stream sockets in a libev loop: between
 * the CLI and the daemon, and between the daemon and the agents. Either end
 * can pass one descriptor with a message.
 *
 * Bounds: a line is at most IPC_LINE_MAX bytes; a client that breaks the
 * protocol, or does not read and lets more than IPC_QUEUE_MAX bytes pile up, is
 * disconnected. Servers accept root only (SO_PEERCRED: the server's own user
 * id counts too, so that tests need no root), and at most `max_clients`.
 *
 * All functions belong to the loop's thread. Callbacks may call anything here,
 * ipc_close() and ipc_server_free() included: memory is freed later. */
#ifndef AGENT_IPC_H
#define AGENT_IPC_H

#include <ev.h>
#include <jansson.h>
#include <stdbool.h>

#include "common/err.h"

#define IPC_LINE_MAX  (1u << 20)
#define IPC_QUEUE_MAX (8u << 20)

struct ipc_server;
struct ipc_conn;

/* Callbacks; any may be NULL. A new client inherits the server's `arg`,
 * `opened` may change it. */
struct ipc_handler {
    void (*opened)(struct ipc_conn *c, void *arg);
    /* One object. `msg` is borrowed: json_incref() to keep it. `fd` is -1 or a
     * descriptor (close-on-exec) that now belongs to the callback. */
    void (*message)(struct ipc_conn *c, json_t *msg, int fd, void *arg);
    /* The other end is gone or was thrown out, `why` says which. Not called
     * for ipc_close() and ipc_server_free(). Called once; *c is gone after. */
    void (*closed)(struct ipc_conn *c, const struct err *why, void *arg);
};

/* Listen on `path` (mode 0600). A socket left by a dead process is replaced;
 * one that somebody listens on is an error (ERR_REFUSED). */
int ipc_listen(struct ev_loop *loop, const char *path, unsigned max_clients,
               const struct ipc_handler *h, void *arg, struct ipc_server **out,
               struct err *e);
/* Close the listener and all its clients, remove the socket. NULL is fine. */
void ipc_server_free(struct ipc_server *s);
/* Call `each` for every client there is now. */
void ipc_server_each(struct ipc_server *s,
                     void (*each)(struct ipc_conn *c, void *arg), void *arg);
/* Send to all clients. */
void ipc_broadcast(struct ipc_server *s, json_t *msg);

/* Connect; does not block (local sockets connect at once or fail). ERR_GONE
 * when nobody listens there. */
int ipc_connect(struct ev_loop *loop, const char *path,
                const struct ipc_handler *h, void *arg, struct ipc_conn **out,
                struct err *e);
/* No callback follows. What is queued is still given one non-blocking try. */
void ipc_close(struct ipc_conn *c);

/* Read what has arrived already, calling back from inside: for the last words
 * of a process that is known to be dead. `closed` still comes from the loop. */
void ipc_drain(struct ipc_conn *c);

/* What callbacks of this connection get from now on. */
void ipc_conn_set_arg(struct ipc_conn *c, void *arg);
/* Process id of the other end when it connected (SO_PEERCRED). */
int ipc_conn_pid(const struct ipc_conn *c);

/* Queue one object; `msg` stays the caller's. Never fails visibly: a dead
 * connection reports itself by `closed`. */
void ipc_send(struct ipc_conn *c, const json_t *msg);
/* The same with a descriptor, which is owned (closed when sent or dropped).
 * The key "fd":true is added to the line that is sent. */
void ipc_send_fd(struct ipc_conn *c, json_t *msg, int fd);
/* {"id":ID,"ok":true} and the members of `extra` (stolen, may be NULL). The id
 * is taken from `request`; nothing is sent when that has none. */
void ipc_reply(struct ipc_conn *c, const json_t *request, json_t *extra);
/* {"id":ID,"error":TEXT,"hint":HINT,"kind":KIND} */
void ipc_reply_error(struct ipc_conn *c, const json_t *request,
                     const struct err *why);

/* The same without an id, as a new object. */
json_t *ipc_error_json(const struct err *why);

/* "failed", "usage", "refused", "timeout", "gone" and back (unknown: failed).
 */
const char *ipc_kind_name(enum err_kind kind);
enum err_kind ipc_kind_parse(const char *name);
/* Fill *e from a reply's error, hint and kind; true when it has an error. */
bool ipc_error_of(const json_t *reply, struct err *e);
/* The same from another host's reply: only printable text comes of it. */
bool ipc_error_of_peer(const json_t *reply, struct err *e);

/* A string, also of text that is cut in the middle of a character or was never
 * UTF-8, which JSON can't hold: then only ASCII is left of it. */
json_t *text_json(const char *text);
/* Members of an object, with a default when missing or of another type. The
 * string is borrowed from the object. */
const char *json_text(const json_t *o, const char *key, const char *otherwise);
long long json_number(const json_t *o, const char *key, long long otherwise);
bool json_flag(const json_t *o, const char *key, bool otherwise);

#endif
