// SPDX-License-Identifier: Apache-2.0
//
// Load for the lab's guest, each kind in processes of its own, for ever: `load
// cpu fork tmpfs xenstore clock disk`. What a kind reads it checks, and what is
// wrong is a line "load: ..." on the console, where tests look for it. `clock`
// is no load but a server: to each datagram it answers with the guest's clocks,
// read when it came. The process groups of the others, for `kill -STOP`, are in
// /run/load.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CLOCK_PORT  7003
#define NS_PER_S    1000000000LL
#define FORKERS     16
#define FILE_BLOCKS 512
#define BLOCK       4096
#define DISK        "/dev/xvda"
#define DISK_USERS  4
#define TURN_BLOCKS 16
#define STORE_USERS 3

static const char *kind;

static void __attribute__((format(printf, 1, 2), noreturn))
wrong(const char *fmt, ...)
{
    char text[200];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fprintf(stderr, "load: %s: %s\n", kind, text);
    exit(1);
}

static int64_t clock_ns(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

// A generator that has to come to the same number each time.
static void cpu(void)
{
    uint64_t first = 0;

    for (;;) {
        volatile uint64_t x = 1;
        for (int i = 0; i < 1000000; i++)
            x = x * 6364136223846793005u + 1442695040888963407u;
        if (first && x != first)
            wrong("computed %" PRIx64 ", and before %" PRIx64, x, first);
        first = x;
    }
}

// Children that sleep and end; whoever freezes tasks has some of all kinds.
static void forks(void)
{
    for (int i = 1; i < FORKERS && fork() == 0; i++)
        ;
    for (int n = 0;; n = (n + 1) % 100) {
        int status = 0;
        pid_t pid = fork();
        if (pid < 0)
            wrong("fork: %s", strerror(errno));
        if (!pid) {
            usleep(300000);
            _exit(n);
        }
        if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) ||
            WEXITSTATUS(status) != n)
            wrong("a child ended with %x, not %d", (unsigned)status, n);
    }
}

// Some blocks written, and read again: each says which it is and how often.
static void blocks_check(int fd, uint64_t first, uint64_t blocks)
{
    static _Alignas(BLOCK) uint64_t block[BLOCK / 8];
    static uint64_t round;

    round++;
    for (uint64_t i = first; i < first + blocks; i++) {
        for (size_t j = 0; j < BLOCK / 8; j++)
            block[j] = round << 32 | i;
        if (pwrite(fd, block, BLOCK, (off_t)(i * BLOCK)) != BLOCK)
            wrong("write: %s", strerror(errno));
    }
    for (uint64_t i = first; i < first + blocks; i++) {
        if (pread(fd, block, BLOCK, (off_t)(i * BLOCK)) != BLOCK)
            wrong("read: %s", strerror(errno));
        if (block[0] != (round << 32 | i) ||
            memcmp(block, block + 1, BLOCK - 8) != 0)
            wrong("block %" PRIu64 " is not what was written", i);
    }
}

static void tmpfs(void)
{
    mkdir("/load", 0700);
    if (mount("tmpfs", "/load", "tmpfs", 0, "size=8m") && errno != EBUSY)
        wrong("mount: %s", strerror(errno));
    for (;;) {
        int fd = open("/load/file", O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (fd < 0)
            wrong("open: %s", strerror(errno));
        blocks_check(fd, 0, FILE_BLOCKS);
        close(fd);
        usleep(100000);
    }
}

// Past the page cache, so that requests are in flight when the guest stops.
static void disk(void)
{
    uint64_t user = 0, turn = 0;

    while (user < DISK_USERS - 1 && fork() == 0)
        user++;
    int fd = open(DISK, O_RDWR | O_DIRECT);
    if (fd < 0)
        wrong(DISK ": %s", strerror(errno));
    for (;;) {
        blocks_check(fd, user * FILE_BLOCKS + turn * TURN_BLOCKS, TURN_BLOCKS);
        turn = (turn + 1) % (FILE_BLOCKS / TURN_BLOCKS);
        if (!turn && fdatasync(fd))
            wrong("flush: %s", strerror(errno));
    }
}

// --- xenstore, as xen/io/xs_wire.h has it ---

enum {
    XS_READ = 2,
    XS_TRANSACTION_START = 6,
    XS_TRANSACTION_END = 7,
    XS_WRITE = 11,
    XS_ERROR = 16,
};

struct message {
    uint32_t type, request, transaction, len;
    char body[256];
};

#define HEAD offsetof(struct message, body)

static void store_read(int fd, void *to, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = read(fd, (char *)to + done, len - done);
        if (n <= 0)
            wrong("no answer: %s", strerror(errno));
        done += (size_t)n;
    }
}

