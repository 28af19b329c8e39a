// SPDX-License-Identifier: Apache-2.0
/* The block server's workers; see server.h. Locks: `receive` is held by the
 * worker that reads requests and does the quick ones, `send` by the one that
 * writes answers, `state` for the rest, taken last and never while waiting for
 * the disk. */
#include "disk-replicate/server.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/iov.h"
#include "common/thread.h"
#include "disk-replicate/nbd.h"
#include "disk-replicate/ranges.h"

#define BUFFER_BYTES  NBD_LENGTH_MAX
#define BUFFER_COMMON (1280u << 10) /* Linux's usual largest request */
#define STACK_BYTES   (256u << 10)
#define AHEAD_BYTES   (64u << 10) /* some requests for one call */

#define QUICK_BYTES  (16u << 10) /* of a write that may be a quick one */
#define QUICK_UNIT   4096u
#define QUICK_MAX    16                /* that are answered together */
#define QUICK_NS     (20 * NS_PER_MS)  /* took longer: it was none, and */
#define NOT_QUICK_NS (100 * NS_PER_MS) /* there is none for so long */

struct worker {
    struct server *server;
    pthread_t thread;
    uint8_t *buffer; /* BUFFER_BYTES, of which BUFFER_COMMON are there */
};

struct server {
    struct image *image;
    struct server_watch *watch; /* NULL: nobody */
    struct worker worker[SERVER_WORKERS_MAX];
    unsigned workers;
    int fd; /* of the connection */
    pthread_mutex_t receive, send, state;
    pthread_cond_t granted;
    /* Under `receive`. */
    uint8_t ahead[AHEAD_BYTES]; /* received, not taken: from _at to _end */
    size_t ahead_at, ahead_end, ahead_want;
    uint64_t quick_from_ns; /* again */
    bool ended;
    enum server_end end;
    struct err why;
    /* Under `state`. */
    struct ranges ranges;
    struct server_counts counts;
};

struct job {
    struct nbd_header header;
    struct range range; /* of a write */
    bool granted;       /* at once */
    bool zeroes;        /* a discard is one */
    int error;
    uint64_t rest_until_ns; /* before it is answered; 0: at once */
};

/* Quick writes that were done. */
struct batch {
    unsigned n;
    uint64_t rest_until_ns; /* of the last */
    uint8_t reply[QUICK_MAX][NBD_REPLY_BYTES];
};

/* --- The socket ----------------------------------------------------------- */

/* 0 at the end of the stream. */
static size_t receive_some(int fd, void *p, size_t len, int flags,
                           struct err *e)
{
    ssize_t r;

    do
        r = recv(fd, p, len, flags);
    while (r < 0 && errno == EINTR);
    if (r < 0)
        err_sys(e, "receive");
    if (r == 0)
        err_set(e, "the socket was closed");
    return r < 0 ? 0 : (size_t)r;
}

/* All of it; false at the end of the stream. Little is received together with
 * what comes behind it, much to where it belongs. */
static bool receive_all(struct server *s, void *p, size_t len)
{
    uint8_t *to = p;

    while (len > 0) {
        size_t there = s->ahead_end - s->ahead_at;
        size_t n = there < len ? there : len;
        if (!there && len < s->ahead_want) {
            s->ahead_at = 0;
            s->ahead_end =
                receive_some(s->fd, s->ahead, s->ahead_want, 0, &s->why);
            if (!s->ahead_end)
                return false;
            continue;
        }
        if (there)
            memcpy(to, s->ahead + s->ahead_at, n);
        else
            n = receive_some(s->fd, to, len, MSG_WAITALL, &s->why);
        if (!n)
            return false;
        s->ahead_at += there ? n : 0;
        to += n;
        len -= n;
    }
    return true;
}

/* False: the peer is gone. */
static bool send_all(int fd, struct iovec *iov, int n)
{
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = (size_t)n};

    for (ssize_t r = 0; iov_sent(&m, r > 0 ? (size_t)r : 0);) {
        r = sendmsg(fd, &m, MSG_NOSIGNAL);
        if (r < 0 && errno != EINTR)
            return false;
    }
    return true;
}

/* --- A request ------------------------------------------------------------ */

static bool job_flushes(const struct job *j)
{
    return j->header.command == NBD_FLUSH || j->header.flags & NBD_FUA;
}

