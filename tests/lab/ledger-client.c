// SPDX-License-Identifier: Apache-2.0
//
// The outside client of the lab. Connects once to the guest's ledger service,
// sends numbered requests with fresh nonces at a given rate, checks every
// answer, and never connects again: a lost connection is a failure. At the end
// it can fetch the ledger and look for each answered nonce. Results are JSON on
// standard output. One thread, one poll loop.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LEDGER_PORT 7000
#define DUMP_PORT   7001
#define NS_PER_S    1000000000LL
#define NS_PER_MS   1000000LL
#define STATUS_NS   (200 * NS_PER_MS)

struct sent {
    uint64_t nonce;
    int64_t sent_ns;    // monotonic
    int64_t latency_ns; // -1: no answer yet
};

static struct {
    const char *host;
    double rate_per_s;
    double for_s; // 0: until SIGTERM
    double timeout_s;
    const char *log_path;
    const char *status_path;
    const char *verify_host;
    bool shared; // others write to the ledger too
} opt = {.rate_per_s = 20, .timeout_s = 300};

static struct {
    struct sent *sent; // request of sequence n is at n - 1
    size_t sent_count, sent_room;
    uint64_t answered;
    uint64_t doubled;
    uint64_t last_count; // the ledger's, from the last answer
    int64_t last_ns;     // monotonic: last answer, or the start
    int64_t last_wall_ns;
    int64_t gap_ns, gap_wall_ns; // longest, and when it began
    uint64_t connection_errors;
    uint64_t missing, repeated; // found when the ledger was read
    int64_t verified;           // ours that are in it; -1: it was not read
    char error[200];            // first failure
} st = {.verified = -1};

static volatile sig_atomic_t stopping;
static FILE *log_file;

static void on_signal(int sig)
{
    (void)sig;
    stopping = 1;
}

static int64_t clock_ns(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

static int64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

// The first failure is the one that tells.
static bool __attribute__((format(printf, 1, 2))) fail(const char *fmt, ...)
{
    va_list ap;

    if (!st.error[0]) {
        va_start(ap, fmt);
        vsnprintf(st.error, sizeof st.error, fmt, ap);
        va_end(ap);
    }
    return false;
}

// Notes how long nothing came.
static void gap_note(int64_t now)
{
    if (now - st.last_ns > st.gap_ns) {
        st.gap_ns = now - st.last_ns;
        st.gap_wall_ns = st.last_wall_ns;
    }
}

static void arrived(int64_t now)
{
    gap_note(now);
    st.last_ns = now;
    st.last_wall_ns = clock_ns(CLOCK_REALTIME);
}

static double seconds(int64_t ns)
{
    return (double)ns / (double)NS_PER_S;
}

static double ms(int64_t ns)
{
    return (double)ns / (double)NS_PER_MS;
}

// --- results ---

static int compare_ns(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static void print_latency(FILE *f)
{
    int64_t *all = calloc(st.sent_count + 1, sizeof *all);
    size_t n = 0;

    if (!all)
        return;
    for (size_t i = 0; i < st.sent_count; i++)
        if (st.sent[i].latency_ns >= 0)
            all[n++] = st.sent[i].latency_ns;
    qsort(all, n, sizeof *all, compare_ns);
    if (n)
        fprintf(f, ", \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f",
                ms(all[n / 2]), ms(all[n * 99 / 100]), ms(all[n - 1]));
    free(all);
}

static void print_gap(FILE *f)
{
    fprintf(f, ", \"longest_gap_ms\": %.3f, \"longest_gap_start\": %.3f",
            ms(st.gap_ns), seconds(st.gap_wall_ns));
}

// Error texts are ours and strerror's: no quotes in them.
static void print_error(FILE *f)
{
    fprintf(f, ", \"ok\": %s, \"error\": \"%s\"",
            st.error[0] ? "false" : "true", st.error);
}

static void print_results(void)
{
    printf("{\"sent\": %zu, \"answered\": %" PRIu64 ", \"lost\": %" PRIu64
           ", \"doubled\": %" PRIu64 ", \"connection_errors\": %" PRIu64,
           st.sent_count, st.answered, st.sent_count - st.answered, st.doubled,
           st.connection_errors);
    print_gap(stdout);
    print_latency(stdout);
    if (st.verified >= 0)
        printf(", \"verified\": %" PRId64 ", \"missing\": %" PRIu64
               ", \"repeated\": %" PRIu64,
               st.verified, st.missing, st.repeated);
    print_error(stdout);
    puts("}");
}

// Rewritten whole, so that a reader sees one state or the other.
static void status_write(const char *state)
{
    char tmp[4096];
    FILE *f;

    if (!opt.status_path)
        return;
    snprintf(tmp, sizeof tmp, "%s.tmp", opt.status_path);
    f = fopen(tmp, "w");
    if (!f)
        return;
    fprintf(f,
            "{\"pid\": %d, \"state\": \"%s\", \"sent\": %zu"
            ", \"answered\": %" PRIu64 ", \"last_answer\": %.3f",
            (int)getpid(), state, st.sent_count, st.answered,
            seconds(st.last_wall_ns));
    print_gap(f);
    print_error(f);
    fputs("}\n", f);
    fclose(f);
    rename(tmp, opt.status_path);
}

static void status_tick(int64_t now)
{
    static int64_t next;

    if (now < next)
        return;
    next = now + STATUS_NS;
    status_write("running");
    if (log_file)
        fflush(log_file);
}

// --- the ledger ---

static bool address(const char *host, uint16_t port,
                    struct sockaddr_storage *to, socklen_t *bytes)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)to;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)to;

    memset(to, 0, sizeof *to);
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        *bytes = sizeof *v4;
        return true;
    }
    if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        *bytes = sizeof *v6;
        return true;
    }
    return fail("%s is no address", host);
}

