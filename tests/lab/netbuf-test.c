// SPDX-License-Identifier: Apache-2.0
/* net-buffer on a real kernel, in the network of rawnet.h: raw frames go in at
 * the "guest" and are looked for on the outside. Needs root, ip, tc, bridge
 * and the kernel modules; run in the lab's dom0 by a scenario or by hand. TAP
 * output; an argument runs the tests that have it in their name. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "common/log.h"
#include "net-buffer/netbuf_priv.h"
#include "tests/lab/rawnet.h"

#define TAG "t7"

static struct checkpoint_device *d;

static struct device_load load_now(void)
{
    struct device_load l;

    CHECK(!d->ops->poll(d, &l, &err));
    return l;
}

/* A packet sent is a packet queued: veth delivers before send() returns, or
 * soon after. */
static bool holds(uint64_t packets)
{
    struct device_load l;

    for (int i = 0; i < 3000; i++) {
        if (d->ops->poll(d, &l, &err))
            return false;
        if (l.held_packets == packets)
            return receive(0, NULL) < 0;
        usleep(1000);
    }
    printf("# held %llu\n", (unsigned long long)l.held_packets);
    return false;
}

static bool epoch(uint64_t n)
{
    return !d->ops->mark(d, n, &err);
}
static bool commit(uint64_t n)
{
    return !d->ops->commit(d, n, &err);
}

static const char one[1][NETBUF_NAME_MAX] = {"v0"};
static const char two[2][NETBUF_NAME_MAX] = {"v0", "v1"};

static void up(const struct netbuf_limits *l)
{
    d = NULL;
    CHECK(!netbuf_open(TAG, l, &d, &err));
    CHECK(!netbuf_set_vifs(d, one, 1, &err));
    if (d->ops->setup(d, &err)) {
        printf("Bail out! setup: %s\n", err.text);
        exit(1);
    }
}

/* The kernel removes actions for good a little after their filter. */
static bool host_clean(void)
{
    return sh("! ip -o link show type ifb | grep -q ' " TAG "-'") == 0 &&
           sh("! tc qdisc show | grep -q ingress") == 0 &&
           sh("for i in $(seq 30); do tc actions ls action mirred | "
              "grep -q index || exit 0; sleep 0.1; done; exit 1") == 0;
}

static void down(bool release)
{
    d->ops->teardown(d, release);
    d->ops->teardown(d, release);
    d->ops->free(d);
    CHECK(host_clean());
    while (receive(0, NULL) >= 0)
        ;
}

/* Protection ends and begins again at once, on the same vif. */
static void it_can_be_set_up_again_at_once(void)
{
    for (uint32_t i = 0; i < 20; i++) {
        up(NULL);
        CHECK(epoch(1) && commit(1));
        send_all(0, 10 * i, 10 * i + 4);
        CHECK(holds(5));
        CHECK(epoch(2) && commit(2) && received(10 * i, 10 * i + 4));
        d->ops->teardown(d, i % 2);
        d->ops->free(d);
    }
    up(NULL);
    down(true);
}

static void every_protocol_passes_before_the_first_mark(void)
{
    static const uint16_t types[] = {0x0800, 0x86dd, 0x0806, 0x88b5, 0x8100};
    uint16_t type = 0;

    up(NULL);
    for (uint32_t i = 0; i < 5; i++) {
        CHECK(send_frame(0, types[i], i, 200));
        CHECK(receive(3000, &type) == i && type == types[i]);
    }
    CHECK(sh("bridge fdb show br hub | grep '02:00:00:00:00:01' | "
             "grep -q 'dev v0'") == 0);
    down(true);
}

static void every_protocol_is_held_after_it(void)
{
    static const uint16_t types[] = {0x0800, 0x86dd, 0x0806, 0x88b5, 0x8100};
    uint16_t type = 0;

    up(NULL);
    CHECK(epoch(1));
    for (uint32_t i = 0; i < 5; i++)
        CHECK(send_frame(0, types[i], i, 200));
    CHECK(holds(5));
    CHECK(commit(1));
    CHECK(holds(5)); /* they are epoch 2's */
    CHECK(epoch(2));
    CHECK(holds(5));
    CHECK(commit(2));
    for (uint32_t i = 0; i < 5; i++)
        CHECK(receive(3000, &type) == i && type == types[i]);
    down(true);
}

