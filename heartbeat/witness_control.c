// SPDX-License-Identifier: Apache-2.0
/* The socket by which an operator talks to the witness that serves: one line
 * with a verb and its words, separated by tabs, to it; "ok" or "error KIND",
 * a tab, the text, a tab and the hint on the first line back, then what there
 * is to say. root only (the socket's mode, and who asks is looked at). */
#include "heartbeat/witness_service.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "common/cleanup.h"

#define LINE_MAX_  1024
#define WORDS_MAX  48
#define CLIENTS    16
#define PATIENCE_S 5.

struct control_client {
    struct control_client *next;
    struct witness_service *s;
    int fd;
    ev_io io;
    ev_timer late;
    char line[LINE_MAX_];
    size_t len, sent;
    struct buf out;
};

static void client_end(struct control_client *c)
{
    struct control_client **p = &c->s->operators;

    while (*p != c)
        p = &(*p)->next;
    *p = c->next;
    c->s->operator_count--;
    ev_io_stop(c->s->loop, &c->io);
    ev_timer_stop(c->s->loop, &c->late);
    close(c->fd);
    buf_free(&c->out);
    free(c);
}

static void on_late(struct ev_loop *loop, ev_timer *w, int events)
{
    (void)loop, (void)events;
    client_end(w->data);
}

