// SPDX-License-Identifier: Apache-2.0
/* A disk's server and its keeper as processes, with this test in the place of
 * the kernel's client: it has requests under way, the server is killed, and
 * what was not answered is sent again on the next connection. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/log.h"
#include "disk-replicate/disk.h"
#include "tests/lib/nbd_client.h"
#include "tests/lib/plug.h"

#define SLOTS     64
#define SLOT      16384u
#define BYTES     (SLOTS * SLOT)
#define WAIT_MS   10000
#define NBD_INDEX 3

/* Shared with the server's processes. */
struct shared {
    volatile pid_t server;
    volatile bool exists; /* the device */
    volatile unsigned connects, reconnects;
};

struct fake {
    struct nbdlink link; /* first */
    struct shared *shared;
    int sockets[2]; /* descriptors go through here to the test */
};

static int fd_send(struct fake *f, int fd)
{
    char c = 0, control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec iov = {&c, 1};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control,
                       .msg_controllen = sizeof control};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);

    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(h), &fd, sizeof fd);
    f->shared->server = getpid();
    return sendmsg(f->sockets[1], &m, MSG_NOSIGNAL) == 1 ? 0 : -1;
}

static int fake_find(struct nbdlink *l, const char *name, int *index,
                     struct err *e)
{
    struct fake *f = (struct fake *)l;

    *index = NBD_INDEX;
    if (strcmp(name, "understudy:web") != 0)
        abort();
    return f->shared->exists ? 0 : err_kind(e, ERR_GONE, "none");
}

static int fake_connect(struct nbdlink *l, const char *name, int fd,
                        const struct nbdlink_params *p, int *index,
                        struct err *e)
{
    struct fake *f = (struct fake *)l;

    (void)name;
    (void)e;
    if (f->shared->exists || p->bytes != BYTES)
        abort();
    f->shared->exists = true;
    f->shared->connects++;
    *index = NBD_INDEX;
    return fd_send(f, fd);
}

static int fake_reconnect(struct nbdlink *l, const char *name, int index,
                          int fd, struct err *e)
{
    struct fake *f = (struct fake *)l;

    (void)name;
    if (!f->shared->exists || index != NBD_INDEX)
        return err_set(e, "no such device");
    f->shared->reconnects++;
    return fd_send(f, fd);
}

static const struct nbdlink_ops fake_ops = {fake_find, fake_connect,
                                            fake_reconnect, NULL};

/* --- The kernel's place --------------------------------------------------- */

struct slot {
    uint8_t want, sent; /* what it is to hold; what is under way */
    bool flying, reads;
};

struct client {
    struct fake fake;
    struct disk_config c;
    pid_t keeper;
    int ready; /* the keeper's message comes here */
    int fd;
    struct slot slot[SLOTS];
    unsigned flying;
    uint64_t seed;
};

static int fd_receive(struct client *t)
{
    char c, control[CMSG_SPACE(sizeof(int))];
    struct iovec iov = {&c, 1};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control,
                       .msg_controllen = sizeof control};
    struct pollfd p = {.fd = t->fake.sockets[0], .events = POLLIN};
    int fd;

    if (poll(&p, 1, WAIT_MS) != 1)
        fail_msg("no server attached within %d ms", WAIT_MS);
    assert_int_equal(recvmsg(t->fake.sockets[0], &m, MSG_CMSG_CLOEXEC), 1);
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
    return fd;
}

static void keeper_start(struct client *t)
{
    int ready[2];

    assert_int_equal(pipe(ready), 0);
    t->keeper = fork();
    if (t->keeper == 0) {
        close(t->fake.sockets[0]);
        close(ready[0]);
        _exit(disk_keep(&t->c, ready[1]));
    }
    close(ready[1]);
    t->ready = ready[0];
}

