// SPDX-License-Identifier: Apache-2.0
/* Running understudy-xl, the child process that uses libxl for us: libxl wants
 * SIGCHLD, and so does the caller's event loop.
 *
 * It answers with one line of JSON on its standard output, {"ok":true} with
 * "domid" and "bytes" (how many raw bytes follow), or {"ok":false} with
 * "kind", "error" and "hint". The answer counts, not the exit status: the
 * caller's event loop may reap the child before we do. Its standard error is
 * ours, for the log. */
#include "hypervisor/xen.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

#include "common/cleanup.h"
#include "common/clock.h"

#define PROGRAM    PREFIX "/libexec/understudy/understudy-xl"
#define ARGS_MAX   8
#define OUTPUT_MAX (BLUEPRINT_CONFIG_MAX + 4096)
/* After its time is over, a child has this long to clean up what it began. */
#define MERCY_NS (20 * NS_PER_SEC)

struct child {
    pid_t pid;
    int in, out; /* our ends */
};

static void child_exec(const char *const argv[], int in, int out, pid_t parent)
{
    const char *args[ARGS_MAX + 2] = {"understudy-xl"};
    const char *program = getenv("UNDERSTUDY_XL");
    sigset_t none;

    for (int i = 0; i < ARGS_MAX && argv[i]; i++)
        args[i + 1] = argv[i];
    /* Nobody would know of what an orphan builds. */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent || dup2(in, 0) < 0 || dup2(out, 1) < 0)
        _exit(127);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    if (!program)
        program = PROGRAM;
    execv(program, (char *const *)(uintptr_t)args);
    _exit(127);
}

static int child_start(const char *const argv[], struct child *c, struct err *e)
{
    int in[2], out[2];

    /* A socket: a child that is gone is an error, not SIGPIPE. */
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, in))
        return err_sys(e, "make a socket pair");
    if (pipe2(out, O_CLOEXEC)) {
        close(in[0]);
        close(in[1]);
        return err_sys(e, "make a pipe");
    }
    pid_t parent = getpid();
    c->pid = fork();
    if (c->pid == 0)
        child_exec(argv, in[0], out[1], parent);
    close(in[0]);
    close(out[1]);
    c->in = in[1];
    c->out = out[0];
    if (c->pid > 0) {
        fcntl(c->in, F_SETFL, O_NONBLOCK);
        return 0;
    }
    close(c->in);
    close(c->out);
    return err_sys(e, "start a process");
}

/* Feed some input; closes the pipe after the last byte, or when the child does
 * not want more. */
static void feed(struct child *c, const uint8_t **p, size_t *left)
{
    ssize_t n = *left ? send(c->in, *p, *left, MSG_NOSIGNAL) : 0;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0) {
        *p += n;
        *left -= (size_t)n;
    }
    if (n > 0 && *left)
        return;
    close(c->in);
    c->in = -1;
}

/* Feed `input`, collect the answer until end of file or the deadline. */
static int talk(struct child *c, const void *input, size_t left,
                struct buf *answer, uint64_t deadline, struct err *e)
{
    const uint8_t *p = input;
    uint8_t chunk[16384];

    for (;;) {
        struct pollfd fds[2] = {{.fd = c->out, .events = POLLIN},
                                {.fd = c->in, .events = POLLOUT}};
        uint64_t now = clock_ns();
        if (now >= deadline)
            return err_kind(e, ERR_TIMEOUT, "libxl took too long");
        if (poll(fds, 2, (int)((deadline - now) / NS_PER_MS) + 1) < 0 &&
            errno != EINTR)
            return err_sys(e, "poll");
        if (c->in >= 0 && fds[1].revents)
            feed(c, &p, &left);
        if (!fds[0].revents)
            continue;
        ssize_t n = read(c->out, chunk, sizeof chunk);
        if (n == 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return err_sys(e, "read from understudy-xl");
        if (n > 0)
            buf_put(answer, chunk, (size_t)n);
        if (answer->len > OUTPUT_MAX)
            return err_set(e, "understudy-xl says too much");
    }
}

/* Wait for the child's end; one that does not end by itself is asked to, and
 * after that it is killed. */
static void child_end(struct child *c, bool hurry)
{
    struct timespec ts = {.tv_nsec = 5 * NS_PER_MS};
    uint64_t until = clock_ns() + MERCY_NS;

    if (c->in >= 0)
        close(c->in);
    close(c->out);
    if (hurry)
        kill(c->pid, SIGTERM);
    while (clock_ns() < until) {
        pid_t r = waitpid(c->pid, NULL, WNOHANG);
        if (r == c->pid || (r < 0 && errno == ECHILD))
            return;
        nanosleep(&ts, NULL);
    }
    kill(c->pid, SIGKILL);
    waitpid(c->pid, NULL, 0);
}

static int refusal(json_t *j, struct err *e)
{
    const char *text = "", *hint = "";
    int kind = ERR_FAILED;

    json_unpack(j, "{s?i,s?s,s?s}", "kind", &kind, "error", &text, "hint",
                &hint);
    if (kind < ERR_FAILED || kind > ERR_GONE)
        kind = ERR_FAILED;
    err_kind(e, (enum err_kind)kind, "%s", *text ? text : "libxl failed");
    return *hint ? err_hint(e, "%s", hint) : -1;
}

static int answer_parse(const struct buf *answer, uint32_t *domid,
                        struct buf *output, struct err *e)
{
    const uint8_t *end =
        answer->len ? memchr(answer->data, '\n', answer->len) : NULL;
    int ok = 0, id = 0, bytes = 0;

    if (!end) {
        err_set(e, "understudy-xl gave no answer");
        return err_hint(e, "is %s installed, and xenstored running?", PROGRAM);
    }
    size_t line = (size_t)(end - answer->data);
    json_t *j = json_loadb((const char *)answer->data, line, 0, NULL);
    int rc = json_unpack(j, "{s:b,s?i,s?i}", "ok", &ok, "domid", &id, "bytes",
                         &bytes);
    if (rc)
        err_set(e, "understudy-xl gave an answer that makes no sense");
    else if (!ok)
        rc = refusal(j, e);
    else if (bytes < 0 || answer->len - line - 1 != (size_t)bytes)
        rc = err_set(e, "understudy-xl's answer is cut short");
    json_decref(j);
    if (rc)
        return -1;
    if (domid)
        *domid = (uint32_t)id;
    if (output)
        buf_put(output, end + 1, (size_t)bytes);
    return 0;
}

int xen_xl(const char *const argv[], const void *input, size_t input_len,
           unsigned timeout_s, uint32_t *domid, struct buf *output,
           struct err *e)
{
    struct buf answer = {0};
    struct child c;

    if (child_start(argv, &c, e))
        return -1;
    uint64_t deadline = clock_ns() + timeout_s * NS_PER_SEC;
    int rc = talk(&c, input, input_len, &answer, deadline, e);
    child_end(&c, rc != 0);
    if (!rc)
        rc = answer_parse(&answer, domid, output, e);
    buf_free(&answer);
    return rc;
}
