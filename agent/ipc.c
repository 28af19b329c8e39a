// SPDX-License-Identifier: Apache-2.0
/* One connection of JSON lines over a unix socket; see ipc.h. Everything runs
 * on the loop's thread. A connection whose socket failed is reported from the
 * loop, never from inside a call of its user, so that callers need no care.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/ipc_conn.h"
#include "common/cleanup.h"

#define READ_CHUNK (64u << 10)

/* --- The life of a connection ------------------------------------------- */

static void chunk_drop(struct ipc_conn *c)
{
    struct chunk *k = c->out;

    c->out = k->next;
    if (!c->out)
        c->out_end = &c->out;
    c->out_bytes -= k->len;
    if (k->fd >= 0)
        close(k->fd);
    free(k);
}

static void conn_unlink(struct ipc_conn *c)
{
    if (!c->server)
        return;
    if (c->prev)
        c->prev->next = c->next;
    else
        c->server->clients = c->next;
    if (c->next)
        c->next->prev = c->prev;
    c->server->count--;
    c->server = NULL;
}

void ipc_conn_release(struct ipc_conn *c)
{
    if (c->dead && !c->busy)
        free(c);
}

static void conn_die(struct ipc_conn *c)
{
    if (c->dead)
        return;
    c->dead = true;
    ev_clear_pending(c->loop, &c->readable);
    ev_clear_pending(c->loop, &c->writable);
    ev_io_stop(c->loop, &c->readable);
    ev_io_stop(c->loop, &c->writable);
    close(c->fd);
    c->fd = -1;
    while (c->out)
        chunk_drop(c);
    for (unsigned i = 0; i < c->fd_count; i++)
        close(c->fds[i]);
    c->fd_count = 0;
    buf_free(&c->in);
    conn_unlink(c);
    ipc_conn_release(c);
}

/* The socket or the other end failed: tell the user from the loop. */
static void conn_break(struct ipc_conn *c)
{
    if (c->dead || c->broken)
        return;
    c->broken = true;
    ev_io_stop(c->loop, &c->readable);
    ev_feed_event(c->loop, &c->writable, EV_WRITE);
}

static void conn_report(struct ipc_conn *c)
{
    void (*closed)(struct ipc_conn *, const struct err *, void *) =
        c->handler->closed;

    c->busy++;
    if (closed)
        closed(c, &c->why, c->arg);
    c->busy--;
    if (c->dead)
        ipc_conn_release(c);
    else
        conn_die(c);
}

/* --- Writing ------------------------------------------------------------ */

static ssize_t chunk_send(int fd, struct chunk *k)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec iov = {k->data + k->off, k->len - k->off};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (k->fd >= 0 && !k->off) {
        msg.msg_control = control.room;
        msg.msg_controllen = sizeof control.room;
        struct cmsghdr *h = CMSG_FIRSTHDR(&msg);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(h), &k->fd, sizeof(int));
    }
    return sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void conn_flush(struct ipc_conn *c)
{
    while (c->out) {
        ssize_t r = chunk_send(c->fd, c->out);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            ev_io_start(c->loop, &c->writable);
            return;
        }
        if (r < 0) {
            err_sys(&c->why, "write");
            conn_break(c);
            return;
        }
        c->out->off += (size_t)r;
        if (c->out->off == c->out->len)
            chunk_drop(c);
    }
    ev_io_stop(c->loop, &c->writable);
}

static void on_writable(struct ev_loop *loop, ev_io *w, int events)
{
    struct ipc_conn *c = w->data;

    (void)loop, (void)events;
    if (c->broken) {
        conn_report(c);
        return;
    }
    conn_flush(c);
}

static void conn_queue(struct ipc_conn *c, const json_t *msg, int fd)
{
    CLEANUP_CLOSE int owned = fd;
    CLEANUP_FREE char *text = json_dumps(msg, JSON_COMPACT);

    if (!text)
        abort(); /* not an object, or text that is not UTF-8: our bug */
    size_t n = strlen(text);
    if (c->dead || c->broken)
        return;
    if (c->out_bytes + n + 1 > IPC_QUEUE_MAX || n >= IPC_LINE_MAX) {
        err_kind(&c->why, ERR_TIMEOUT,
                 "the other end does not read, %zu bytes wait", c->out_bytes);
        conn_break(c);
        return;
    }
    struct chunk *k = ipc_alloc(sizeof *k + n + 1);
    k->fd = take_fd(&owned);
    k->len = n + 1;
    memcpy(k->data, text, n);
    k->data[n] = '\n';
    *c->out_end = k;
    c->out_end = &k->next;
    c->out_bytes += k->len;
    conn_flush(c);
}

void ipc_send(struct ipc_conn *c, const json_t *msg)
{
    conn_queue(c, msg, -1);
}

void ipc_send_fd(struct ipc_conn *c, json_t *msg, int fd)
{
    json_t *marked = json_copy(msg);

    json_object_set_new(marked, "fd", json_true());
    conn_queue(c, marked, fd);
    json_decref(marked);
}

/* --- Reading ------------------------------------------------------------ */

