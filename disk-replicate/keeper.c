// SPDX-License-Identifier: Apache-2.0
/* The keeper of one disk's server; see disk.h. It holds nothing but its child,
 * so that nothing can go wrong here. */
#include "disk-replicate/disk.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "disk-replicate/record.h"

#define SHORT_MS 50   /* a life: as long a pause before the next */
#define RETRY_MS 1000 /* after one that could not go on */

static void ready_say(int *fd, const char *text)
{
    if (*fd >= 0 && write(*fd, text, strlen(text)) < 0)
        log_warn("nobody waits for the disk");
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* In the server's process; `arg` is its copy of ready_fd. */
static void ready_attached(void *arg, int index)
{
    char text[32];

    snprintf(text, sizeof text, "/dev/nbd%d\n", index);
    ready_say(arg, text);
}

static void ready_failed(int *fd, const struct err *e)
{
    char text[sizeof e->text + sizeof e->hint + 16];

    snprintf(text, sizeof text, "error\n%s\n%s\n", e->text, e->hint);
    ready_say(fd, text);
}

static int server_process(const struct disk_config *c, int ready_fd)
{
    struct err e = ERR_INIT;

    disk_harden();
    record_server(c->id);
    if (!disk_serve(c, ready_attached, &ready_fd, &e))
        return 0;
    log_error("disk=%s %s", c->id, e.text);
    ready_failed(&ready_fd, &e);
    return 1;
}

/* Its wait status; -1: it could not be started. */
static int server_once(const struct disk_config *c, int ready_fd)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0)
        _exit(server_process(c, ready_fd));
    if (pid < 0) {
        log_error("disk=%s fork: %s", c->id, strerror(errno));
        return -1;
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

/* One that was killed starts again at once: the guest waits. */
static void pause_before_next(int status, uint64_t lived_ns)
{
    bool killed = status >= 0 && WIFSIGNALED(status);
    unsigned ms = killed ? SHORT_MS : RETRY_MS;
    const struct timespec pause = {.tv_sec = ms / 1000,
                                   .tv_nsec = ms % 1000 * (long)NS_PER_MS};

    if (!killed || lived_ns < SHORT_MS * NS_PER_MS)
        nanosleep(&pause, NULL);
}

int disk_keep(const struct disk_config *config, int ready_fd)
{
    struct disk_config c = *config;

    for (bool first = true;; first = false) {
        uint64_t since = clock_ns();
        int status = server_once(&c, ready_fd);
        if (status >= 0 && WIFEXITED(status) && (!WEXITSTATUS(status) || first))
            return WEXITSTATUS(status);
        if (status >= 0 && WIFSIGNALED(status))
            log_warn("disk=%s the server was killed by signal %d, starts again",
                     c.id, WTERMSIG(status));
        if (ready_fd >= 0)
            close(ready_fd);
        ready_fd = -1;
        c.again = true;
        pause_before_next(status, clock_ns() - since);
    }
}
