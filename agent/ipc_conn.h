// SPDX-License-Identifier: Apache-2.0
/* What ipc.c (connections) and ipc_server.c (where they come from) share.
 * Nobody else includes this. */
#ifndef AGENT_IPC_CONN_H
#define AGENT_IPC_CONN_H

#include <stdlib.h>
#include <sys/un.h>

#include "agent/ipc.h"
#include "common/bytes.h"

#define IPC_FDS_MAX 8

/* One line on its way out, and its descriptor. */
struct chunk {
    struct chunk *next;
    size_t len, off;
    int fd;
    char data[];
};

struct ipc_conn {
    struct ev_loop *loop;
    struct ipc_server *server; /* NULL for a client */
    struct ipc_conn *prev, *next;
    const struct ipc_handler *handler;
    void *arg;
    int fd, pid;
    ev_io readable, writable;
    struct buf in;
    size_t scanned; /* no newline before this offset */
    int fds[IPC_FDS_MAX];
    unsigned fd_count;
    struct chunk *out, **out_end;
    size_t out_bytes;
    unsigned busy; /* callbacks on the stack: do not free */
    bool dead;     /* closed; free when not busy */
    bool broken;   /* `why` waits to be reported */
    struct err why;
};

struct ipc_server {
    struct ev_loop *loop;
    const struct ipc_handler *handler;
    void *arg;
    unsigned max_clients, count;
    struct ipc_conn *clients;
    ev_io acceptable;
    int fd;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

static inline void *ipc_alloc(size_t n)
{
    void *p = calloc(1, n);

    if (!p)
        abort();
    return p;
}

/* A connection on a non-blocking, connected socket, which it owns. */
struct ipc_conn *ipc_conn_new(struct ev_loop *loop, int fd,
                              const struct ipc_handler *h, void *arg);
/* Free it when it is dead and no callback of it is on the stack. */
void ipc_conn_release(struct ipc_conn *c);

#endif