static int connection(const char *host, uint16_t port)
{
    struct sockaddr_storage to;
    socklen_t bytes = 0;
    struct timeval limit = {.tv_sec = (time_t)opt.timeout_s + 1};
    int one = 1, fd;

    if (!address(host, port, &to, &bytes))
        return -1;
    fd = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, bytes) < 0) {
        fail("connect to %s port %u: %s", host, port, strerror(errno));
        st.connection_errors++;
        if (fd >= 0)
            close(fd);
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static uint64_t fresh_nonce(void)
{
    uint64_t nonce;

    if (getrandom(&nonce, sizeof nonce, 0) != sizeof nonce)
        abort();
    return nonce;
}

static bool request_send(int fd)
{
    struct sent *s;
    char line[64];
    int n;

    if (st.sent_count == st.sent_room) {
        st.sent_room = st.sent_room ? st.sent_room * 2 : 1024;
        st.sent = reallocarray(st.sent, st.sent_room, sizeof *st.sent);
        if (!st.sent)
            abort();
    }
    s = &st.sent[st.sent_count++];
    *s = (struct sent){fresh_nonce(), now_ns(), -1};
    n = snprintf(line, sizeof line, "%zu %016" PRIx64 "\n", st.sent_count,
                 s->nonce);
    if (send(fd, line, (size_t)n, MSG_NOSIGNAL) == n)
        return true;
    st.connection_errors++;
    return fail("send: %s", strerror(errno));
}

static bool answer_check(uint64_t seq, uint64_t count, uint64_t nonce)
{
    if (seq && seq <= st.answered) {
        st.doubled++;
        return fail("answer %" PRIu64 " came twice", seq);
    }
    if (seq != st.answered + 1 || seq > st.sent_count)
        return fail("answer %" PRIu64 " instead of %" PRIu64, seq,
                    st.answered + 1);
    if (nonce != st.sent[seq - 1].nonce)
        return fail("answer %" PRIu64 " has another nonce", seq);
    if (st.answered &&
        (count <= st.last_count || (!opt.shared && count != st.last_count + 1)))
        return fail("answer %" PRIu64 " has count %" PRIu64 " after %" PRIu64,
                    seq, count, st.last_count);
    return true;
}

static bool answer(const char *line)
{
    uint64_t seq, count, nonce;
    int64_t now = now_ns();
    struct sent *s;
    char rest;

    if (sscanf(line, "%" SCNu64 " %" SCNu64 " %" SCNx64 "%c", &seq, &count,
               &nonce, &rest) != 3)
        return fail("an answer makes no sense");
    if (!answer_check(seq, count, nonce))
        return false;
    s = &st.sent[seq - 1];
    s->latency_ns = now - s->sent_ns;
    st.answered++;
    st.last_count = count;
    arrived(now);
    if (log_file)
        fprintf(log_file, "%.6f %" PRIu64 " %" PRIu64 " %016" PRIx64 " %.3f\n",
                seconds(st.last_wall_ns), seq, count, nonce, ms(s->latency_ns));
    return true;
}

static bool answers_read(int fd)
{
    static char in[65536];
    static size_t in_bytes;
    char *at = in, *end;
    ssize_t n = recv(fd, in + in_bytes, sizeof in - in_bytes, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n <= 0) {
        st.connection_errors++;
        return fail("connection lost: %s", n ? strerror(errno) : "closed");
    }
    in_bytes += (size_t)n;
    while ((end = memchr(at, '\n', in_bytes - (size_t)(at - in)))) {
        *end = '\0';
        if (!answer(at))
            return false;
        at = end + 1;
    }
    in_bytes -= (size_t)(at - in);
    memmove(in, at, in_bytes);
    return in_bytes < sizeof in || fail("an answer without end");
}

static bool all_answered(void)
{
    return st.answered == st.sent_count;
}

static bool too_late(int64_t now)
{
    return !all_answered() &&
           seconds(now - st.sent[st.answered].sent_ns) > opt.timeout_s;
}

static void poll_until(int fd, int64_t until)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int64_t left = until - now_ns();
    struct timespec ts = {.tv_sec = left / NS_PER_S,
                          .tv_nsec = left % NS_PER_S};

    if (left > 0)
        ppoll(&p, 1, &ts, NULL);
}

