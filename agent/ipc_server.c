// SPDX-License-Identifier: Apache-2.0
/* Where connections of ipc.h come from: listening, accepting, connecting. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/ipc_conn.h"
#include "common/cleanup.h"
#include "common/log.h"

static bool user_allowed(int fd)
{
    struct ucred cred;
    socklen_t n = sizeof cred;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n))
        return false;
    return cred.uid == 0 || cred.uid == geteuid();
}

static void on_acceptable(struct ev_loop *loop, ev_io *w, int events)
{
    struct ipc_server *s = w->data;
    int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)events;
    if (fd < 0)
        return;
    if (!user_allowed(fd) || s->count >= s->max_clients) {
        log_warn("%s: client refused, %u connected", s->path, s->count);
        close(fd);
        return;
    }
    struct ipc_conn *c = ipc_conn_new(loop, fd, s->handler, s->arg);
    c->server = s;
    c->next = s->clients;
    if (c->next)
        c->next->prev = c;
    s->clients = c;
    s->count++;
    c->busy++;
    if (s->handler->opened)
        s->handler->opened(c, c->arg);
    c->busy--;
    ipc_conn_release(c);
}

static int address_of(const char *path, struct sockaddr_un *a, struct err *e)
{
    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof a->sun_path)
        return err_kind(e, ERR_USAGE, "socket path is too long: %s", path);
    memcpy(a->sun_path, path, strlen(path) + 1);
    return 0;
}

static int socket_connect(const char *path, struct err *e)
{
    struct sockaddr_un a;
    CLEANUP_CLOSE int fd =
        socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return err_sys(e, "socket");
    if (address_of(path, &a, e))
        return -1;
    if (connect(fd, (struct sockaddr *)&a, sizeof a)) {
        int r = errno;
        err_sys(e, "connect to %s", path);
        if (e && (r == ENOENT || r == ECONNREFUSED))
            e->kind = ERR_GONE;
        return -1;
    }
    return take_fd(&fd);
}

/* A bound, listening socket at `path`. */
static int socket_listen(const char *path, struct err *e)
{
    struct sockaddr_un a;
    struct err gone = ERR_INIT;
    int old = socket_connect(path, &gone);

    if (old >= 0) {
        close(old);
        return err_kind(e, ERR_REFUSED, "%s is in use by another process",
                        path);
    }
    if (gone.kind == ERR_GONE)
        unlink(path);
    CLEANUP_CLOSE int fd =
        socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_sys(e, "socket");
    if (address_of(path, &a, e))
        return -1;
    /* The mode that the name gets when it is bound (unix(7), Linux). */
    if (fchmod(fd, 0600) || bind(fd, (struct sockaddr *)&a, sizeof a) ||
        listen(fd, 64))
        return err_sys(e, "listen on %s", path);
    return take_fd(&fd);
}

int ipc_listen(struct ev_loop *loop, const char *path, unsigned max_clients,
               const struct ipc_handler *h, void *arg, struct ipc_server **out,
               struct err *e)
{
    int fd = socket_listen(path, e);

    if (fd < 0)
        return -1;
    struct ipc_server *s = ipc_alloc(sizeof *s);
    s->loop = loop;
    s->handler = h;
    s->arg = arg;
    s->max_clients = max_clients;
    s->fd = fd;
    memcpy(s->path, path, strlen(path) + 1);
    ev_io_init(&s->acceptable, on_acceptable, fd, EV_READ);
    s->acceptable.data = s;
    ev_io_start(loop, &s->acceptable);
    *out = s;
    return 0;
}

void ipc_server_free(struct ipc_server *s)
{
    if (!s)
        return;
    while (s->clients)
        ipc_close(s->clients);
    ev_io_stop(s->loop, &s->acceptable);
    unlink(s->path);
    close(s->fd);
    free(s);
}

void ipc_server_each(struct ipc_server *s,
                     void (*each)(struct ipc_conn *c, void *arg), void *arg)
{
    unsigned n = s->count;
    CLEANUP_FREE struct ipc_conn **all = ipc_alloc((n + 1) * sizeof *all);
    unsigned i = 0;

    /* `each` may close any of them, and the server. */
    for (struct ipc_conn *c = s->clients; c; c = c->next) {
        c->busy++;
        all[i++] = c;
    }
    for (i = 0; i < n; i++) {
        if (!all[i]->dead)
            each(all[i], arg);
        all[i]->busy--;
        ipc_conn_release(all[i]);
    }
}

static void send_each(struct ipc_conn *c, void *arg)
{
    ipc_send(c, arg);
}

void ipc_broadcast(struct ipc_server *s, json_t *msg)
{
    ipc_server_each(s, send_each, msg);
}

int ipc_connect(struct ev_loop *loop, const char *path,
                const struct ipc_handler *h, void *arg, struct ipc_conn **out,
                struct err *e)
{
    int fd = socket_connect(path, e);

    if (fd < 0)
        return -1;
    *out = ipc_conn_new(loop, fd, h, arg);
    return 0;
}
