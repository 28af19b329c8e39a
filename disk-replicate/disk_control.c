// SPDX-License-Identifier: Apache-2.0
/* Requests to a disk's block server, both ends; see disk_control.h. The agent's
 * end is called on the engine's thread, the replica's, and a takeover's; the
 * server's is a thread of the server. */
#include "disk-replicate/disk_control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/iov.h"
#include "common/log.h"
#include "common/thread.h"
#include "disk-replicate/duty.h"
#include "disk-replicate/record.h"

const char *diskctl_lost(enum disk_lost why)
{
    switch (why) {
    case DISK_LOST_NOTHING:
        return "nothing is lost";
    case DISK_LOST_ALL:
        return "its server died";
    case DISK_LOST_ROOM:
        return "its log was full, and no epoch was committed in time";
    case DISK_LOST_WRITE:
        return "its image could not be written here";
    case DISK_LOST_SYNC:
        return "its image could not be synced here";
    }
    return "its log is lost";
}

/* --- Bytes ---------------------------------------------------------------- */

/* Until the monotonic `until_ns`, 0: for ever. */
static int fd_wait(int fd, short what, uint64_t until_ns, struct err *e)
{
    struct pollfd p = {.fd = fd, .events = what};

    for (;;) {
        uint64_t now = clock_ns();
        if (until_ns && now >= until_ns)
            return err_kind(e, ERR_TIMEOUT, "no answer");
        int ms = until_ns ? (int)((until_ns - now) / NS_PER_MS) + 1 : -1;
        int r = poll(&p, 1, ms);
        if (r > 0)
            return 0;
        if (r < 0 && errno != EINTR)
            return err_sys(e, "poll");
    }
}

/* `r` is what a call returned that does not wait: how many bytes it moved, in
 * *moved, if need be after a wait. */
static int moved_take(int fd, ssize_t r, short what, uint64_t until_ns,
                      size_t *moved, struct err *e)
{
    *moved = r > 0 ? (size_t)r : 0;
    if (r < 0 && (errno == EAGAIN || errno == EINTR))
        return fd_wait(fd, what, until_ns, e);
    if (r < 0)
        return err_sys(e, "connection");
    return r ? 0 : err_kind(e, ERR_GONE, "the connection was closed");
}

static int bytes_read(int fd, uint8_t *p, size_t len, uint64_t until_ns,
                      struct err *e)
{
    for (size_t n; len > 0; p += n, len -= n) {
        ssize_t r = recv(fd, p, len, MSG_DONTWAIT);
        if (moved_take(fd, r, POLLIN, until_ns, &n, e))
            return -1;
    }
    return 0;
}

/* A head and what follows it, appended to *in. */
static int message_read(int fd, uint32_t *word, struct buf *in,
                        uint64_t until_ns, struct err *e)
{
    uint8_t head[DISKCTL_HEAD];

    if (bytes_read(fd, head, sizeof head, until_ns, e))
        return -1;
    *word = get_le32(head);
    uint32_t len = get_le32(head + 4);
    if (len > DISKCTL_MAX)
        return err_set(e, "%u bytes at once", len);
    return bytes_read(fd, buf_extend(in, len), len, until_ns, e);
}

static int message_write(int fd, uint32_t word, const void *p, size_t len,
                         uint64_t until_ns, struct err *e)
{
    uint8_t head[DISKCTL_HEAD];
    struct iovec iov[2] = {{head, sizeof head}, {(void *)(uintptr_t)p, len}};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};

    put_le32(head, word);
    put_le32(head + 4, (uint32_t)len);
    for (size_t n = 0; iov_sent(&m, n);) {
        ssize_t r = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (moved_take(fd, r, POLLOUT, until_ns, &n, e))
            return -1;
    }
    return 0;
}

static int address_of(const char *id, struct sockaddr_un *a, struct err *e)
{
    char path[RECORD_PATH];

    record_path(id, ".ctl", path);
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a->sun_path)
        return err_kind(e, ERR_USAGE, "%s is too long for a socket", path);
    strcpy(a->sun_path, path);
    return 0;
}

/* --- The agent's end ------------------------------------------------------ */