static void begin(struct client *t)
{
    memset(t, 0, sizeof *t);
    t->fake.link.ops = &fake_ops;
    t->fake.shared = mmap(NULL, sizeof *t->fake.shared, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(t->fake.shared, MAP_FAILED);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, t->fake.sockets), 0);
    t->c = (struct disk_config){.id = "web",
                                .workers = 8,
                                .request_s = 5,
                                .dead_s = 60,
                                .lock_wait_ms = WAIT_MS,
                                .link = &t->fake.link};
    strcpy(t->c.image, "/tmp/understudy-disk-XXXXXX");
    int fd = mkstemp(t->c.image);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, BYTES), 0);
    close(fd);
    t->seed = 1;
    t->fd = -1;
}

static void ready_expect(struct client *t, const char *text)
{
    char said[2048] = "";

    ssize_t n = read(t->ready, said, sizeof said - 1);
    assert_true(n > 0);
    if (strncmp(said, text, strlen(text)) != 0)
        fail_msg("said '%s'", said);
    close(t->ready);
}

static int keeper_end(struct client *t)
{
    int status;

    assert_int_equal(waitpid(t->keeper, &status, 0), t->keeper);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void finish(struct client *t)
{
    if (t->fd >= 0)
        close(t->fd);
    close(t->fake.sockets[0]);
    close(t->fake.sockets[1]);
    munmap(t->fake.shared, sizeof *t->fake.shared);
    unlink(t->c.image);
}

/* --- Requests ------------------------------------------------------------- */

static bool slot_send(struct client *t, unsigned i)
{
    static uint8_t data[SLOT];
    const struct slot *x = &t->slot[i];
    struct nbd_header h = {0, x->reads ? NBD_READ : NBD_WRITE, i,
                           (uint64_t)i * SLOT, SLOT};

    memset(data, x->sent, sizeof data);
    return client_send(t->fd, &h, data);
}

static void slot_start(struct client *t, unsigned i)
{
    struct slot *x = &t->slot[i];

    x->reads = plug_random(&t->seed) % 3 == 0;
    x->sent = x->reads ? x->want : (uint8_t)(x->want + 1);
    x->flying = true;
    t->flying++;
    slot_send(t, i); /* a server that is gone is noticed at the answer */
}

/* As the kernel: another connection, and everything unanswered again. */
static void start_over(struct client *t)
{
    bool sent = false;

    while (!sent) {
        if (t->fd >= 0)
            close(t->fd);
        t->fd = fd_receive(t);
        sent = true;
        for (unsigned i = 0; i < SLOTS && sent; i++)
            if (t->slot[i].flying)
                sent = slot_send(t, i);
    }
}

/* Take one answer; false: the connection is gone. */
static bool answer_take(struct client *t)
{
    static uint8_t data[SLOT];
    uint64_t handle;
    int error;

    if (!client_answer(t->fd, &handle, &error))
        return false;
    assert_int_equal(error, 0);
    assert_in_range(handle, 0, SLOTS - 1);
    struct slot *x = &t->slot[handle];
    assert_true(x->flying);
    if (x->reads) {
        if (!client_data(t->fd, data, sizeof data))
            return false;
        for (unsigned i = 0; i < SLOT; i++)
            assert_int_equal(data[i], x->want);
    }
    x->want = x->sent;
    x->flying = false;
    t->flying--;
    return true;
}

static void all_answered(struct client *t)
{
    while (t->flying)
        if (!answer_take(t))
            start_over(t);
}

static void image_check(const struct client *t)
{
    static uint8_t data[BYTES];
    FILE *f = fopen(t->c.image, "r");

    assert_non_null(f);
    assert_int_equal(fread(data, 1, BYTES, f), BYTES);
    fclose(f);
    for (unsigned i = 0; i < BYTES; i++)
        assert_int_equal(data[i], t->slot[i / SLOT].want);
}

static void disconnect(struct client *t)
{
    struct nbd_header bye = {.command = NBD_DISCONNECT_NOW};

    assert_true(client_send(t->fd, &bye, NULL));
    assert_int_equal(keeper_end(t), 0);
}

/* --- Tests ---------------------------------------------------------------- */

static void killing_the_server_is_a_pause_and_no_error(void **s)
{
    struct client t;
    unsigned kills = 0;

    (void)s;
    begin(&t);
    keeper_start(&t);
    start_over(&t);
    ready_expect(&t, "/dev/nbd3\n");
    for (unsigned round = 0; round < 60; round++) {
        unsigned moment = (unsigned)(plug_random(&t.seed) % (2 * SLOTS));
        for (unsigned i = 0; i < SLOTS; i++) {
            if (i == moment)
                kill(t.fake.shared->server, SIGKILL);
            slot_start(&t, i);
        }
        for (unsigned n = SLOTS; n < moment && t.flying; n++)
            if (!answer_take(&t))
                start_over(&t);
        if (moment >= SLOTS)
            kill(t.fake.shared->server, SIGKILL);
        kills++;
        all_answered(&t);
    }
    disconnect(&t);
    image_check(&t);
    assert_int_equal(t.fake.shared->connects, 1);
    assert_in_range(t.fake.shared->reconnects, kills / 2, 10 * kills);
    finish(&t);
}

/* The kernel closes a connection whose request took too long. */
static void a_closed_connection_is_replaced(void **s)
{
    struct client t;

    (void)s;
    begin(&t);
    keeper_start(&t);
    start_over(&t);
    pid_t server = t.fake.shared->server;
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < SLOTS; i++)
            slot_start(&t, i);
        shutdown(t.fd, SHUT_RDWR);
        start_over(&t);
        all_answered(&t);
    }
    assert_int_equal(t.fake.shared->server, server);
    disconnect(&t);
    image_check(&t);
    close(t.ready);
    finish(&t);
}

