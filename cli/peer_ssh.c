// SPDX-License-Identifier: Apache-2.0
/* The other host's half of `peer add`; see peer_ssh.h. */
#include "cli/peer_ssh.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"
#include "common/bytes.h"
#include "common/cleanup.h"

#define DEFAULT_PORT 7788
#define OUTPUT_MAX   65536

extern char **environ;

/* Words of a command line on the other host: nothing that a shell knows. */
static bool plain(const char *text, const char *also)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz"
                                  "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    char set[96];

    snprintf(set, sizeof set, "%s%s", letters, also);
    return text[0] && text[0] != '-' && !text[strspn(text, set)];
}

int ssh_peer_of(struct ssh_peer *p, const json_t *key, const char *whose,
                struct err *e)
{
    const char *name = cli_text(key, "name", "");
    const char *pin = cli_text(key, "pin", "");

    p->port = cli_number(key, "port", -1);
    if (!plain(name, "._-") || strlen(name) >= sizeof p->name ||
        !plain(pin, "") || strlen(pin) != sizeof p->pin - 1 || p->port < 1 ||
        p->port > 65535)
        return err_set(e,
                       "`understudy key show --json` on %s gave no usable "
                       "name, pin and port",
                       whose);
    snprintf(p->name, sizeof p->name, "%s", name);
    snprintf(p->pin, sizeof p->pin, "%s", pin);
    return 0;
}

/* --- ssh ---------------------------------------------------------------- */

static int output_read(int fd, struct buf *out)
{
    for (;;) {
        char part[4096];
        ssize_t n = read(fd, part, sizeof part);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return (int)n;
        if (out->len < OUTPUT_MAX)
            buf_put(out, part, (size_t)n);
    }
}

/* Standard error and the terminal stay the user's: ssh may ask things. */
static int ssh_spawn(const char *target, const char *command, int out,
                     pid_t *pid)
{
    const char *other = getenv("UNDERSTUDY_SSH");
    char *argv[] = {strdup(other && other[0] ? other : "ssh"), strdup("--"),
                    strdup(target), strdup(command), NULL};
    posix_spawn_file_actions_t actions;

    if (other && other[0]) { /* without the "--" */
        free(argv[1]);
        memmove(argv + 1, argv + 2, 3 * sizeof *argv);
    }
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    int r = posix_spawnp(pid, argv[0], &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    for (int i = 0; argv[i]; i++)
        free(argv[i]);
    return r;
}

static int ssh_run(const char *target, const char *command, struct buf *out,
                   struct err *e)
{
    int fds[2], status;
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC))
        return err_sys(e, "pipe");
    int r = ssh_spawn(target, command, fds[1], &pid);
    close(fds[1]);
    if (r) {
        close(fds[0]);
        errno = r;
        return err_sys(e, "start ssh");
    }
    output_read(fds[0], out);
    close(fds[0]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!WIFEXITED(status))
        return err_set(e, "ssh %s ended by signal %d", target,
                       WTERMSIG(status));
    if (WEXITSTATUS(status) == 255) {
        err_set(e, "ssh %s failed", target);
        return err_hint(e,
                        "try `ssh %s`, or add the peer by hand: understudy "
                        "peer add --help",
                        target);
    }
    if (WEXITSTATUS(status) == 127) {
        err_set(e, "understudy is not installed on %s", target);
        return err_hint(e, "install it there, in the PATH of ssh commands");
    }
    if (WEXITSTATUS(status)) {
        err_set(e, "`%s` failed on %s, as said above", command, target);
        return err_hint(e, "understudyd has to run there");
    }
    return 0;
}

int ssh_key_show(const char *target, struct ssh_peer *them, struct err *e)
{
    struct buf out = {0};
    int rc = ssh_run(target, "understudy key show --json", &out, e);

    if (!rc) {
        json_t *key = json_loadb((const char *)out.data, out.len, 0, NULL);
        rc = ssh_peer_of(them, key, target, e);
        json_decref(key);
    }
    buf_free(&out);
    return rc;
}

int ssh_peer_add(const char *target, const struct ssh_peer *us, struct err *e)
{
    struct buf out = {0};
    char command[512];

    snprintf(command, sizeof command,
             "understudy peer add %s --address '%s' --pin %s", us->name,
             us->address, us->pin);
    int rc = ssh_run(target, command, &out, e);
    buf_free(&out);
    return rc;
}

/* --- Addresses ---------------------------------------------------------- */

static void address_put(struct ssh_peer *p, const char *address)
{
    bool v6 = strchr(address, ':');

    if (p->port == DEFAULT_PORT)
        snprintf(p->address, sizeof p->address, "%s%.100s%s", v6 ? "[" : "",
                 address, v6 ? "]" : "");
    else
        snprintf(p->address, sizeof p->address, "%s%.100s%s:%lld",
                 v6 ? "[" : "", address, v6 ? "]" : "", p->port);
}

/* A connected UDP socket sends nothing, and knows both ends. */
static int route_find(const char *host, char *theirs, char *ours, size_t size,
                      struct err *e)
{
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM}, *list = NULL;
    int r = getaddrinfo(host, "7788", &hints, &list);

    if (r) {
        err_set(e, "no address of %s: %s", host, gai_strerror(r));
        return err_hint(e, "--address says where its understudyd listens, "
                           "--my-address where it reaches this host");
    }
    int rc = -1;
    for (const struct addrinfo *a = list; a && rc; a = a->ai_next) {
        CLEANUP_CLOSE int fd =
            socket(a->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        struct sockaddr_storage local;
        socklen_t n = sizeof local;
        if (fd >= 0 && !connect(fd, a->ai_addr, a->ai_addrlen) &&
            !getsockname(fd, (struct sockaddr *)&local, &n) &&
            !getnameinfo(a->ai_addr, a->ai_addrlen, theirs, (socklen_t)size,
                         NULL, 0, NI_NUMERICHOST) &&
            !getnameinfo((struct sockaddr *)&local, n, ours, (socklen_t)size,
                         NULL, 0, NI_NUMERICHOST))
            rc = 0;
    }
    freeaddrinfo(list);
    return rc ? err_set(e, "no route to %s", host) : 0;
}

int ssh_addresses(const char *target, const char *theirs, const char *ours,
                  struct ssh_peer *them, struct ssh_peer *us, struct err *e)
{
    const char *at = strrchr(target, '@');
    const char *host = at ? at + 1 : target;
    char remote[100], local[100];

    if ((!theirs || !ours) && route_find(host, remote, local, sizeof remote, e))
        return -1;
    address_put(them, theirs ? theirs : remote);
    address_put(us, ours ? ours : local);
    if (theirs) /* may have a port of its own */
        snprintf(them->address, sizeof them->address, "%.127s", theirs);
    if (ours)
        snprintf(us->address, sizeof us->address, "%.127s", ours);
    if (!plain(us->address, ".:[]%_-"))
        return err_kind(e, ERR_USAGE, "%s is no address", us->address);
    return 0;
}