static void on_writable(struct ev_loop *loop, ev_io *w, int events)
{
    struct control_client *c = w->data;
    ssize_t r = send(c->fd, c->out.data + c->sent, c->out.len - c->sent,
                     MSG_NOSIGNAL | MSG_DONTWAIT);

    (void)loop, (void)events;
    if (r < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (r > 0)
        c->sent += (size_t)r;
    if (r <= 0 || c->sent == c->out.len)
        client_end(c);
}

static int words(char *line, char *argv[WORDS_MAX])
{
    int n = 0;

    for (char *p; n < WORDS_MAX && (p = strsep(&line, "\t"));)
        argv[n++] = p;
    return n;
}

static void answer(struct control_client *c)
{
    struct buf said = {0};
    struct err e = ERR_INIT;
    char *argv[WORDS_MAX], head[1200];
    int argc = words(c->line, argv);

    if (witness_verb(c->s, argc, argv, &said, &e))
        snprintf(head, sizeof head, "error %d\t%s\t%s\n", e.kind, e.text,
                 e.hint);
    else
        snprintf(head, sizeof head, "ok\n");
    buf_put(&c->out, head, strlen(head));
    buf_put(&c->out, said.data, said.len);
    buf_free(&said);
    ev_io_stop(c->s->loop, &c->io);
    ev_io_init(&c->io, on_writable, c->fd, EV_WRITE);
    c->io.data = c;
    ev_io_start(c->s->loop, &c->io);
    if (c->s->w.broken) {
        err_set(&c->s->failure, "a change can't be written down");
        ev_break(c->s->loop, EVBREAK_ALL);
    }
}

static void on_readable(struct ev_loop *loop, ev_io *w, int events)
{
    struct control_client *c = w->data;
    ssize_t r =
        recv(c->fd, c->line + c->len, sizeof c->line - c->len, MSG_DONTWAIT);

    (void)loop, (void)events;
    if (r < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (r > 0)
        c->len += (size_t)r;
    char *end = memchr(c->line, '\n', c->len);
    if (end) {
        *end = '\0';
        answer(c);
    } else if (r <= 0 || c->len == sizeof c->line) {
        client_end(c);
    }
}

static bool is_root(int fd)
{
    struct ucred cred = {.uid = (uid_t)-1};
    socklen_t n = sizeof cred;

    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n);
    return cred.uid == 0 || cred.uid == geteuid();
}

static void on_connection(struct ev_loop *loop, ev_io *w, int events)
{
    struct witness_service *s = w->data;
    int fd = accept4(s->control, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    (void)events;
    if (fd < 0)
        return;
    if (s->operator_count >= CLIENTS || !is_root(fd)) {
        close(fd);
        return;
    }
    struct control_client *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->s = s;
    c->fd = fd;
    c->next = s->operators;
    s->operators = c;
    s->operator_count++;
    ev_io_init(&c->io, on_readable, fd, EV_READ);
    ev_timer_init(&c->late, on_late, PATIENCE_S, 0.);
    c->io.data = c->late.data = c;
    ev_io_start(loop, &c->io);
    ev_timer_start(loop, &c->late);
}

static int address(const char *path, struct sockaddr_un *a, struct err *e)
{
    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    int n = snprintf(a->sun_path, sizeof a->sun_path, "%s/control", path);

    return n < (int)sizeof a->sun_path
               ? 0
               : err_kind(e, ERR_USAGE, "the path %s is too long", path);
}

int witness_control_start(struct witness_service *s, struct err *e)
{
    struct sockaddr_un a;

    if (address(s->path, &a, e))
        return -1;
    CLEANUP_CLOSE int fd =
        socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    unlink(a.sun_path); /* the directory is ours: nobody listens there */
    mode_t before = umask(0177);
    int r = fd < 0 ? -1 : bind(fd, (struct sockaddr *)&a, sizeof a);
    umask(before);
    if (r || listen(fd, CLIENTS))
        return err_sys(e, "listen on %s", a.sun_path);
    s->control = take_fd(&fd);
    ev_io_init(&s->control_in, on_connection, s->control, EV_READ);
    s->control_in.data = s;
    ev_io_start(s->loop, &s->control_in);
    return 0;
}

void witness_control_stop(struct witness_service *s)
{
    struct sockaddr_un a;

    while (s->operators)
        client_end(s->operators);
    if (s->control < 0)
        return;
    ev_io_stop(s->loop, &s->control_in);
    close(take_fd(&s->control));
    if (!address(s->path, &a, NULL))
        unlink(a.sun_path);
}

/* --- The other end ------------------------------------------------------- */

static int line_send(int fd, int argc, char **argv, struct err *e)
{
    char line[LINE_MAX_];
    size_t n = 0;

    for (int i = 0; i < argc && n < sizeof line; i++) {
        if (strpbrk(argv[i], "\t\n"))
            return err_kind(e, ERR_USAGE, "a word holds a tab or a line's end");
        n += (size_t)snprintf(line + n, sizeof line - n, "%s%s", i ? "\t" : "",
                              argv[i]);
    }
    if (n + 1 >= sizeof line || argc > WORDS_MAX)
        return err_kind(e, ERR_USAGE, "too much to say");
    line[n++] = '\n';
    if (send(fd, line, n, MSG_NOSIGNAL) != (ssize_t)n)
        return err_sys(e, "ask the witness");
    return 0;
}

/* Split the first line off: what is left in `out` is what it said. */
static int answer_read(struct buf *out, struct err *e)
{
    char *text = (char *)out->data;
    char *end = out->len ? memchr(text, '\n', out->len) : NULL;

    if (!end)
        return err_kind(e, ERR_GONE, "the witness did not answer");
    *end = '\0';
    if (!strncmp(text, "error ", 6)) {
        char *rest = text + 6;
        int kind = atoi(strsep(&rest, "\t"));
        const char *what = rest ? strsep(&rest, "\t") : "failed";
        bool known = kind >= ERR_FAILED && kind <= ERR_GONE;
        err_kind(e, known ? (enum err_kind)kind : ERR_FAILED, "%s", what);
        return rest && rest[0] ? err_hint(e, "%s", rest) : -1;
    }
    size_t head = (size_t)(end + 1 - text);
    memmove(out->data, end + 1, out->len - head);
    out->len -= head;
    return 0;
}

int witness_control_ask(const char *path, int argc, char **argv, bool *there,
                        struct buf *out, struct err *e)
{
    struct sockaddr_un a;
    struct timeval patience = {.tv_sec = 10};

    *there = false;
    if (address(path, &a, e))
        return -1;
    CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys(e, "socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(fd, (struct sockaddr *)&a, sizeof a))
        return err_kind(e, ERR_GONE, "no witness serves %s", path);
    *there = true;
    if (line_send(fd, argc, argv, e))
        return -1;
    for (ssize_t r = 1; r > 0;) {
        buf_reserve(out, 65536);
        r = recv(fd, out->data + out->len, 65536, 0);
        if (r > 0)
            out->len += (size_t)r;
    }
    return answer_read(out, e);
}