static void commit_releases_what_came_before_its_mark(void)
{
    up(NULL);
    CHECK(epoch(10) && commit(10));
    for (uint32_t i = 0; i < 20; i++) {
        send_all(0, 100 * i, 100 * i + 9);
        CHECK(holds(10)); /* or softirqs bring some after the mark */
        CHECK(epoch(11 + i));
        send_all(0, 100 * i + 10, 100 * i + 19);
        CHECK(holds(20));
        CHECK(commit(11 + i));
        CHECK(received(100 * i, 100 * i + 9));
        CHECK(holds(10));
        CHECK(epoch(1000 + i) && commit(1000 + i));
        CHECK(received(100 * i + 10, 100 * i + 19));
    }
    down(true);
}

static void wrong_orders_are_refused(void)
{
    up(NULL);
    CHECK(d->ops->commit(d, 1, &err));
    CHECK(epoch(1));
    CHECK(d->ops->mark(d, 2, &err));
    CHECK(d->ops->commit(d, 2, &err));
    CHECK(commit(1) && commit(1));
    err_clear(&err);
    down(true);
}

static void overflow_drops_the_newest_and_counts(void)
{
    struct netbuf_limits l = {.hold_bytes_max = 10 * 1000, .early_packets = 5};

    up(&l);
    CHECK(epoch(1) && commit(1));
    for (uint32_t i = 0; i < 15; i++)
        send_frame(0, 0x0800, i, 1000);
    CHECK(holds(10));
    for (int i = 0; i < 500 && load_now().dropped_packets < 5; i++)
        usleep(10000);
    CHECK(load_now().dropped_packets == 5);
    CHECK(load_now().held_bytes == 10000 && load_now().want_epoch);
    CHECK(epoch(2));
    CHECK(!load_now().want_epoch);
    CHECK(commit(2) && received(0, 9));
    CHECK(load_now().dropped_packets == 5);
    down(true);
}

static void a_hotplugged_vif_is_held_too(void)
{
    up(NULL);
    CHECK(epoch(1));
    send_all(0, 0, 4);
    CHECK(!netbuf_set_vifs(d, two, 2, &err));
    send_all(1, 5, 9);
    CHECK(holds(10));
    CHECK(commit(1) && holds(10));
    CHECK(epoch(2) && commit(2));
    for (int i = 0; i < 10; i++)
        CHECK(receive(3000, NULL) >= 0);
    send_all(1, 20, 24);
    CHECK(holds(5));
    CHECK(!netbuf_set_vifs(d, one, 1, &err)); /* unplugged: dropped */
    CHECK(holds(0));
    CHECK(sh("! tc qdisc show dev v1 | grep -q ingress") == 0);
    CHECK(sh("! ip link show " TAG "-1a 2>/dev/null") == 0);
    down(true);
}

static void a_vif_that_vanishes_ends_no_epoch(void)
{
    struct device_load l;

    up(NULL);
    CHECK(!netbuf_set_vifs(d, two, 2, &err));
    CHECK(epoch(1) && commit(1));
    send_all(1, 0, 4);
    send_all(0, 10, 14);
    CHECK(holds(10));
    close(guest[1]);
    sh("ip link del v1");
    CHECK(epoch(2) && d->ops->poll(d, &l, &err) && err.kind == ERR_GONE);
    CHECK(l.held_packets == 5);
    CHECK(commit(2) && received(10, 14));
    make_pair(1); /* again, under the same name */
    CHECK(!netbuf_set_vifs(d, two, 2, &err));
    send_all(1, 20, 24);
    CHECK(holds(5));
    CHECK(epoch(3) && commit(3) && received(20, 24));
    down(true);
}

static void abort_releases_all_in_order_and_stops_holding(void)
{
    up(NULL);
    CHECK(epoch(1) && commit(1));
    send_all(0, 0, 249);
    CHECK(epoch(2));
    send_all(0, 250, 499);
    CHECK(holds(500));
    CHECK(!d->ops->abort(d, true, &err));
    CHECK(received(0, 499));
    send_all(0, 1000, 1004);
    CHECK(received(1000, 1004));
    CHECK(epoch(3)); /* and again */
    send_all(0, 2000, 2004);
    CHECK(holds(5) && commit(3) && holds(5));
    CHECK(!d->ops->abort(d, true, &err) && received(2000, 2004));
    down(true);
}