/* After half an answer nothing may follow; who receives sees the end, too. */
static bool answer_send(struct server *s, struct iovec *iov, int n)
{
    pthread_mutex_lock(&s->send);
    bool sent = send_all(s->fd, iov, n);
    if (!sent)
        shutdown(s->fd, SHUT_RDWR);
    pthread_mutex_unlock(&s->send);
    return sent;
}

static void job_answer(struct server *s, const struct job *j, uint8_t *data)
{
    uint8_t reply[NBD_REPLY_BYTES];
    bool reads = j->header.command == NBD_READ && !j->error;
    struct iovec iov[2] = {{reply, sizeof reply},
                           {data, reads ? j->header.length : 0}};

    nbd_reply_put(reply, j->header.handle, j->error);
    bool sent = answer_send(s, iov, 2);
    if (sent && j->error && job_flushes(j))
        image_said(s->image, j->error);
}

static int job_do(struct server *s, const struct job *j, uint8_t *data)
{
    const struct nbd_header *h = &j->header;
    bool fua = h->flags & NBD_FUA;

    switch (h->command) {
    case NBD_READ:
        return image_read(s->image, h->offset, data, h->length);
    case NBD_WRITE:
        return image_write(s->image, h->offset, data, h->length, fua);
    case NBD_FLUSH:
        return image_flush(s->image);
    case NBD_TRIM:
        if (j->zeroes)
            return image_zero(s->image, h->offset, h->length, true, fua);
        return image_trim(s->image, h->offset, h->length, fua);
    default:
        return image_zero(s->image, h->offset, h->length,
                          !(h->flags & NBD_NO_HOLE), fua);
    }
}

static bool job_writes(const struct job *j)
{
    return j->header.command != NBD_READ && j->header.command != NBD_FLUSH;
}

/* With the range taken. */
static void job_run(struct server *s, struct job *j, uint8_t *data)
{
    const struct nbd_header *h = &j->header;
    struct server_watch *w = s->watch;

    if (!j->error && w)
        j->error = w->ask(w, job_writes(j), h->offset, h->length);
    if (j->error)
        return;
    j->zeroes = w && __atomic_load_n(&w->discards_zero, __ATOMIC_SEQ_CST);
    j->error = job_do(s, j, data);
    if (w && j->error && h->command != NBD_READ)
        w->failed(w, job_writes(j));
    else if (w && job_writes(j) && (h->command != NBD_TRIM || j->zeroes))
        j->rest_until_ns = w->wrote(w, h->offset, h->length,
                                    h->command == NBD_WRITE ? data : NULL);
    if (w && job_writes(j))
        w->end(w, h->offset, h->length);
}

static void job_count(struct server_counts *c, const struct job *j)
{
    const struct nbd_header *h = &j->header;

    c->errors += j->error != 0;
    switch (h->command) {
    case NBD_READ:
        c->reads++;
        c->read_bytes += h->length;
        break;
    case NBD_WRITE:
        c->writes++;
        c->write_bytes += h->length;
        break;
    case NBD_FLUSH:
        c->flushes++;
        break;
    default:
        c->trims++;
    }
}

static void range_wait(struct server *s, const struct range *r)
{
    pthread_mutex_lock(&s->state);
    while (!r->granted)
        pthread_cond_wait(&s->granted, &s->state);
    pthread_mutex_unlock(&s->state);
}

static void job_end(struct server *s, struct job *j)
{
    pthread_mutex_lock(&s->state);
    if (ranges_give(&s->ranges, &j->range))
        pthread_cond_broadcast(&s->granted);
    job_count(&s->counts, j);
    pthread_mutex_unlock(&s->state);
}

/* A read has an empty range, which waits for nobody. */
static void range_take(struct server *s, struct job *j)
{
    const struct nbd_header *h = &j->header;

    j->range.offset = h->offset;
    j->range.length = job_writes(j) && !j->error ? h->length : 0;
    pthread_mutex_lock(&s->state);
    j->granted = ranges_take(&s->ranges, &j->range);
    pthread_mutex_unlock(&s->state);
}

/* --- Workers -------------------------------------------------------------- */

/* Behind a long write there is often another, which is not to be copied: then
 * nothing is received ahead. */
static void ahead_choose(struct server *s, const struct nbd_header *h)
{
    bool is_long = h->command == NBD_WRITE && h->length >= AHEAD_BYTES / 2;

    s->ahead_want = is_long ? NBD_REQUEST_BYTES : AHEAD_BYTES;
}

static bool connection_end(struct server *s, enum server_end end)
{
    s->ended = true;
    s->end = end;
    return false;
}