int diskctl_open(struct diskctl *c, const char *id, struct err *e)
{
    struct sockaddr_un a;

    if (id != c->id)
        snprintf(c->id, sizeof c->id, "%s", id);
    c->fd = -1;
    if (address_of(id, &a, e))
        return -1;
    CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a)) {
        err_sys(e, "disk %s: its server", id);
        return err_hint(e, "understudy-disk list");
    }
    c->fd = take_fd(&fd);
    return 0;
}

void diskctl_close(struct diskctl *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

static int refusal(uint32_t status, const struct buf *text, size_t from,
                   struct err *e)
{
    enum err_kind kind =
        status <= ERR_GONE ? (enum err_kind)status : ERR_FAILED;
    return err_kind(
        e, kind == ERR_GONE || kind == ERR_TIMEOUT ? ERR_FAILED : kind, "%.*s",
        (int)(text->len - from), (const char *)text->data + from);
}

/* When the answer has to be there. */
static uint64_t answer_until(enum diskctl_type type)
{
    bool syncs = type == DISKCTL_REPLICA || type == DISKCTL_PREPARE ||
                 type == DISKCTL_PROMOTE || type == DISKCTL_COMPARE ||
                 type == DISKCTL_REBASE || type == DISKCTL_DOUBT ||
                 type == DISKCTL_AGAIN || type == DISKCTL_START ||
                 type == DISKCTL_SECURE;

    return clock_ns() + (syncs ? DISKCTL_SYNC_MS : DISKCTL_MS) * NS_PER_MS;
}

/* The connection is of no use any more. */
static int call_lost(struct diskctl *c, struct err *e)
{
    diskctl_close(c);
    if (e && e->kind == ERR_FAILED)
        e->kind = ERR_GONE;
    return err_add(e, "the server of disk %s", c->id);
}

int diskctl_ask(struct diskctl *c, enum diskctl_type type, const void *p,
                size_t len, struct err *e)
{
    c->until_ns = answer_until(type);
    if (c->fd < 0)
        return err_kind(e, ERR_GONE, "disk %s: its server was lost", c->id);
    return message_write(c->fd, type, p, len, c->until_ns, e) ? call_lost(c, e)
                                                              : 0;
}

int diskctl_answer(struct diskctl *c, struct buf *answer, struct err *e)
{
    struct buf own = {0}, *in = answer ? answer : &own;
    size_t from = in->len;
    uint32_t status = 0;
    int rc = 0;

    if (message_read(c->fd, &status, in, c->until_ns, e)) {
        rc = call_lost(c, e);
    } else if (status) {
        refusal(status, in, from, e);
        rc = err_add(e, "disk %s", c->id);
    }
    buf_free(&own);
    return rc;
}

int diskctl_call(struct diskctl *c, enum diskctl_type type, const void *p,
                 size_t len, struct buf *answer, struct err *e)
{
    return diskctl_ask(c, type, p, len, e) ? -1 : diskctl_answer(c, answer, e);
}

bool diskctl_alive(const struct diskctl *c)
{
    char byte;

    if (c->fd < 0)
        return false;
    ssize_t r = recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return r > 0 || (r < 0 && (errno == EAGAIN || errno == EINTR));
}

struct disk_page *diskctl_page(const char *id, struct err *e)
{
    char path[RECORD_PATH];

    record_path(id, ".page", path);
    CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        err_sys(e, "open %s", path);
        return NULL;
    }
    void *p = mmap(NULL, sizeof(struct disk_page), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_POPULATE, fd, 0);
    if (p == MAP_FAILED) {
        err_sys(e, "map %s", path);
        return NULL;
    }
    /* It is stored to while the guest is stopped. */
    if (mlock(p, sizeof(struct disk_page))) {
        err_sys(e, "lock %s in memory", path);
        munmap(p, sizeof(struct disk_page));
        return NULL;
    }
    return p;
}

struct found {
    uint32_t domid;
    char (*ids)[DISK_ID];
    int n;
};

static void found_add(void *arg, const char *id)
{
    struct found *f = arg;
    struct disk_config c = {0};
    unsigned domid, device;
    char again[DISK_ID];
    long server;

    if (sscanf(id, "vbd-%u-%u", &domid, &device) != 2 || domid != f->domid)
        return;
    snprintf(again, sizeof again, "vbd-%u-%u", domid, device);
    if (strcmp(again, id) != 0 || record_load(id, &c, &server, NULL) ||
        c.read_only)
        return;
    if (f->n < DISKS_MAX)
        snprintf(f->ids[f->n], DISK_ID, "%s", id);
    f->n++;
}

