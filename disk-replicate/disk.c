// SPDX-License-Identifier: Apache-2.0
/* One disk's block server; see disk.h. */
#include "disk-replicate/disk.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "disk-replicate/disk_control.h"
#include "disk-replicate/duty.h"
#include "disk-replicate/image.h"
#include "disk-replicate/server.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

#define SOCKET_BYTES (256 << 10)
#define SHORT_LIFE   (100 * NS_PER_MS)
#define PAUSE_MS     20

struct serving {
    const struct disk_config *c;
    char name[NBDLINK_NAME];
    struct image image;
    struct server *server;
    int index; /* -1: not attached yet */
};

void disk_name(const char *id, char out[NBDLINK_NAME])
{
    snprintf(out, NBDLINK_NAME, "understudy:%s", id);
}

static void oom_spare(void)
{
    CLEANUP_CLOSE int fd =
        open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, "-1000", 5) != 5)
        log_warn("oom_score_adj can't be set");
}

/* Pages of buffers that are reserved and not used are not to be there. */
void disk_harden(void)
{
    if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT))
        log_warn("memory can't be locked");
    if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0))
        log_warn("not an IO flusher: under memory pressure this disk may hang");
    oom_spare();
}

/* --- Connections ---------------------------------------------------------- */

/* Larger buffers than usual, where we may. */
static void buffers_enlarge(int fd)
{
    int bytes = SOCKET_BYTES;

    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes))
        (void)!setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}

static int kernel_attach(struct serving *s, int fd, struct err *e)
{
    const struct disk_config *c = s->c;
    struct nbdlink *l = c->link;
    struct nbdlink_params p = {s->image.bytes, c->read_only, c->request_s,
                               c->dead_s};

    if (s->index >= 0)
        return l->ops->reconnect(l, s->name, s->index, fd, e);
    return l->ops->connect(l, s->name, fd, &p, &s->index, e);
}

/* Our end of a new connection. */
static int connection_make(struct serving *s, int *fd, struct err *e)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
        return err_sys(e, "socket pair");
    buffers_enlarge(pair[0]);
    buffers_enlarge(pair[1]);
    int rc = kernel_attach(s, pair[1], e);
    close(pair[1]);
    if (rc)
        close(pair[0]);
    else
        *fd = pair[0];
    return rc;
}

/* The kernel may not have noticed yet that the last connection is dead, and
 * then lets go of the next one at once. */
static void pause_after(uint64_t since_ns)
{
    const struct timespec pause = {.tv_nsec = PAUSE_MS * (long)NS_PER_MS};

    if (clock_ns() - since_ns < SHORT_LIFE)
        nanosleep(&pause, NULL);
}

static int connections_serve(struct serving *s, void (*attached)(void *, int),
                             void *arg, struct err *e)
{
    enum server_end end = SERVER_LOST;

    while (end == SERVER_LOST) {
        uint64_t since = clock_ns();
        CLEANUP_CLOSE int fd = -1;
        struct err why = ERR_INIT;
        if (connection_make(s, &fd, e))
            return -1;
        fault_point("disk.attached");
        attached(arg, s->index);
        if (server_run(s->server, fd, &end, &why)) {
            *e = why;
            return -1;
        }
        if (end == SERVER_LOST && clock_ns() - since >= SHORT_LIFE)
            log_warn("disk=%s connection lost: %s", s->c->id, why.text);
        if (end == SERVER_LOST)
            pause_after(since);
    }
    return 0;
}

/* The device of that name, if there is one. False, with *rc: nothing is to be
 * served. */
static bool predecessor_find(struct serving *s, int *rc, struct err *e)
{
    struct nbdlink *l = s->c->link;
    struct err why = ERR_INIT;
    int index;

    s->index = -1;
    *rc = 0;
    if (!l->ops->find(l, s->name, &index, &why)) {
        if (s->c->again) {
            s->index = index;
            return true;
        }
        *rc = err_kind(e, ERR_REFUSED, "disk %s is /dev/nbd%d already",
                       s->c->id, index);
        err_hint(e, "understudy-disk resume %s, if its server is gone",
                 s->c->id);
        return false;
    }
    if (why.kind == ERR_GONE)
        return !s->c->again;
    *e = why;
    *rc = -1;
    return false;
}

/* With somebody who listens to the VM's agent. */
static int duty_serve(struct serving *s, void (*attached)(void *, int),
                      void *arg, struct err *e)
{
    struct diskctl_server *control = NULL;
    struct duty *duty = NULL;

    if (duty_open(&duty, s->c->id, &s->image, s->server, e))
        return -1;
    int rc = diskctl_start(&control, s->c->id, duty, e);
    if (!rc)
        rc = connections_serve(s, attached, arg, e);
    diskctl_stop(control);
    duty_close(duty, !rc);
    return rc;
}

int disk_serve(const struct disk_config *c, void (*attached)(void *, int),
               void *arg, struct err *e)
{
    struct serving s = {.c = c};
    int rc = -1;

    disk_name(c->id, s.name);
    if (image_open(&s.image, c->image, c->read_only,
                   c->again ? c->lock_wait_ms : 0, e))
        return -1;
    if (!server_open(&s.server, &s.image, c->workers, e) &&
        predecessor_find(&s, &rc, e)) {
        log_info("disk=%s image=%s bytes=%lu%s", c->id, c->image, s.image.bytes,
                 c->read_only ? " read-only" : "");
        rc = duty_serve(&s, attached, arg, e);
    }
    server_close(s.server);
    image_close(&s.image);
    return rc;
}