// Sends at the rate until the end, whatever was answered; then waits for the
// rest.
static void ledger_run(int fd)
{
    int64_t start = now_ns(), next = start, now;
    int64_t end = opt.for_s > 0
                      ? start + (int64_t)(opt.for_s * (double)NS_PER_S)
                      : INT64_MAX;
    int64_t period = (int64_t)((double)NS_PER_S / opt.rate_per_s);
    bool sending = true;

    for (;;) {
        now = now_ns();
        sending = sending && !stopping && now < end;
        if (!sending && all_answered())
            return;
        if (too_late(now)) {
            fail("no answer to %" PRIu64 " for %.0f s", st.answered + 1,
                 opt.timeout_s);
            return;
        }
        if (sending && now >= next) {
            if (!request_send(fd))
                return;
            next += period;
        }
        status_tick(now);
        poll_until(fd, sending ? next : now + 50 * NS_PER_MS);
        if (!answers_read(fd))
            return;
    }
}

// --- verification ---

static int compare_nonce(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

// Fetches the ledger's nonces, sorted; the caller frees them.
static bool ledger_fetch(uint64_t **all, size_t *count)
{
    uint64_t index, nonce;
    size_t room = 0;
    int fd = connection(opt.verify_host, DUMP_PORT);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "r");

    if (!f)
        return false;
    while (fscanf(f, "%" SCNu64 " %" SCNx64, &index, &nonce) == 2) {
        if (*count == room) {
            room = room ? room * 2 : 1024;
            *all = reallocarray(*all, room, sizeof **all);
            if (!*all)
                abort();
        }
        (*all)[(*count)++] = nonce;
        if (index != *count)
            fail("ledger index %" PRIu64 " instead of %zu", index, *count);
    }
    fclose(f);
    if (*count)
        qsort(*all, *count, sizeof **all, compare_nonce);
    return true;
}