static int conn_bad(struct ipc_conn *c, const char *what)
{
    err_kind(&c->why, ERR_USAGE, "broken message: %s", what);
    conn_break(c);
    return -1;
}

/* The descriptor that belongs to `msg`, or -1; -2 after a broken message. */
static int fd_take(struct ipc_conn *c, const json_t *msg)
{
    if (!json_flag(msg, "fd", false))
        return -1;
    if (!c->fd_count) {
        conn_bad(c, "the announced descriptor is missing");
        return -2;
    }
    int fd = c->fds[0];
    c->fd_count--;
    memmove(c->fds, c->fds + 1, c->fd_count * sizeof *c->fds);
    return fd;
}

static void line_handle(struct ipc_conn *c, const char *line, size_t n)
{
    json_error_t why;
    json_t *msg = json_loadb(line, n, JSON_REJECT_DUPLICATES, &why);

    if (!json_is_object(msg)) {
        conn_bad(c, msg ? "not an object" : why.text);
        json_decref(msg);
        return;
    }
    int fd = fd_take(c, msg);
    if (fd != -2) {
        if (c->handler->message)
            c->handler->message(c, msg, fd, c->arg);
        else if (fd >= 0)
            close(fd);
    }
    json_decref(msg);
}

static bool conn_live(const struct ipc_conn *c)
{
    return !c->dead && !c->broken;
}

static void lines_handle(struct ipc_conn *c)
{
    size_t done = 0;

    while (conn_live(c) && c->scanned < c->in.len) {
        char *start = (char *)c->in.data + done;
        char *from = (char *)c->in.data + c->scanned;
        char *end = memchr(from, '\n', c->in.len - c->scanned);
        if (!end) {
            c->scanned = c->in.len;
            break;
        }
        c->scanned = (size_t)(end + 1 - (char *)c->in.data);
        done = c->scanned;
        if (end != start)
            line_handle(c, start, (size_t)(end - start));
    }
    if (!conn_live(c))
        return;
    c->in.len -= done;
    c->scanned -= done;
    memmove(c->in.data, c->in.data + done, c->in.len);
    if (c->in.len >= IPC_LINE_MAX)
        conn_bad(c, "a line is too long");
}

static void fds_collect(struct ipc_conn *c, struct msghdr *msg)
{
    bool many = msg->msg_flags & MSG_CTRUNC;

    for (struct cmsghdr *h = CMSG_FIRSTHDR(msg); h; h = CMSG_NXTHDR(msg, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + i * sizeof fd, sizeof fd);
            if (c->fd_count < IPC_FDS_MAX) {
                c->fds[c->fd_count++] = fd;
            } else {
                close(fd);
                many = true;
            }
        }
    }
    if (many)
        conn_bad(c, "too many descriptors");
}

/* False when there was nothing more to read. */
static bool conn_read(struct ipc_conn *c)
{
    union {
        char room[CMSG_SPACE(IPC_FDS_MAX * sizeof(int))];
        struct cmsghdr align;
    } control;
    buf_reserve(&c->in, READ_CHUNK);
    struct iovec iov = {c->in.data + c->in.len, READ_CHUNK};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.room,
                         .msg_controllen = sizeof control.room};
    ssize_t r = recvmsg(c->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

    if (r < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (r <= 0) {
        if (r < 0)
            err_sys(&c->why, "read");
        else
            err_kind(&c->why, ERR_GONE, "the other end closed");
        conn_break(c);
        return false;
    }
    c->in.len += (size_t)r;
    fds_collect(c, &msg);
    lines_handle(c);
    return true;
}

static void on_readable(struct ev_loop *loop, ev_io *w, int events)
{
    struct ipc_conn *c = w->data;

    (void)loop, (void)events;
    if (!conn_live(c))
        return;
    c->busy++;
    conn_read(c);
    c->busy--;
    ipc_conn_release(c);
}

/* --- For users and the server -------------------------------------------- */

struct ipc_conn *ipc_conn_new(struct ev_loop *loop, int fd,
                              const struct ipc_handler *h, void *arg)
{
    struct ipc_conn *c = ipc_alloc(sizeof *c);
    struct ucred cred = {0};
    socklen_t n = sizeof cred;

    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n);
    c->loop = loop;
    c->fd = fd;
    c->pid = cred.pid;
    c->handler = h;
    c->arg = arg;
    c->out_end = &c->out;
    ev_io_init(&c->readable, on_readable, fd, EV_READ);
    ev_io_init(&c->writable, on_writable, fd, EV_WRITE);
    c->readable.data = c->writable.data = c;
    ev_io_start(loop, &c->readable);
    return c;
}

void ipc_close(struct ipc_conn *c)
{
    if (!c || c->dead)
        return;
    if (!c->broken && c->out)
        conn_flush(c);
    conn_die(c);
}

void ipc_drain(struct ipc_conn *c)
{
    c->busy++;
    while (conn_live(c) && conn_read(c))
        ;
    c->busy--;
    ipc_conn_release(c);
}

void ipc_conn_set_arg(struct ipc_conn *c, void *arg)
{
    c->arg = arg;
}

int ipc_conn_pid(const struct ipc_conn *c)
{
    return c->pid;
}