static void abort_without_release_drops_and_holds_on(void)
{
    up(NULL);
    CHECK(epoch(1));
    send_all(0, 0, 4);
    CHECK(holds(5));
    CHECK(!d->ops->abort(d, false, &err));
    CHECK(holds(0));
    send_all(0, 5, 9);
    CHECK(holds(5));
    CHECK(epoch(2) && commit(2) && received(5, 9));
    down(false);
}

static void teardown_releases_all_in_order(void)
{
    up(NULL);
    CHECK(epoch(1) && commit(1));
    send_all(0, 0, 249);
    CHECK(epoch(2));
    send_all(0, 250, 499);
    CHECK(holds(500));
    d->ops->teardown(d, true);
    CHECK(received(0, 499));
    send_all(0, 5000, 5001);
    CHECK(received(5000, 5001));
    down(true);
}

/* In a child that is killed, as a crash of the agent is. */
static void crash_after(void (*what)(void))
{
    pid_t pid = fork();
    int status;

    if (!pid) {
        failures = 0;
        what();
        fflush(stdout);
        if (failures)
            _exit(1);
        raise(SIGKILL);
    }
    waitpid(pid, &status, 0);
    CHECK(WIFSIGNALED(status));
}

static void life_with_two_epochs(void)
{
    up(NULL);
    CHECK(epoch(40) && commit(40));
    send_all(0, 0, 4);
    CHECK(holds(5) && epoch(41));
    send_all(0, 5, 9);
    CHECK(holds(10));
}

static void life_before_the_first_mark(void)
{
    up(NULL);
}

static bool adopted(int vifs, bool holding, uint64_t n)
{
    struct netbuf *b = (struct netbuf *)(void *)d;

    return !netbuf_adopt(b, &err) && b->n == vifs && b->holding == holding &&
           b->marked_epoch == n;
}

static void adopt_keeps_holding_until_told(void)
{
    for (int how = 0; how < 3; how++) {
        crash_after(life_with_two_epochs);
        CHECK(receive(0, NULL) < 0);
        CHECK(!netbuf_open(TAG, NULL, &d, &err));
        CHECK(adopted(1, true, 41));
        CHECK(!netbuf_set_vifs(d, one, 1, &err) && !d->ops->setup(d, &err));
        send_all(0, 10, 14);
        CHECK(holds(15));
        if (how == 0) {
            CHECK(!d->ops->abort(d, true, &err) && received(0, 14));
            send_all(0, 15, 15);
            CHECK(received(15, 15));
        } else if (how == 1) {
            CHECK(commit(41) && received(0, 4) && holds(10));
            CHECK(epoch(42) && commit(42) && received(5, 14));
        }
        down(how != 2);
    }
}

static void adopt_before_the_first_mark_lets_flow(void)
{
    crash_after(life_before_the_first_mark);
    CHECK(!netbuf_open(TAG, NULL, &d, &err));
    CHECK(adopted(1, false, 0));
    send_all(0, 0, 4);
    CHECK(received(0, 4));
    down(true);
}

/* Among those of as many VMs as a host may have. */
static void leftovers_are_refused_then_cleaned(void)
{
    sh("for i in $(seq 64); do ip link add m$i-0a type ifb; done");
    crash_after(life_with_two_epochs);
    CHECK(netbuf_left(TAG, &err) == 1);
    CHECK(!netbuf_open("x1", NULL, &d, &err));
    CHECK(!netbuf_set_vifs(d, one, 1, &err));
    CHECK(d->ops->setup(d, &err) && err.kind == ERR_REFUSED);
    d->ops->free(d);
    CHECK(!netbuf_cleanup_leftovers(TAG, true, &err));
    CHECK(received(0, 9));
    CHECK(host_clean());
    CHECK(!netbuf_left(TAG, &err) &&
          !netbuf_cleanup_leftovers(TAG, true, &err));
    sh("for i in $(seq 64); do ip link del m$i-0a; done");
}