// How often it is in the sorted array.
static size_t occurrences(const uint64_t *all, size_t count, uint64_t nonce)
{
    size_t low = 0, high = count, n = 0;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (all[mid] < nonce)
            low = mid + 1;
        else
            high = mid;
    }
    while (low + n < count && all[low + n] == nonce)
        n++;
    return n;
}

// Each answered nonce is in the ledger exactly once, others at most once.
static void verify(void)
{
    size_t count = 0, n;
    uint64_t *all = NULL;

    if (!ledger_fetch(&all, &count))
        return;
    st.verified = 0;
    for (size_t i = 0; i < st.sent_count; i++) {
        n = occurrences(all, count, st.sent[i].nonce);
        st.verified += n == 1;
        st.repeated += n > 1;
        st.missing += n == 0 && st.sent[i].latency_ns >= 0;
    }
    free(all);
    if (st.missing || st.repeated)
        fail("ledger: %" PRIu64 " missing, %" PRIu64 " repeated", st.missing,
             st.repeated);
}

// --- main ---

static const char usage_text[] =
    "usage: ledger-client [OPTION...] ADDRESS\n"
    "  --rate N[/s]     requests a second (20)\n"
    "  --for SECONDS    how long to send; without it until SIGTERM\n"
    "  --timeout S      give up on an answer after so long (300)\n"
    "  --shared         others write to the ledger too\n"
    "  --verify ADDRESS fetch the ledger at the end and look for every nonce\n"
    "  --log FILE       a line an answer: time, sequence, count, nonce, ms\n"
    "  --status FILE    what there is so far as JSON, rewritten each 200 ms\n"
    "exit status: 0 all well, 1 not so, 2 usage\n";

static const struct option options[] = {
    {"rate", required_argument, NULL, 'r'},
    {"for", required_argument, NULL, 'f'},
    {"timeout", required_argument, NULL, 't'},
    {"shared", no_argument, NULL, 'S'},
    {"verify", required_argument, NULL, 'v'},
    {"log", required_argument, NULL, 'l'},
    {"status", required_argument, NULL, 's'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static void usage(FILE *f, int status)
{
    fputs(usage_text, f);
    exit(status);
}

static void option_take(int c)
{
    switch (c) {
    case 'r':
        opt.rate_per_s = atof(optarg);
        break;
    case 'f':
        opt.for_s = atof(optarg);
        break;
    case 't':
        opt.timeout_s = atof(optarg);
        break;
    case 'S':
        opt.shared = true;
        break;
    case 'v':
        opt.verify_host = optarg;
        break;
    case 'l':
        opt.log_path = optarg;
        break;
    case 's':
        opt.status_path = optarg;
        break;
    case 'h':
        usage(stdout, 0);
        break;
    default:
        usage(stderr, 2);
    }
}

static void options_take(int argc, char **argv)
{
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
        option_take(c);
    if (argc - optind != 1)
        usage(stderr, 2);
    if (opt.rate_per_s <= 0 || opt.timeout_s <= 0 || opt.for_s < 0)
        usage(stderr, 2);
    opt.host = argv[optind];
}

static void signals_take(void)
{
    struct sigaction sa = {.sa_handler = on_signal};

    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
}

int main(int argc, char **argv)
{
    int fd;

    options_take(argc, argv);
    signals_take();
    if (opt.log_path && !(log_file = fopen(opt.log_path, "w"))) {
        perror(opt.log_path);
        return 1;
    }
    st.last_ns = now_ns();
    st.last_wall_ns = clock_ns(CLOCK_REALTIME);
    fd = connection(opt.host, LEDGER_PORT);
    if (fd >= 0)
        ledger_run(fd);
    if (!all_answered())
        gap_note(now_ns());
    if (opt.verify_host)
        verify();
    status_write(st.error[0] ? "failed" : "done");
    print_results();
    return st.error[0] ? 1 : 0;
}
