// SPDX-License-Identifier: Apache-2.0
/* What a disk and a link do in a second, for bench/disk-link.
 *
 *   nbdload write SOCKET KIB random|sequential SECONDS BYTES
 *       32 writes at once to a disk of so many bytes; prints MiB a second and
 *       writes a second, behind a first second that does not count
 *   nbdload link PORT SECONDS
 *       over TCP on loopback; prints MiB a second */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "disk-replicate/nbd.h"

#define DEPTH     32
#define BYTES_MAX (1u << 20)

static void die(const char *what)
{
    fprintf(stderr, "nbdload: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t roll(void)
{
    static uint64_t seed = 1;

    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return seed >> 20;
}

/* --- A disk ------------------------------------------------------------------
 */

struct load {
    int fd;
    uint32_t length;
    int random;
    uint64_t bytes, at, handle;
    uint8_t data[BYTES_MAX];
};

static void write_send(struct load *l)
{
    struct nbd_header h = {
        .command = NBD_WRITE, .handle = ++l->handle, .length = l->length};
    uint8_t head[NBD_REQUEST_BYTES];

    h.offset = (l->random ? roll() : l->at++) * l->length % l->bytes;
    memcpy(l->data, &h.handle, sizeof h.handle);
    nbd_request_put(head, &h);
    if (send(l->fd, head, sizeof head, MSG_NOSIGNAL) != sizeof head ||
        send(l->fd, l->data, l->length, MSG_NOSIGNAL) != (ssize_t)l->length)
        die("send");
}

static void answer_take(struct load *l)
{
    uint8_t in[NBD_REPLY_BYTES];
    uint64_t handle;
    int error;

    if (recv(l->fd, in, sizeof in, MSG_WAITALL) != sizeof in ||
        !nbd_reply_get(in, &handle, &error))
        die("answer");
    errno = error;
    if (error)
        die("write");
}

static void load_run(const char *path, uint32_t kib, int random,
                     unsigned seconds, uint64_t bytes)
{
    static struct load l;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    uint64_t n = 0;

    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    l.fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(l.fd, (struct sockaddr *)&a, sizeof a))
        die(path);
    l.length = kib << 10;
    l.random = random;
    l.bytes = bytes;
    for (size_t i = 0; i < sizeof l.data; i++)
        l.data[i] = (uint8_t)roll();
    for (int i = 0; i < DEPTH; i++)
        write_send(&l);
    uint64_t begin = clock_ns() + NS_PER_SEC,
             end = begin + seconds * NS_PER_SEC;
    for (uint64_t now; (now = clock_ns()) < end; n += now >= begin) {
        answer_take(&l);
        write_send(&l);
    }
    for (int i = 0; i < DEPTH; i++)
        answer_take(&l);
    printf("%.1f %.0f\n", (double)n * l.length / 1048576 / seconds,
           (double)n / seconds);
}

/* --- The link
 * ------------------------------------------------------------------
 */

static void *sink(void *arg)
{
    static uint8_t bytes[BYTES_MAX];
    int fd = accept(*(int *)arg, NULL, NULL);

    while (recv(fd, bytes, sizeof bytes, 0) > 0)
        ;
    close(fd);
    return NULL;
}

static void link_run(uint16_t port, unsigned seconds)
{
    static uint8_t bytes[BYTES_MAX];
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons(port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int server = socket(AF_INET, SOCK_STREAM, 0);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    pthread_t thread;
    uint64_t n = 0;

    if (bind(server, (struct sockaddr *)&a, sizeof a) || listen(server, 1) ||
        pthread_create(&thread, NULL, sink, &server) ||
        connect(fd, (struct sockaddr *)&a, sizeof a))
        die("link");
    uint64_t begin = clock_ns() + NS_PER_SEC,
             end = begin + seconds * NS_PER_SEC;
    for (uint64_t now; (now = clock_ns()) < end;) {
        ssize_t r = send(fd, bytes, sizeof bytes, MSG_NOSIGNAL);
        if (r <= 0)
            die("send");
        n += now >= begin ? (uint64_t)r : 0;
    }
    close(fd);
    pthread_join(thread, NULL);
    printf("%.1f\n", (double)n / 1048576 / seconds);
}

int main(int argc, char **argv)
{
    if (argc == 7 && !strcmp(argv[1], "write"))
        load_run(argv[2], (uint32_t)atoi(argv[3]), !strcmp(argv[4], "random"),
                 (unsigned)atoi(argv[5]), strtoull(argv[6], NULL, 10));
    else if (argc == 4 && !strcmp(argv[1], "link"))
        link_run((uint16_t)atoi(argv[2]), (unsigned)atoi(argv[3]));
    else
        return 2;
    return 0;
}