static void leftovers_of_a_dead_guest_are_cleaned(void)
{
    crash_after(life_with_two_epochs);
    close(guest[0]);
    sh("ip link del v0");
    CHECK(!netbuf_cleanup_leftovers(TAG, true, &err));
    CHECK(host_clean());
    make_pair(0);
}

static void foreign_rules_are_refused_by_name(void)
{
    static const char *const rules[] = {
        "tc qdisc add dev v0 handle ffff: ingress; tc filter add dev v0 "
        "parent ffff: protocol ip matchall action pass",
        "tc qdisc add dev v0 clsact",
    };

    for (int i = 0; i < 2; i++) {
        sh("%s", rules[i]);
        CHECK(!netbuf_open(TAG, NULL, &d, &err));
        CHECK(!netbuf_set_vifs(d, one, 1, &err));
        CHECK(d->ops->setup(d, &err) && err.kind == ERR_REFUSED);
        CHECK(strstr(err.text, "v0"));
        d->ops->free(d);
        CHECK(sh("tc qdisc show dev v0 | grep -Eq 'ingress|clsact'") == 0);
        sh("tc qdisc del dev v0 %s", i ? "clsact" : "ingress");
        CHECK(host_clean());
    }
    /* An empty one does nothing; a start of ours that was cut short leaves
     * it. */
    sh("tc qdisc add dev v0 handle ffff: ingress");
    up(NULL);
    down(true);
}

static void a_removed_filter_is_noticed_and_mended(void)
{
    struct device_load l;

    up(NULL);
    CHECK(epoch(1) && commit(1));
    sh("tc filter del dev v0 parent ffff:");
    /* The kernel removes it for good a little later. */
    for (int i = 0; i < 3000 && !d->ops->poll(d, &l, &err); i++)
        usleep(1000);
    CHECK(d->ops->poll(d, &l, &err));
    printf("# %s (%s)\n", err.text, err.hint);
    CHECK(d->ops->mark(d, 2, &err));
    CHECK(!netbuf_set_vifs(d, one, 1, &err));
    send_all(0, 0, 4);
    CHECK(holds(5));
    CHECK(epoch(2) && commit(2) && received(0, 4));
    sh("ip link del " TAG "-0a; ip link del " TAG "-0b");
    send_frame(0, 0x0800, 1, 100);
    CHECK(d->ops->poll(d, &l, &err));
    CHECK(receive(100, NULL) < 0); /* dropped, not leaked */
    down(true);
}

static void check_says_yes_and_cleans_up_after_the_dead(void)
{
    pid_t pid = fork();

    if (!pid)
        _exit(0);
    waitpid(pid, NULL, 0);
    for (int i = 0; i < 4; i++)
        sh("ip link add c%x-%d%c type ifb; ip link add c%x-%d%c type ifb", pid,
           i / 2, "ab"[i % 2], getpid(), i / 2, "ab"[i % 2]);
    CHECK(!netbuf_check_sweep(&err));
    CHECK(sh("! ip link show c%x-1a 2>/dev/null", pid) == 0);
    CHECK(sh("ip link show c%x-1a", getpid()) == 0);
    for (int i = 0; i < 4; i++)
        sh("ip link del c%x-%d%c", getpid(), i / 2, "ab"[i % 2]);
    CHECK(!netbuf_check(&err) && host_clean());
}

/* A guest that sends without end, also during the marks: nothing sent after a
 * mark is seen before the next commit, nothing is lost or doubled, all is in
 * order unless a commit was left before all was out (netbuf.h). */
static atomic_uint sent, allowed;
static atomic_bool stop;

static void *flood(void *arg)
{
    (void)arg;
    while (!atomic_load(&stop)) {
        uint32_t s = atomic_fetch_add(&sent, 1);

        while (!send_frame(0, 0x0800, s, 200))
            sched_yield();
        if (s % 16 == 0)
            usleep(200);
    }
    return NULL;
}

static uint32_t leaked, doubled, unordered, next, got;

static void *watch(void *arg)
{
    static uint8_t seen[1u << 24];
    int64_t s;

    (void)arg;
    for (; (s = receive(5000, NULL)) >= 0; got++) {
        leaked += s >= atomic_load(&allowed);
        unordered += s != next;
        next = (uint32_t)s + 1;
        doubled += seen[s % (int64_t)sizeof seen]++;
    }
    return NULL;
}

