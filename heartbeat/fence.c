// SPDX-License-Identifier: Apache-2.0
/* Running a fencing hook; see fence.h. A shell tells its status through a pipe:
 * who waits for children in this process is libev's matter. */
#include "heartbeat/fence.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"

extern char **environ;

/* In a process group of its own, with signals as a program expects them. */
static int hook_start(char *const argv[], int out, pid_t *pid)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, all;

    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK |
                                        POSIX_SPAWN_SETSIGDEF |
                                        POSIX_SPAWN_SETPGROUP);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, out, 3);
    int r = posix_spawn(pid, "/bin/sh", &files, &attr, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attr);
    return r;
}

/* What the shell says at the end: the status. -1: nothing in time. */
static int status_read(int fd, uint64_t deadline)
{
    char text[16] = "";
    size_t n = 0;

    while (n < sizeof text - 1) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        uint64_t now = clock_ns();
        if (now >= deadline)
            return -1;
        if (poll(&p, 1, (int)((deadline - now) / NS_PER_MS) + 1) <= 0)
            continue;
        ssize_t r = read(fd, text + n, sizeof text - 1 - n);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return -1;
        n += (size_t)r;
        if (memchr(text, '\n', n))
            return atoi(text);
    }
    return -1;
}

int fence_run(const char *hook, const char *host, const char *vm,
              unsigned timeout_ms, struct err *e)
{
    static char script[] = "\"$1\" \"$2\" \"$3\" 3>&-; echo $? >&3";
    char *argv[] = {"sh",
                    "-c",
                    script,
                    "fence",
                    (char *)(uintptr_t)hook,
                    (char *)(uintptr_t)host,
                    (char *)(uintptr_t)vm,
                    NULL};
    uint64_t deadline = clock_ns() + timeout_ms * NS_PER_MS;
    int fd[2];
    pid_t pid;

    if (pipe2(fd, O_CLOEXEC))
        return err_sys(e, "make a pipe");
    CLEANUP_CLOSE int in = fd[0];
    int r = hook_start(argv, fd[1], &pid);
    close(fd[1]);
    if (r) {
        errno = r;
        return err_sys(e, "start %s", hook);
    }
    int status = status_read(in, deadline);
    if (status != 0)
        kill(-pid, SIGKILL);
    waitpid(pid, NULL, 0); /* or libev has */
    if (status < 0)
        return err_kind(e, ERR_TIMEOUT, "%s did not fence %s within %u ms",
                        hook, host, timeout_ms);
    if (status)
        return err_set(e, "%s could not fence %s: exit status %d", hook, host,
                       status);
    return 0;
}