// Ask and wait; the answer is in *m. False for EAGAIN, and for an error in a
// transaction, which this xenstored may not know (a write on its way to another
// one fails with EIO); any other error ends us.
static bool store_ask(int fd, struct message *m, uint32_t type, uint32_t tx,
                      const void *body, size_t len)
{
    static uint32_t request;

    *m = (struct message){type, ++request, tx, (uint32_t)len, ""};
    memcpy(m->body, body, len);
    ssize_t n = write(fd, m, HEAD + len);
    if (n != (ssize_t)(HEAD + len))
        wrong("request %u: %s", type, strerror(errno));
    store_read(fd, m, HEAD);
    if (m->len >= sizeof m->body)
        wrong("an answer of %u bytes", m->len);
    store_read(fd, m->body, m->len);
    m->body[m->len] = '\0';
    if (m->request != request)
        wrong("answer to %u, not to %u", m->request, request);
    if (m->type == XS_ERROR && !strcmp(m->body, "EAGAIN"))
        return false;
    if (tx && m->type == XS_ERROR) {
        printf("guest: a transaction of another domain: %s\n", m->body);
        return false;
    }
    if (m->type != type)
        wrong("request %u: %s", type, m->body);
    return true;
}

// One transaction: read what is there, write the next number. False: EAGAIN.
static bool store_turn(int fd, unsigned user, uint64_t *number)
{
    struct message m;
    char node[24], body[64];
    size_t node_len =
        (size_t)snprintf(node, sizeof node, "data/load-%u", user) + 1;

    if (!store_ask(fd, &m, XS_TRANSACTION_START, 0, "", 1))
        return false;
    uint32_t tx = (uint32_t)strtoul(m.body, NULL, 10);
    bool good = *number == 0 || store_ask(fd, &m, XS_READ, tx, node, node_len);
    if (good && *number && strtoull(m.body, NULL, 10) != *number)
        wrong("%s is %s, not %" PRIu64, node, m.body, *number);
    if (!good)
        *number = 0; // the nodes of another domain are gone as well
    memcpy(body, node, node_len);
    int n = snprintf(body + node_len, sizeof body - node_len, "%" PRIu64,
                     *number + 1);
    good = good && store_ask(fd, &m, XS_WRITE, tx, body, node_len + (size_t)n);
    usleep(10000); // so that some are open when the guest is suspended
    bool done = store_ask(fd, &m, XS_TRANSACTION_END, tx, good ? "T" : "F", 2);
    if (good && done)
        ++*number;
    return good && done;
}

// A transaction ends with EAGAIN when it met a restore, or another domain's
// write; many of them in turn are no accident.
static void xenstore(void)
{
    unsigned user = 0, again = 0;
    uint64_t number = 0;

    while (user < STORE_USERS - 1 && fork() == 0)
        user++;
    int fd = open("/dev/xen/xenbus", O_RDWR);
    if (fd < 0)
        wrong("/dev/xen/xenbus: %s", strerror(errno));
    for (;;) {
        again = store_turn(fd, user, &number) ? 0 : again + 1;
        if (again > 20)
            wrong("EAGAIN %u times in turn", again);
        usleep(40000);
    }
}

// --- the clocks ---

static void clocks(void)
{
    struct sockaddr_in6 addr = {.sin6_family = AF_INET6,
                                .sin6_addr = in6addr_any,
                                .sin6_port = htons(CLOCK_PORT)};
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);
    int64_t last = 0;

    setpriority(PRIO_PROCESS, 0, -20);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof addr))
        wrong("port %d: %s", CLOCK_PORT, strerror(errno));
    for (;;) {
        struct sockaddr_in6 from;
        socklen_t from_len = sizeof from;
        char text[128];
        ssize_t n =
            recvfrom(fd, text, 32, 0, (struct sockaddr *)&from, &from_len);
        int64_t mono = clock_ns(CLOCK_MONOTONIC);
        int64_t real = clock_ns(CLOCK_REALTIME);
        if (n <= 0)
            continue;
        if (mono < last)
            wrong("CLOCK_MONOTONIC went back by %" PRId64 " ns", last - mono);
        last = mono;
        int len = snprintf(text + n, sizeof text - (size_t)n,
                           " %" PRId64 " %" PRId64, mono, real);
        sendto(fd, text, (size_t)n + (size_t)len, 0, (struct sockaddr *)&from,
               from_len);
    }
}

static const struct {
    const char *name;
    void (*run)(void);
} kinds[] = {
    {"cpu", cpu},           {"fork", forks},   {"tmpfs", tmpfs},
    {"xenstore", xenstore}, {"clock", clocks}, {"disk", disk},
};

int main(int argc, char **argv)
{
    FILE *groups = fopen("/run/load", "ae");

    setpriority(PRIO_PROCESS, 0, 0); // whatever the shell has
    for (int i = 1; i < argc; i++) {
        size_t k = 0;
        while (k < sizeof kinds / sizeof *kinds &&
               strcmp(argv[i], kinds[k].name) != 0)
            k++;
        kind = argv[i];
        pid_t pid;
        if (k == sizeof kinds / sizeof *kinds)
            wrong("no such kind");
        if ((pid = fork()) == 0) {
            setsid();
            kinds[k].run();
        }
        if (groups && kinds[k].run != clocks)
            fprintf(groups, "-%d\n", (int)pid);
    }
    if (groups)
        fclose(groups);
    puts("guest: load");
}
