// SPDX-License-Identifier: Apache-2.0
/* A primary and a backup in one process; see pair.h. */
#include "tests/lib/pair.h"
#include "common/clock.h"
#include "common/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define QUEUE_MAX  64
#define PATIENCE_S 60 /* TEST_PATIENCE is another one */

#define peek(p)   __atomic_load_n(p, __ATOMIC_SEQ_CST)
#define put(p, v) __atomic_store_n(p, v, __ATOMIC_SEQ_CST)

enum item_kind { ITEM_RECORD, ITEM_ACK, ITEM_LOST };

struct pair_item {
    struct pair_item *next;
    enum item_kind kind;
    uint64_t session, epoch;
    enum epoch_record type;
    size_t len;
    uint8_t payload[];
};

static uint64_t rnd(struct pair *p)
{
    p->seed ^= p->seed << 13;
    p->seed ^= p->seed >> 7;
    return p->seed ^= p->seed << 17;
}

static void complain(struct pair *p, const char *what, const char *why)
{
    pthread_mutex_lock(&p->lock);
    if (!p->complaint[0])
        snprintf(p->complaint, sizeof p->complaint, "%s: %s", what, why);
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

/* --- The session ---------------------------------------------------------- */

/* The lock is held. */
static void item_add(struct pair *p, enum item_kind kind, uint64_t epoch,
                     enum epoch_record type, const void *payload, size_t len)
{
    struct pair_item *i = malloc(sizeof *i + len);

    if (!i)
        abort();
    *i = (struct pair_item){NULL, kind, p->session, epoch, type, len};
    if (len)
        memcpy(i->payload, payload, len);
    if (!p->first)
        p->last = &p->first;
    *p->last = i;
    p->last = &i->next;
    p->queued++;
    pthread_cond_broadcast(&p->changed);
}

/* The lock is held. What is still on its way arrives, or the tail of it is
 * lost. */
static void session_cut(struct pair *p)
{
    size_t keep = rnd(p) % (p->queued + 1);
    struct pair_item **at = &p->first;

    for (; keep && *at; keep--)
        at = &(*at)->next;
    while (*at) {
        struct pair_item *i = *at;
        if (i->kind == ITEM_LOST) {
            at = &i->next;
            continue;
        }
        *at = i->next;
        free(i);
        p->queued--;
    }
    p->last = at;
    p->up = false;
    p->cuts++;
    item_add(p, ITEM_LOST, 0, 0, NULL, 0);
}

static bool chance_cut(struct pair *p)
{
    if (!p->up || !p->cut_one_in || rnd(p) % p->cut_one_in)
        return false;
    session_cut(p);
    return true;
}

/* As docs/epoch-format.md has it: the first PAGES of an epoch are number 0,
 * flag 1 is live. */
static void pages_count(struct pair *p, const uint8_t *payload)
{
    if (payload[12] & 1)
        return;
    if (get_le32(payload + 8) == 0)
        p->epoch_pages = 0;
    p->epoch_pages += get_le32(payload + 16);
    if (p->epoch_pages > p->most_pages)
        p->most_pages = p->epoch_pages;
}

static int sink_send(void *arg, uint64_t session, enum epoch_record type,
                     const void *payload, size_t len, struct err *e)
{
    struct pair *p = arg;
    int rc = 0;

    if (peek(&p->sluggish))
        usleep(10000);
    if (peek(&p->stuck)) {
        usleep(20000);
        return err_kind(e, ERR_TIMEOUT, "there is no room");
    }
    pthread_mutex_lock(&p->lock);
    while (p->up && p->session == session && p->queued >= QUEUE_MAX)
        pthread_cond_wait(&p->changed, &p->lock);
    if (p->up && p->session == session) {
        item_add(p, ITEM_RECORD, 0, type, payload, len);
        p->records++;
        if (type == EPOCH_PAGES)
            pages_count(p, payload);
        chance_cut(p);
    } else {
        rc = err_set(e, "session %lu is over", session);
    }
    pthread_mutex_unlock(&p->lock);
    return rc;
}

/* --- The observer ----------------------------------------------------------
 */

static void shell_check(struct pair *p, uint64_t epoch)
{
    const struct buf *state = &p->states[epoch % 4];
    struct err e = ERR_INIT;
    char what[64];

    snprintf(what, sizeof what, "replica of epoch %lu", epoch);
    if (fake_oracle_check(p->oracle, &p->shell_map, state->data, state->len,
                          &e))
        complain(p, what, e.text);
}

/* Apply thread: `epoch` is committed, `applied` is in the shell. */
static void replica_acks(void *arg, uint64_t epoch, uint64_t applied,
                         uint64_t disks)
{
    struct pair *p = arg;

    (void)disks;
    if (applied != epoch - 1)
        complain(p, "ack", "before the last epoch was applied");
    if (applied)
        shell_check(p, applied);
    pthread_mutex_lock(&p->lock);
    if (p->up && !p->swallow_acks) {
        item_add(p, ITEM_ACK, epoch, 0, NULL, 0);
        chance_cut(p);
    }
    pthread_mutex_unlock(&p->lock);
}

static struct pair_device *device_of(struct checkpoint_device *d)
{
    return (struct pair_device *)(void *)d;
}

static int device_setup(struct checkpoint_device *d, struct err *e)
{
    (void)e;
    put(&device_of(d)->set_up, true);
    return 0;
}

static int device_mark(struct checkpoint_device *d, uint64_t epoch,
                       struct err *e)
{
    struct pair_device *v = device_of(d);
    struct hv_domain dom;

    if (__atomic_exchange_n(&v->fail_mark, false, __ATOMIC_SEQ_CST)) {
        return err_set(e, "told to fail");
    }
    uint64_t pages = __atomic_exchange_n(&v->balloon, 0, __ATOMIC_SEQ_CST);
    if (pages &&
        fake_do(v->pair->primary, v->pair->domid, FAKE_BALLOON, pages, NULL))
        complain(v->pair, "device", "the guest's memory can't be changed");
    if (epoch != v->committed + 1)
        complain(v->pair, "device", "mark of an unexpected epoch");
    /* Not the engine's connection: it is in use. */
    if (v->pair->hv->ops->info(v->pair->hv, v->pair->domid, &dom, NULL) ||
        dom.shutdown != HV_SUSPEND)
        complain(v->pair, "device", "mark while the guest runs");
    put(&v->holding, true);
    put(&v->marked, epoch);
    put(&v->marks, v->marks + 1);
    return 0;
}

static int device_commit(struct checkpoint_device *d, uint64_t epoch,
                         struct err *e)
{
    struct pair_device *v = device_of(d);

    (void)e;
    if (epoch != v->marked)
        complain(v->pair, "device", "commit of an epoch that is not marked");
    if (replica_committed(v->pair->replica) < epoch)
        complain(v->pair, "device", "commit of what the replica has not (I1)");
    put(&v->committed, epoch);
    return 0;
}

static int device_abort(struct checkpoint_device *d, bool release,
                        struct err *e)
{
    struct pair_device *v = device_of(d);

    (void)e;
    if (release && v->holding && !peek(&v->pair->quit) &&
        replica_committed(v->pair->replica))
        complain(v->pair, "device", "released, but there is a replica (I1)");
    put(&v->released, v->released + release);
    v->dropped += !release;
    put(&v->holding, false);
    return 0;
}

static void device_teardown(struct checkpoint_device *d, bool release)
{
    (void)release;
    put(&device_of(d)->set_up, false);
}

static int device_poll(struct checkpoint_device *d, struct device_load *load,
                       struct err *e)
{
    (void)e;
    __atomic_fetch_add(&device_of(d)->polls, 1, __ATOMIC_SEQ_CST);
    load->held_packets =
        __atomic_load_n(&device_of(d)->held_packets, __ATOMIC_SEQ_CST);
    load->want_epoch =
        __atomic_load_n(&device_of(d)->want_epoch, __ATOMIC_SEQ_CST);
    return 0;
}

static void device_free(struct checkpoint_device *d)
{
    (void)d;
}

static const struct checkpoint_device_ops device_ops = {
    .name = "observer",
    .setup = device_setup,
    .mark = device_mark,
    .commit = device_commit,
    .abort = device_abort,
    .teardown = device_teardown,
    .poll = device_poll,
    .free = device_free,
};

static void engine_says(void *arg, const struct engine_event *ev)
{
    struct pair *p = arg;

    pthread_mutex_lock(&p->lock);
    p->event[ev->type] = *ev;
    p->seen[ev->type]++;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

/* --- The loops of both agents -----------------------------------------------
 */

void pair_reconnect(struct pair *p, uint64_t committed, bool replica_ok)
{
    pthread_mutex_lock(&p->lock);
    p->session++;
    p->up = true;
    uint64_t session = p->session;
    pthread_mutex_unlock(&p->lock);
    engine_session_resumed(p->engine, session, committed, replica_ok);
}

static void loop_lost(struct pair *p)
{
    replica_session_lost(p->replica);
    engine_session_lost(p->engine);
    if (!peek(&p->no_reconnect))
        pair_reconnect(p, replica_committed(p->replica), true);
}

static void loop_record(struct pair *p, const struct pair_item *i)
{
    struct err e = ERR_INIT;

    if (i->type == EPOCH_STATE) {
        struct buf *state = &p->states[get_le64(i->payload) % 4];
        buf_clear(state);
        buf_put(state, i->payload + 8, i->len - 8);
    }
    if (i->type == EPOCH_COMMIT && peek(&p->deaf_to_commit))
        return;
    if (!replica_record(p->replica, i->type, i->payload, i->len, &e))
        return;
    complain(p, "replica", e.text);
    pthread_mutex_lock(&p->lock);
    if (p->up)
        session_cut(p);
    pthread_mutex_unlock(&p->lock);
}

static void *loop_main(void *arg)
{
    struct pair *p = arg;

    pthread_mutex_lock(&p->lock);
    while (!p->quit) {
        struct pair_item *i = p->first;
        if (!i || p->replica_closed) {
            pthread_cond_wait(&p->changed, &p->lock);
            continue;
        }
        p->first = i->next;
        p->queued--;
        pthread_cond_broadcast(&p->changed);
        pthread_mutex_unlock(&p->lock);
        struct err e = ERR_INIT;
        if (i->kind == ITEM_LOST)
            loop_lost(p);
        else if (i->kind == ITEM_RECORD)
            loop_record(p, i);
        else if (engine_acked(p->engine, i->epoch, 0, &e))
            complain(p, "engine", e.text);
        free(i);
        pthread_mutex_lock(&p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* --- For tests --------------------------------------------------------------
 */

static void must(int rc, const struct err *e)
{
    if (rc)
        fail_msg("%s", e->text);
}

struct pair *pair_new(void)
{
    struct pair *p = calloc(1, sizeof *p);

    if (!p)
        abort();
    static bool logging;
    if (!logging)
        log_setup("test", getenv("TEST_LOG") ? LOG_DEBUG : 2);
    logging = true;
    snprintf(p->primary, sizeof p->primary, "/tmp/understudy-a.XXXXXX");
    snprintf(p->backup, sizeof p->backup, "/tmp/understudy-b.XXXXXX");
    assert_non_null(mkdtemp(p->primary));
    assert_non_null(mkdtemp(p->backup));
    snprintf(p->spec.name, sizeof p->spec.name, "web");
    memset(p->spec.uuid, 0x5a, sizeof p->spec.uuid);
    p->seed = 88172645463325252ull;
    p->spec.seed = 11;
    p->spec.ram_pages = 300;
    p->spec.hole_at = 100;
    p->spec.hole_pages = 70;
    p->spec.writers = 2;
    p->spec.step_us = 20;
    p->config.interval_ms = 1;
    p->config.shortest_ms = 1;
    p->config.evtchn_deadline_ms = 2000;
    snprintf(p->config.name, sizeof p->config.name, "web");
    snprintf(p->config.suspend_flag, sizeof p->config.suspend_flag,
             "%s/suspend", p->primary);
    return p;
}

static void shell_make(struct pair *p, struct err *e)
{
    struct buf blueprint = {0};
    struct hv_vm vm;

    memcpy(vm.uuid, p->spec.uuid, sizeof vm.uuid);
    memcpy(vm.name, p->spec.name, sizeof vm.name);
    must(p->hv->ops->describe(p->hv, p->domid, &blueprint, e), e);
    must(p->shell_hv->ops->shell_build(p->shell_hv, &vm, blueprint.data,
                                       blueprint.len, &p->shell, e),
         e);
    must(p->shell_hv->ops->map(p->shell_hv, p->shell, false, &p->shell_map, e),
         e);
    buf_free(&blueprint);
}

static void halves_open(struct pair *p, struct err *e)
{
    struct hv *hv;

    p->replica_config.domid = p->shell;
    p->replica_config.ack = replica_acks;
    p->replica_config.ack_arg = p;
    must(hv_fake_open(p->backup, &hv, e), e);
    must(replica_open(&p->replica, hv, &p->replica_config, e), e);
    p->config.domid = p->domid;
    p->config.sink = (struct engine_sink){sink_send, p};
    p->config.event = engine_says;
    p->config.event_arg = p;
    p->device.device.ops = &device_ops;
    p->device.pair = p;
    p->config.devices[0] = &p->device.device;
    p->config.device_count = 1;
    must(hv_fake_open(p->primary, &hv, e), e);
    must(engine_open(&p->engine, hv, &p->config, e), e);
}

void pair_start(struct pair *p)
{
    struct err e = ERR_INIT;

    must(fake_create(p->primary, &p->spec, &p->domid, &e), &e);
    must(hv_fake_open(p->primary, &p->hv, &e), &e);
    must(hv_fake_open(p->backup, &p->shell_hv, &e), &e);
    must(fake_guest_start(&p->guest, p->primary, p->domid, &e), &e);
    shell_make(p, &e);
    p->oracle = fake_oracle_new(&p->spec);
    pthread_mutex_init(&p->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&p->changed, &attr);
    halves_open(p, &e);
    p->session = 1;
    p->up = true;
    assert_int_equal(pthread_create(&p->loop, NULL, loop_main, p), 0);
    engine_start_sync(p->engine, 1);
}

bool pair_wait(struct pair *p, enum engine_event_type type, unsigned n)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    const char *other = getenv("TEST_PATIENCE");
    until.tv_sec += other ? atoi(other) : PATIENCE_S;
    pthread_mutex_lock(&p->lock);
    while (p->seen[type] < n && !p->complaint[0])
        if (pthread_cond_timedwait(&p->changed, &p->lock, &until))
            break;
    bool ok = p->seen[type] >= n && !p->complaint[0];
    if (!ok)
        print_error("waited for %u events %d: %u came; %s\n", n, (int)type,
                    p->seen[type], p->complaint);
    pthread_mutex_unlock(&p->lock);
    return ok;
}

unsigned pair_seen(struct pair *p, enum engine_event_type type)
{
    pthread_mutex_lock(&p->lock);
    unsigned n = p->seen[type];
    pthread_mutex_unlock(&p->lock);
    return n;
}

void pair_cut(struct pair *p)
{
    pthread_mutex_lock(&p->lock);
    if (p->up)
        session_cut(p);
    pthread_mutex_unlock(&p->lock);
}

void pair_stop_engine(struct pair *p, enum engine_stop_how how)
{
    if (!p->engine)
        return;
    pthread_mutex_lock(&p->lock);
    p->up = false;
    put(&p->quit, true);
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->loop, NULL);
    engine_stop(p->engine, how);
    assert_true(pair_wait(p, ENGINE_STOPPED, 1));
    engine_close(p->engine);
    p->engine = NULL;
}

static void directory_remove(const char *dir)
{
    char command[128];

    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
}

void pair_free(struct pair *p)
{
    pair_stop_engine(p, ENGINE_RELEASE);
    assert_false(p->device.set_up);
    replica_free(p->replica);
    fake_guest_stop(p->guest);
    assert_string_equal(p->complaint, "");
    p->shell_hv->ops->unmap(p->shell_hv, &p->shell_map);
    p->shell_hv->ops->close(p->shell_hv);
    p->hv->ops->close(p->hv);
    fake_oracle_free(p->oracle);
    while (p->first) {
        struct pair_item *i = p->first;
        p->first = i->next;
        free(i);
    }
    for (int i = 0; i < 4; i++)
        buf_free(&p->states[i]);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->changed);
    directory_remove(p->primary);
    directory_remove(p->backup);
    free(p);
}

bool pair_guest_runs(struct pair *p, uint64_t n)
{
    uint64_t start = fake_steps(p->primary, p->domid);
    uint64_t until = clock_ns() + 10 * NS_PER_SEC;

    while (fake_steps(p->primary, p->domid) < start + n) {
        if (clock_ns() > until)
            return false;
        usleep(1000);
    }
    return true;
}

struct hv_domain pair_info(struct pair *p)
{
    struct hv *hv;
    struct hv_domain d = {0};
    struct err e = ERR_INIT;

    must(hv_fake_open(p->primary, &hv, &e), &e);
    must(hv->ops->info(hv, p->domid, &d, &e), &e);
    hv->ops->close(hv);
    return d;
}

bool pair_shell_consistent(struct pair *p)
{
    struct buf state = {0};
    struct err e = ERR_INIT;

    must(p->shell_hv->ops->get_state(p->shell_hv, p->shell, &state, &e), &e);
    int rc =
        fake_oracle_check(p->oracle, &p->shell_map, state.data, state.len, &e);
    buf_free(&state);
    if (rc)
        print_error("%s\n", e.text);
    return !rc;
}

void pair_takeover_check(struct pair *p)
{
    struct err e = ERR_INIT;

    pair_stop_engine(p, ENGINE_DROP);
    if (replica_takeover(p->replica, &e))
        fail_msg("%s", e.text);
    assert_true(pair_shell_consistent(p));
}