/* The lock `receive` is held. False: there are no more requests. */
static bool job_read(struct server *s, struct job *j, uint8_t *data)
{
    uint8_t head[NBD_REQUEST_BYTES];
    struct nbd_header *h = &j->header;

    if (s->ended)
        return false;
    if (!receive_all(s, head, sizeof head))
        return connection_end(s, SERVER_LOST);
    if (!nbd_request_get(head, h)) {
        err_set(&s->why, "what came is no request");
        return connection_end(s, SERVER_LOST);
    }
    if (h->command == NBD_DISCONNECT_NOW)
        return connection_end(s, SERVER_DISCONNECTED);
    j->error = nbd_request_check(h, s->image->bytes, s->image->read_only);
    if (h->command == NBD_WRITE) {
        if (h->length > NBD_LENGTH_MAX) {
            err_set(&s->why, "a write of %u bytes", h->length);
            return connection_end(s, SERVER_LOST);
        }
        if (!receive_all(s, data, h->length))
            return connection_end(s, SERVER_LOST);
    }
    ahead_choose(s, h);
    range_take(s, j);
    return true;
}

/* --- Quick ones ------------------------------------------------------------
 *
 * No other thread has to be woken for a write that only goes into memory, and
 * whoever waits for answers is woken once for several. */

/* What is not whole pages may have to be read before it is written. */
static bool may_be_quick(const struct nbd_header *h)
{
    return h->command == NBD_WRITE && !h->flags && h->length <= QUICK_BYTES &&
           (h->offset | h->length) % QUICK_UNIT == 0;
}

static bool is_ready(const struct server *s, const struct nbd_header *h)
{
    struct server_watch *w = s->watch;

    return may_be_quick(h) && clock_coarse_ns() >= s->quick_from_ns &&
           (!w || w->ready(w, h->offset, h->length));
}

/* All of the next request was received, and it is one, as it looks. */
static bool next_is_quick(const struct server *s)
{
    size_t there = s->ahead_end - s->ahead_at;
    struct nbd_header h;

    return there >= NBD_REQUEST_BYTES &&
           nbd_request_get(s->ahead + s->ahead_at, &h) &&
           there - NBD_REQUEST_BYTES >= h.length && is_ready(s, &h);
}

static void quick_do(struct server *s, struct job *j, uint8_t *data,
                     struct batch *b)
{
    uint64_t began = clock_coarse_ns();

    job_run(s, j, data);
    job_end(s, j);
    nbd_reply_put(b->reply[b->n++], j->header.handle, j->error);
    b->rest_until_ns = j->rest_until_ns;
    uint64_t now = clock_coarse_ns();
    if (now - began > QUICK_NS)
        s->quick_from_ns = now + NOT_QUICK_NS;
}

static void batch_answer(struct server *s, struct batch *b)
{
    struct iovec iov = {b->reply, b->n * NBD_REPLY_BYTES};

    if (b->n)
        (void)answer_send(s, &iov, 1);
    b->n = 0;
}

enum received { RECEIVED_END, RECEIVED_JOB, RECEIVED_REST };

/* The lock `receive` is held. Quick ones are done, until there is one that is
 * not, in j, or until their answers have to wait. What is not answered is in b,
 * with a job as well: the rare one that only looked quick. */
static enum received jobs_receive(struct server *s, struct job *j,
                                  uint8_t *data, struct batch *b)
{
    for (;;) {
        *j = (struct job){0};
        if (!job_read(s, j, data))
            return RECEIVED_END;
        if (j->error || !j->granted || (!b->n && !is_ready(s, &j->header)))
            return RECEIVED_JOB;
        quick_do(s, j, data, b);
        if (b->n < QUICK_MAX && next_is_quick(s))
            continue;
        if (b->rest_until_ns)
            return RECEIVED_REST;
        batch_answer(s, b);
    }
}

/* Pages of an unusually large request go back (Linux 5.18; else they stay). */
static void buffer_trim(uint8_t *buffer, uint32_t used)
{
    if (used > BUFFER_COMMON)
        madvise(buffer + BUFFER_COMMON, BUFFER_BYTES - BUFFER_COMMON,
                MADV_DONTNEED_LOCKED);
}