int diskctl_disks(uint32_t domid, char ids[DISKS_MAX][DISK_ID], struct err *e)
{
    struct found f = {.domid = domid, .ids = ids};

    if (record_list(found_add, &f, e) < 0)
        return -1;
    if (f.n > DISKS_MAX)
        return err_kind(e, ERR_REFUSED, "the VM has %d disks, %d are possible",
                        f.n, DISKS_MAX);
    return f.n;
}

uint32_t diskctl_device(const char *id)
{
    const char *last = strrchr(id, '-');

    return last ? (uint32_t)strtoul(last + 1, NULL, 10) : 0;
}

/* --- The server's end ----------------------------------------------------- */

struct diskctl_server {
    struct duty *duty;
    char id[DISK_ID];
    int listen_fd, end[2]; /* a pipe: closed to end the thread */
    pthread_t thread;
};

/* Something to read at `fd`; false: the thread is to end. */
static bool input_wait(struct diskctl_server *s, int fd)
{
    for (;;) {
        struct pollfd p[2] = {{.fd = s->end[0], .events = POLLIN},
                              {.fd = fd, .events = POLLIN}};
        if (poll(p, 2, -1) < 0 && errno != EINTR)
            return false;
        if (p[0].revents)
            return false;
        if (p[1].revents)
            return true;
    }
}

static void agent_serve(struct diskctl_server *s, int fd)
{
    struct buf in = {0}, out = {0};

    while (input_wait(s, fd)) {
        struct err e = ERR_INIT;
        uint32_t type;
        uint64_t until = clock_ns() + DISKCTL_MS * NS_PER_MS;
        buf_clear(&in);
        buf_clear(&out);
        if (message_read(fd, &type, &in, until, &e))
            break;
        int rc = duty_do(s->duty, (enum diskctl_type)type, in.data, in.len,
                         &out, &e);
        until = clock_ns() + DISKCTL_MS * NS_PER_MS;
        if (rc ? message_write(fd, e.kind ? e.kind : ERR_FAILED, e.text,
                               strlen(e.text), until, NULL)
               : message_write(fd, 0, out.data, out.len, until, NULL))
            break;
    }
    buf_free(&in);
    buf_free(&out);
    duty_hangup(s->duty);
}

static void *server_main(void *arg)
{
    struct diskctl_server *s = arg;

    while (input_wait(s, s->listen_fd)) {
        int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        agent_serve(s, fd);
        close(fd);
    }
    return NULL;
}

static int server_listen(struct diskctl_server *s, struct err *e)
{
    struct sockaddr_un a;

    if (address_of(s->id, &a, e))
        return -1;
    unlink(a.sun_path);
    s->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->listen_fd < 0 ||
        bind(s->listen_fd, (struct sockaddr *)&a, sizeof a) ||
        listen(s->listen_fd, 4))
        return err_sys(e, "listen on %s", a.sun_path);
    if (pipe2(s->end, O_CLOEXEC))
        return err_sys(e, "pipe");
    return 0;
}

int diskctl_start(struct diskctl_server **out, const char *id,
                  struct duty *duty, struct err *e)
{
    struct diskctl_server *s = calloc(1, sizeof *s);

    if (!s)
        return err_sys(e, "control of the disk");
    s->duty = duty;
    s->listen_fd = s->end[0] = s->end[1] = -1;
    snprintf(s->id, sizeof s->id, "%s", id);
    int rc = server_listen(s, e);
    if (!rc)
        rc = thread_start(&s->thread, 0, server_main, s, "the control thread",
                          e);
    if (!rc) {
        *out = s;
        return 0;
    }
    for (int i = 0; i < 2; i++)
        if (s->end[i] >= 0)
            close(s->end[i]);
    if (s->listen_fd >= 0)
        close(s->listen_fd);
    free(s);
    return -1;
}

void diskctl_stop(struct diskctl_server *s)
{
    if (!s)
        return;
    close(s->end[1]);
    pthread_join(s->thread, NULL);
    close(s->end[0]);
    close(s->listen_fd);
    free(s);
}
