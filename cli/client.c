// SPDX-License-Identifier: Apache-2.0
/* The connection to understudyd: one JSON object a line; see cli.h. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/cli.h"
#include "common/bytes.h"
#include "common/cleanup.h"

#define REPLY_MAX (64u << 20)

struct client {
    int fd;
    int last_id;
    struct buf in;
    size_t used; /* of `in`, by lines that were handed out */
};

static int daemon_missing(struct err *e, const char *path, int r)
{
    if (r == EACCES || r == EPERM) {
        err_kind(e, ERR_REFUSED, "only root may talk to understudyd");
        return err_hint(e, "use sudo, or log in as root");
    }
    if (r != ENOENT && r != ECONNREFUSED) {
        errno = r;
        return err_sys(e, "connect to understudyd at %s", path);
    }
    err_kind(e, ERR_GONE, "understudyd does not run on this host");
    return err_hint(e, "systemctl start understudyd");
}

int client_open(struct client **out, struct err *e)
{
    const char *root = getenv("UNDERSTUDY_ROOT");
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return err_sys(e, "socket");
    int n = snprintf(a.sun_path, sizeof a.sun_path,
                     "%s/run/understudy/control.sock", root ? root : "");
    if (n < 0 || (size_t)n >= sizeof a.sun_path)
        return err_kind(e, ERR_USAGE, "UNDERSTUDY_ROOT is too long: %s", root);
    if (connect(fd, (struct sockaddr *)&a, sizeof a))
        return daemon_missing(e, a.sun_path, errno);
    struct client *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->fd = take_fd(&fd);
    *out = c;
    return 0;
}

void client_close(struct client *c)
{
    if (!c)
        return;
    close(c->fd);
    buf_free(&c->in);
    free(c);
}

static int line_send(struct client *c, const json_t *msg, struct err *e)
{
    CLEANUP_FREE char *text = json_dumps(msg, JSON_COMPACT);

    if (!text)
        return err_kind(e, ERR_USAGE, "the arguments are not valid UTF-8");
    size_t left = strlen(text);
    char *p = text;
    text[left++] = '\n'; /* in place of the NUL */
    while (left) {
        ssize_t r = send(c->fd, p, left, MSG_NOSIGNAL);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return err_sys(e, "write to understudyd");
        p += r;
        left -= (size_t)r;
    }
    return 0;
}

static int more_read(struct client *c, int timeout_ms, struct err *e)
{
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    int r = poll(&p, 1, timeout_ms);

    if (r < 0 && errno == EINTR)
        return 0;
    if (!r) {
        err_kind(e, ERR_TIMEOUT, "understudyd does not answer");
        return err_hint(e, "look at its log: journalctl -u understudyd");
    }
    buf_reserve(&c->in, 65536);
    ssize_t n = read(c->fd, c->in.data + c->in.len, 65536);
    if (n < 0 && errno == EINTR)
        return 0;
    if (n < 0)
        return err_sys(e, "read from understudyd");
    if (!n) {
        err_kind(e, ERR_GONE, "understudyd ended before it answered");
        return err_hint(e, "what it had begun goes on; ask `understudy "
                           "status` when it runs again");
    }
    c->in.len += (size_t)n;
    if (c->in.len > REPLY_MAX)
        return err_set(e, "understudyd's answer is too long");
    return 0;
}

static json_t *line_read(struct client *c, int timeout_ms, struct err *e)
{
    for (;;) {
        char *start = (char *)c->in.data + c->used;
        size_t n = c->in.len - c->used;
        char *end = n ? memchr(start, '\n', n) : NULL;
        if (end) {
            json_t *j = json_loadb(start, (size_t)(end - start), 0, NULL);
            c->used += (size_t)(end - start) + 1;
            if (!json_is_object(j)) {
                json_decref(j);
                err_set(e, "understudyd's answer can't be understood");
                return NULL;
            }
            return j;
        }
        if (c->used) {
            memmove(c->in.data, start, n);
            c->in.len = n;
            c->used = 0;
        }
        if (more_read(c, timeout_ms, e))
            return NULL;
    }
}

static void error_of(const json_t *reply, const char *text, struct err *e)
{
    static const struct {
        const char *name;
        enum err_kind kind;
    } kinds[] = {{"usage", ERR_USAGE},
                 {"refused", ERR_REFUSED},
                 {"timeout", ERR_TIMEOUT},
                 {"gone", ERR_GONE}};
    const char *name = cli_text(reply, "kind", "");
    enum err_kind kind = ERR_FAILED;

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!strcmp(name, kinds[i].name))
            kind = kinds[i].kind;
    }
    err_kind(e, kind, "%s", text);
    if (cli_text(reply, "hint", "")[0])
        err_hint(e, "%s", cli_text(reply, "hint", ""));
}

json_t *client_ask(struct client *c, json_t *request, int timeout_ms,
                   void (*progress)(void *arg, const json_t *status), void *arg,
                   struct err *e)
{
    int id = ++c->last_id;

    json_object_set_new(request, "id", json_integer(id));
    int rc = line_send(c, request, e);
    json_decref(request);
    while (!rc) {
        json_t *j = line_read(c, timeout_ms, e);
        if (!j)
            return NULL;
        const json_t *status = json_object_get(j, "progress");
        if (cli_number(j, "id", -1) == id && !status &&
            !json_object_get(j, "follow")) {
            const char *error = cli_text(j, "error", NULL);
            if (!error)
                return j;
            error_of(j, error, e);
            rc = -1;
        } else if (status && progress) {
            progress(arg, status);
        }
        json_decref(j);
    }
    return NULL;
}

json_t *client_follow(struct client *c, struct err *e)
{
    for (;;) {
        json_t *j = line_read(c, -1, e);
        if (!j)
            return NULL;
        json_t *event = json_incref(json_object_get(j, "follow"));
        json_decref(j);
        if (event)
            return event;
    }
}

json_t *cli_ask(json_t *request, int timeout_ms, struct err *e)
{
    struct client *c = NULL;

    if (client_open(&c, e)) {
        json_decref(request);
        return NULL;
    }
    json_t *reply = client_ask(c, request, timeout_ms, NULL, NULL, e);
    client_close(c);
    return reply;
}

const char *cli_text(const json_t *o, const char *key, const char *otherwise)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s ? s : otherwise;
}

long long cli_number(const json_t *o, const char *key, long long otherwise)
{
    const json_t *v = json_object_get(o, key);

    return json_is_integer(v) ? json_integer_value(v) : otherwise;
}
