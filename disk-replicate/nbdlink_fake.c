// SPDX-License-Identifier: Apache-2.0
/* In the place of the kernel's NBD client, for tests without one: a device is a
 * socket in the directory that UNDERSTUDY_NBD names, and who connects to it
 * speaks to the server, one at a time. What was not answered when the server
 * dies is the test's to send again. */
#include "disk-replicate/nbdlink.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "disk-replicate/nbd.h"

#define TRIES    100
#define RETRY_US 20000

struct relay {
    int listen_fd, server_fd;
};

static struct sockaddr_un address_of(const char *name)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    snprintf(a.sun_path, sizeof a.sun_path, "%s/%s", getenv("UNDERSTUDY_NBD"),
             name);
    return a;
}

/* False: one of them is at its end. */
static bool bytes_pass(int from, int to)
{
    char bytes[65536];
    ssize_t n = recv(from, bytes, sizeof bytes, 0);

    for (ssize_t at = 0, r; at < n; at += r) {
        r = send(to, bytes + at, (size_t)(n - at), MSG_NOSIGNAL);
        if (r <= 0)
            return false;
    }
    return n > 0;
}

/* Until the client goes; false: the server went. */
static bool client_relay(int client, int server)
{
    struct pollfd p[2] = {{.fd = client, .events = POLLIN},
                          {.fd = server, .events = POLLIN}};

    for (;;) {
        if (poll(p, 2, -1) < 0 && errno != EINTR)
            return false;
        if (p[1].revents && !bytes_pass(server, client))
            return false;
        if (p[0].revents && !bytes_pass(client, server))
            return true;
    }
}

static void *relay_main(void *arg)
{
    struct relay *r = arg;
    bool on = true;

    while (on) {
        struct pollfd p[2] = {{.fd = r->listen_fd, .events = POLLIN},
                              {.fd = r->server_fd, .events = 0}};
        poll(p, 2, -1);
        int client = p[1].revents ? -1 : accept(r->listen_fd, NULL, NULL);
        on = client >= 0 && client_relay(client, r->server_fd);
        if (client >= 0)
            close(client);
    }
    close(r->listen_fd);
    close(r->server_fd);
    free(r);
    return NULL;
}

static int relay_start(const char *name, int fd, struct err *e)
{
    struct sockaddr_un a = address_of(name);
    struct relay *r = calloc(1, sizeof *r);
    pthread_t thread;

    if (!r)
        return err_sys(e, "relay");
    unlink(a.sun_path);
    r->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    r->server_fd = dup(fd);
    if (bind(r->listen_fd, (struct sockaddr *)&a, sizeof a) ||
        listen(r->listen_fd, 4) ||
        pthread_create(&thread, NULL, relay_main, r)) {
        free(r);
        return err_sys(e, "fake device %s", a.sun_path);
    }
    pthread_detach(thread);
    return 0;
}

static int fake_find(struct nbdlink *l, const char *name, int *index,
                     struct err *e)
{
    struct sockaddr_un a = address_of(name);

    (void)l;
    *index = 0;
    return access(a.sun_path, F_OK)
               ? err_kind(e, ERR_GONE, "no device for %s", name)
               : 0;
}

static int fake_connect(struct nbdlink *l, const char *name, int fd,
                        const struct nbdlink_params *p, int *index,
                        struct err *e)
{
    (void)l;
    (void)p;
    *index = 0;
    return relay_start(name, fd, e);
}

static int fake_reconnect(struct nbdlink *l, const char *name, int index,
                          int fd, struct err *e)
{
    (void)l;
    (void)index;
    return relay_start(name, fd, e);
}

static int fake_disconnect(struct nbdlink *l, const char *name, int index,
                           struct err *e)
{
    const struct nbd_header h = {.command = NBD_DISCONNECT_NOW};
    struct sockaddr_un a = address_of(name);
    uint8_t p[NBD_REQUEST_BYTES];

    (void)l;
    (void)index;
    nbd_request_put(p, &h);
    CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int r = connect(fd, (struct sockaddr *)&a, sizeof a);
    for (int tries = 0; r && tries < TRIES; tries++) {
        usleep(RETRY_US); /* its server was killed, and has no successor yet */
        r = connect(fd, (struct sockaddr *)&a, sizeof a);
    }
    int rc = r || send(fd, p, sizeof p, MSG_NOSIGNAL) != sizeof p
                 ? err_sys(e, "disconnect %s", a.sun_path)
                 : 0;
    unlink(a.sun_path);
    return rc;
}

static const struct nbdlink_ops fake_ops = {fake_find, fake_connect,
                                            fake_reconnect, fake_disconnect};

struct nbdlink nbdlink_fake = {&fake_ops};