/* Stopped while no server lived: nothing is to be attached again. */
static void a_device_that_is_gone_ends_it(void **s)
{
    struct client t;

    (void)s;
    begin(&t);
    keeper_start(&t);
    start_over(&t);
    t.fake.shared->exists = false;
    kill(t.fake.shared->server, SIGKILL);
    assert_int_equal(keeper_end(&t), 0);
    assert_int_equal(t.fake.shared->connects, 1);
    close(t.ready);
    finish(&t);
}

/* When the keeper is gone too, somebody resumes: it takes the device over. */
static void a_successor_takes_the_device_over(void **s)
{
    struct client t;

    (void)s;
    begin(&t);
    keeper_start(&t);
    start_over(&t);
    slot_start(&t, 0);
    kill(t.keeper, SIGKILL);
    assert_int_equal(waitpid(t.keeper, NULL, 0), t.keeper);
    close(t.ready);
    kill(t.fake.shared->server, SIGKILL);
    t.c.again = true;
    keeper_start(&t);
    start_over(&t);
    all_answered(&t);
    ready_expect(&t, "/dev/nbd3\n");
    disconnect(&t);
    image_check(&t);
    finish(&t);
}

static void a_start_that_fails_says_why(void **s)
{
    struct client t;

    (void)s;
    begin(&t);
    assert_int_equal(truncate(t.c.image, 1000), 0);
    keeper_start(&t);
    ready_expect(&t, "error\ndisk image /tmp/understudy-disk-");
    assert_int_equal(keeper_end(&t), 1);
    assert_int_equal(truncate(t.c.image, BYTES), 0);
    t.fake.shared->exists = true; /* someone serves it already */
    keeper_start(&t);
    ready_expect(&t, "error\ndisk web is /dev/nbd3 already\n");
    assert_int_equal(keeper_end(&t), 1);
    finish(&t);
}

/* Where the socket of its control goes, beside a record that isn't there. */
static char root[] = "/tmp/understudy-disk-root-XXXXXX";

static int root_make(void **state)
{
    char command[128];

    (void)state;
    if (!mkdtemp(root) || setenv("UNDERSTUDY_ROOT", root, 1))
        return -1;
    snprintf(command, sizeof command, "mkdir -p '%s/run/understudy/disk'",
             root);
    return system(command);
}

static int root_remove(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killing_the_server_is_a_pause_and_no_error),
        cmocka_unit_test(a_closed_connection_is_replaced),
        cmocka_unit_test(a_device_that_is_gone_ends_it),
        cmocka_unit_test(a_successor_takes_the_device_over),
        cmocka_unit_test(a_start_that_fails_says_why),
    };

    log_setup("disk", 0); /* kills are told as errors */
    return cmocka_run_group_tests(tests, root_make, root_remove);
}