static void a_flood_never_leaks(void)
{
    uint64_t end = clock_ns() + 5 * NS_PER_SEC;
    pthread_t f, w;
    uint64_t n = 0;
    bool late = false;

    up(NULL);
    CHECK(epoch(++n) && commit(n));
    pthread_create(&w, NULL, watch, NULL);
    pthread_create(&f, NULL, flood, NULL);
    while (clock_ns() < end) {
        usleep((useconds_t)(n % 7) * 1000);
        if (!epoch(++n)) {
            fail(__LINE__, "mark");
            break;
        }
        uint32_t boundary = atomic_load(&sent);
        usleep((useconds_t)(n % 5) * 500);
        atomic_store(&allowed, boundary);
        uint64_t since = clock_ns();
        CHECK(commit(n));
        late |= clock_ns() - since >= COMMIT_DRAIN_NS;
    }
    atomic_store(&stop, true);
    pthread_join(f, NULL);
    atomic_store(&allowed, UINT32_MAX);
    CHECK(epoch(++n) && commit(n));
    pthread_join(w, NULL);
    printf("# %llu epochs, %u packets, %u not in order\n",
           (unsigned long long)n, atomic_load(&sent), unordered);
    CHECK(leaked == 0);
    CHECK(got == atomic_load(&sent) && doubled == 0);
    CHECK(unordered == 0 || late);
    CHECK(load_now().dropped_packets == 0);
    down(true);
}

static void latencies(void)
{
    enum { N = 500 };
    static uint64_t m[N], c[N], p[N];

    up(NULL);
    CHECK(epoch(1) && commit(1));
    for (uint32_t i = 0; i < N; i++) {
        uint64_t t0, t1, t2, t3;

        send_all(0, i * 10, i * 10 + 9);
        CHECK(holds(10));
        t0 = clock_ns();
        CHECK(epoch(i + 2));
        t1 = clock_ns();
        CHECK(commit(i + 2));
        t2 = clock_ns();
        load_now();
        t3 = clock_ns();
        m[i] = t1 - t0;
        c[i] = t2 - t1;
        p[i] = t3 - t2;
        CHECK(received(i * 10, i * 10 + 9));
    }
    show("mark", m, N);
    show("commit of 10 packets", c, N);
    show("poll", p, N);
    down(true);
}

static const char *only; /* part of a name: run the tests that have it */

static void run(const char *name, void (*test)(void))
{
    int before = failures;
    uint64_t start = clock_ns();

    if (only && !strstr(name, only))
        return;
    err_clear(&err);
    test();
    printf("%sok %d - %s\n# %llu ms\n", failures > before ? "not " : "",
           ++count, name,
           (unsigned long long)((clock_ns() - start) / NS_PER_MS));
    fflush(stdout);
}
#define RUN(t) run(#t, t)

int main(int argc, char **argv)
{
    only = argc > 1 ? argv[1] : NULL;
    log_setup("netbuf-test", LOG_WARN);
    build_network();
    wait_for_bridge();
    RUN(check_says_yes_and_cleans_up_after_the_dead);
    RUN(every_protocol_passes_before_the_first_mark);
    RUN(every_protocol_is_held_after_it);
    RUN(commit_releases_what_came_before_its_mark);
    RUN(wrong_orders_are_refused);
    RUN(overflow_drops_the_newest_and_counts);
    RUN(a_hotplugged_vif_is_held_too);
    RUN(a_vif_that_vanishes_ends_no_epoch);
    RUN(abort_releases_all_in_order_and_stops_holding);
    RUN(abort_without_release_drops_and_holds_on);
    RUN(teardown_releases_all_in_order);
    RUN(it_can_be_set_up_again_at_once);
    RUN(adopt_keeps_holding_until_told);
    RUN(adopt_before_the_first_mark_lets_flow);
    RUN(leftovers_are_refused_then_cleaned);
    RUN(leftovers_of_a_dead_guest_are_cleaned);
    RUN(foreign_rules_are_refused_by_name);
    RUN(a_removed_filter_is_noticed_and_mended);
    RUN(a_flood_never_leaks);
    RUN(latencies);
    printf("1..%d\n", count);
    return failures != 0;
}