static void job_serve(struct server *s, struct job *j, uint8_t *data)
{
    range_wait(s, &j->range);
    job_run(s, j, data);
    job_end(s, j);
    if (j->rest_until_ns)
        s->watch->rest(s->watch, j->rest_until_ns);
    job_answer(s, j, data);
    if (j->header.command == NBD_READ || j->header.command == NBD_WRITE)
        buffer_trim(data, j->header.length);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct server *s = w->server;
    enum received what;

    do {
        struct batch b = {0};
        struct job j;
        pthread_mutex_lock(&s->receive);
        what = jobs_receive(s, &j, w->buffer, &b);
        pthread_mutex_unlock(&s->receive);
        if (what == RECEIVED_REST)
            s->watch->rest(s->watch, b.rest_until_ns);
        batch_answer(s, &b);
        if (what == RECEIVED_JOB)
            job_serve(s, &j, w->buffer);
    } while (what != RECEIVED_END);
    return NULL;
}

int server_run(struct server *s, int fd, enum server_end *end, struct err *why)
{
    unsigned started = 0;
    int rc = 0;

    s->fd = fd;
    s->ended = false;
    s->ahead_at = s->ahead_end = 0;
    s->ahead_want = AHEAD_BYTES;
    s->quick_from_ns = 0;
    err_clear(&s->why);
    while (started < s->workers && !rc) {
        rc = thread_start(&s->worker[started].thread, STACK_BYTES, worker_main,
                          &s->worker[started], "a worker", why);
        started += !rc;
    }
    if (rc)
        shutdown(fd, SHUT_RDWR); /* those that run see the end */
    for (unsigned i = 0; i < started; i++)
        pthread_join(s->worker[i].thread, NULL);
    if (rc)
        return -1;
    *end = s->end;
    *why = s->why;
    if (s->end == SERVER_DISCONNECTED && !s->image->read_only) {
        int error = image_flush(s->image);
        if (error)
            err_set(why, "the last sync: %s", strerror(error));
    }
    return 0;
}

void server_set_watch(struct server *s, struct server_watch *w)
{
    s->watch = w;
}

void server_hold(struct server *s, struct range *r)
{
    pthread_mutex_lock(&s->state);
    ranges_take(&s->ranges, r);
    pthread_mutex_unlock(&s->state);
    range_wait(s, r);
}

void server_give(struct server *s, struct range *r)
{
    pthread_mutex_lock(&s->state);
    if (ranges_give(&s->ranges, r))
        pthread_cond_broadcast(&s->granted);
    pthread_mutex_unlock(&s->state);
}

int server_read_still(struct server *s, uint64_t offset, void *p, uint32_t len,
                      bool *hole)
{
    struct range r = {.offset = offset, .length = len};

    server_hold(s, &r);
    *hole = image_is_hole(s->image, offset, len);
    int error = *hole ? 0 : image_read(s->image, offset, p, len);
    server_give(s, &r);
    return error;
}

void server_counts(struct server *s, struct server_counts *out)
{
    pthread_mutex_lock(&s->state);
    *out = s->counts;
    pthread_mutex_unlock(&s->state);
}

/* --- Life ----------------------------------------------------------------- */

static int buffer_get(struct worker *w, struct err *e)
{
    void *p = mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return err_sys(e, "buffers");
    w->buffer = p;
    memset(w->buffer, 0, BUFFER_COMMON);
    return 0;
}

int server_open(struct server **out, struct image *image, unsigned workers,
                struct err *e)
{
    if (!workers || workers > SERVER_WORKERS_MAX)
        return err_kind(e, ERR_USAGE, "%u workers, 1 to %d are possible",
                        workers, SERVER_WORKERS_MAX);
    struct server *s = calloc(1, sizeof *s);
    if (!s)
        return err_sys(e, "server");
    memset(s->ahead, 0xff, sizeof s->ahead); /* its pages are there */
    s->image = image;
    s->workers = workers;
    pthread_mutex_init(&s->receive, NULL);
    pthread_mutex_init(&s->send, NULL);
    pthread_mutex_init(&s->state, NULL);
    pthread_cond_init(&s->granted, NULL);
    for (unsigned i = 0; i < workers; i++) {
        s->worker[i].server = s;
        if (buffer_get(&s->worker[i], e)) {
            server_close(s);
            return -1;
        }
    }
    *out = s;
    return 0;
}

void server_close(struct server *s)
{
    if (!s)
        return;
    for (unsigned i = 0; i < s->workers; i++)
        if (s->worker[i].buffer)
            munmap(s->worker[i].buffer, BUFFER_BYTES);
    pthread_mutex_destroy(&s->receive);
    pthread_mutex_destroy(&s->send);
    pthread_mutex_destroy(&s->state);
    pthread_cond_destroy(&s->granted);
    free(s);
}
