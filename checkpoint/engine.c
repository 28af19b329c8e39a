// SPDX-License-Identifier: Apache-2.0
/* The engine's thread and its inputs; see engine.h. The thread runs
 * engine_main() from the top to the end of the protection; the loop thread
 * only stores into `in` and wakes it. */
#include "checkpoint/engine_private.h"
#include "checkpoint/harvest.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/thread.h"

#include <string.h>

#define INTERVAL_MS          200
#define SHORTEST_MS          20
#define STOP_PERCENT         10
#define XENSTORE_DEADLINE_MS 30000
#define EVTCHN_DEADLINE_MS   1000
/* As long as any guest may take to answer a request to suspend; see hv.h. */
#define RECOVER_MS   30000
#define LATE_LOOK_MS 10
#define STAGING_MIN  (16u << 20 >> 12)
#define STAGING_MAX  (512u << 20 >> 12)

/* --- Helpers of the engine thread ---------------------------------------- */

void engine_emit(struct engine *eng, struct engine_event *ev)
{
    eng->config.event(eng->config.event_arg, ev);
}

enum turn engine_over(struct engine *eng, enum engine_event_type type,
                      const struct err *error)
{
    struct engine_event ev = {.type = type, .error = *error};

    log_error("dom=%s epoch=%lu %s: %s", eng->config.name, eng->at.epoch,
              type == ENGINE_VOID ? "replica void" : "engine failed",
              error->text);
    engine_emit(eng, &ev);
    return TURN_OVER;
}

void engine_wait(struct engine *eng, uint64_t until_ns)
{
    struct timespec ts = clock_timespec(until_ns);

    pthread_cond_timedwait(&eng->wake, &eng->lock, &ts);
}

enum turn engine_look(struct engine *eng)
{
    if (eng->in.stop)
        return TURN_STOP;
    return eng->in.session == eng->session && eng->session ? TURN_ON
                                                           : TURN_LOST;
}

enum turn engine_guest_check(struct engine *eng)
{
    struct hv_domain d;
    struct err error = ERR_INIT;
    struct engine_event ev = {.type = ENGINE_GUEST_DOWN, .reason = HV_OTHER};

    eng->guest_seen_ns = clock_ns();
    if (!eng->hv->ops->info(eng->hv, eng->config.domid, &d, &error)) {
        if (d.shutdown == HV_RUNNING || d.shutdown == HV_SUSPEND)
            return TURN_ON;
        ev.reason = d.shutdown;
    } else if (error.kind != ERR_GONE) {
        log_warn("dom=%s %s", eng->config.name, error.text);
        return TURN_ON;
    }
    engine_emit(eng, &ev);
    return TURN_OVER;
}

/* For where it is not known how soon this comes again. */
static enum turn guest_check_due(struct engine *eng)
{
    return clock_ns() - eng->guest_seen_ns > NS_PER_SEC
               ? engine_guest_check(eng)
               : TURN_ON;
}

static void poll_due(struct engine *eng)
{
    if (clock_ns() - eng->polled_ns >= ENGINE_POLL_NS)
        engine_poll(eng);
}

enum turn engine_check(struct engine *eng)
{
    pthread_mutex_lock(&eng->lock);
    enum turn turn = engine_look(eng);
    pthread_mutex_unlock(&eng->lock);
    poll_due(eng);
    return turn == TURN_ON ? guest_check_due(eng) : turn;
}

int engine_devices_abort(struct engine *eng, bool release, struct err *e)
{
    int rc = 0;

    for (size_t i = 0; i < eng->devices_ready; i++) {
        struct checkpoint_device *d = eng->config.devices[i];
        if (d->ops->abort(d, release, e))
            rc = err_add(e, "%s: abort", d->ops->name);
    }
    return rc;
}

/* --- Setting up and taking down ------------------------------------------ */

static size_t staging_pages(const struct engine *eng)
{
    uint64_t pages = eng->config.staging_pages;

    if (pages)
        return (size_t)pages;
    pages = eng->map.ram_pages / 8;
    if (pages < STAGING_MIN)
        pages = STAGING_MIN;
    return (size_t)(pages > STAGING_MAX ? STAGING_MAX : pages);
}

static int memory_prepare(struct engine *eng, struct err *e)
{
    struct hv *hv = eng->hv;
    struct capture *c = &eng->capture;

    if (hv->ops->map(hv, eng->config.domid, false, &eng->map, e))
        return err_add(e, "map the guest's memory");
    if (eng->map.end_gfn > EPOCH_MAX_GFN)
        return err_kind(e, ERR_REFUSED, "the guest is larger than 1 TiB");
    c->hv = hv;
    c->domid = eng->config.domid;
    c->map = &eng->map;
    c->devices = eng->config.devices;
    c->device_count = eng->config.device_count;
    c->over = &eng->in.stop;
    if (suspend_flag_open(&c->flag, eng->config.suspend_flag, e) ||
        capture_open(c, staging_pages(eng), e) ||
        encoder_open(&eng->encoder, eng->map.end_gfn,
                     !eng->config.no_compression, e))
        return -1;
    eng->sent = calloc(c->words, sizeof *eng->sent);
    if (!eng->sent)
        return err_sys(e, "page bitmap");
    buf_reserve(&eng->record, CODEC_PAYLOAD_MAX);
    return 0;
}

static int devices_setup(struct engine *eng, struct err *e)
{
    for (size_t i = 0; i < eng->config.device_count; i++) {
        struct checkpoint_device *d = eng->config.devices[i];
        if (d->ops->setup(d, e))
            return err_add(e, "%s", d->ops->name);
        eng->devices_ready++;
    }
    return 0;
}

void engine_suspend_path(struct engine *eng)
{
    enum hv_suspend_path path =
        eng->hv->ops->suspend_path(eng->hv, eng->config.domid);

    eng->capture.deadline_ms = path == HV_SUSPEND_EVTCHN
                                   ? eng->config.evtchn_deadline_ms
                                   : eng->config.xenstore_deadline_ms;
    pthread_mutex_lock(&eng->lock);
    eng->status.suspend_path = path;
    pthread_mutex_unlock(&eng->lock);
}

static int all_prepare(struct engine *eng, struct err *e)
{
    struct hv *hv = eng->hv;
    uint32_t domid = eng->config.domid;

    if (memory_prepare(eng, e))
        return -1;
    if (hv->ops->suspend_open(hv, domid, e))
        return err_add(e, "prepare suspending");
    eng->suspend_open = true;
    engine_suspend_path(eng);
    if (devices_setup(eng, e))
        return -1;
    if (hv->ops->logdirty_start(hv, domid, e))
        return err_add(e, "turn on log-dirty mode");
    eng->logdirty_on = true;
    pthread_mutex_lock(&eng->lock);
    eng->status.ram_pages = eng->map.ram_pages;
    pthread_mutex_unlock(&eng->lock);
    return 0;
}

/* A suspend of ours may be out: settle it within so many milliseconds. True:
 * there is none any more. */
static bool guest_recover(struct engine *eng, unsigned ms)
{
    struct suspend_flag *f = &eng->capture.flag;
    struct err error = ERR_INIT;

    if (!f->word || !suspend_flag_get(f))
        return true;
    if (!eng->hv->ops->suspend_recover(eng->hv, eng->config.domid, ms,
                                       &error)) {
        suspend_flag_set(f, false);
        return true;
    }
    if (error.kind != ERR_TIMEOUT)
        log_error("dom=%s still suspended: %s", eng->config.name, error.text);
    return false;
}

/* Settle it if that can be done now. When to look at the guest again, and at
 * the devices. */
static uint64_t guest_look_ns(struct engine *eng)
{
    bool settled = guest_recover(eng, 0);

    return clock_ns() + (settled ? ENGINE_POLL_NS : LATE_LOOK_MS * NS_PER_MS);
}

static void engine_finish(struct engine *eng)
{
    struct hv *hv = eng->hv;
    bool release = eng->in.how == ENGINE_RELEASE;
    struct err error = ERR_INIT;

    guest_recover(eng, 0);
    if (engine_devices_abort(eng, release, &error))
        log_warn("dom=%s %s", eng->config.name, error.text);
    for (size_t i = eng->devices_ready; i-- > 0;)
        eng->config.devices[i]->ops->teardown(eng->config.devices[i], release);
    eng->devices_ready = 0;
    /* Output does not wait for a guest that is late with its suspend. */
    guest_recover(eng, RECOVER_MS);
    if (eng->logdirty_on)
        hv->ops->logdirty_stop(hv, eng->config.domid);
    if (eng->suspend_open)
        hv->ops->suspend_close(hv, eng->config.domid);
    capture_close(&eng->capture);
    suspend_flag_close(&eng->capture.flag);
    if (eng->map.base)
        hv->ops->unmap(hv, &eng->map);
}

/* --- The thread ----------------------------------------------------------- */

/* Output that was marked in an epoch that the backup can't have committed, and
 * there was none before: the backup has nothing to take over with. */
static enum turn unprotected_release(struct engine *eng)
{
    struct err error = ERR_INIT;

    if (engine_devices_abort(eng, true, &error))
        return engine_over(eng, ENGINE_FAILED, &error);
    return TURN_ON;
}

/* A new session: what became of the epoch that was in flight? The codec's
 * references are void in any case. */
static enum turn session_adopt(struct engine *eng, uint64_t committed,
                               bool replica_ok)
{
    struct err error = ERR_INIT;
    enum turn turn = TURN_ON;

    log_info("dom=%s session=%lu backup committed=%lu here=%lu in flight=%lu",
             eng->config.name, eng->session, committed, eng->committed,
             eng->commit_sent);
    if (!replica_ok) {
        err_set(&error, "the backup has no replica of this VM any more");
        return engine_over(eng, ENGINE_VOID, &error);
    }
    if (committed == eng->committed + 1 && committed == eng->commit_sent) {
        turn = engine_epoch_commit(eng);
        encoder_reset(eng->encoder);
    } else if (committed == eng->committed) {
        engine_epoch_undo(eng);
        if (!committed)
            turn = unprotected_release(eng);
    } else {
        err_set(&error, "the backup committed epoch %lu, here it is %lu",
                committed, eng->committed);
        turn = engine_over(eng, ENGINE_VOID, &error);
    }
    return turn;
}

/* One look at the inputs between two sessions, and at a guest that is late with
 * its suspend; waits a little. */
static enum turn session_look(struct engine *eng, bool *acked, bool *resumed,
                              uint64_t *committed, bool *replica_ok)
{
    enum turn turn = TURN_ON;
    uint64_t look_ns = guest_look_ns(eng);

    pthread_mutex_lock(&eng->lock);
    *acked = eng->commit_sent && eng->in.acked >= eng->commit_sent;
    *resumed = !*acked && eng->in.resumed;
    if (eng->in.stop) {
        turn = TURN_STOP;
    } else if (*resumed) {
        eng->in.resumed = false;
        eng->session = eng->in.session;
        *committed = eng->in.resumed_committed;
        *replica_ok = eng->in.replica_ok;
    } else if (!*acked) {
        engine_wait(eng, look_ns);
    }
    pthread_mutex_unlock(&eng->lock);
    return turn;
}

static enum turn session_wait(struct engine *eng)
{
    enum turn turn = TURN_ON;

    if (!eng->committed && !eng->commit_sent)
        turn = unprotected_release(eng);
    while (turn == TURN_ON) {
        uint64_t committed = 0;
        bool acked, resumed, replica_ok = false;
        turn = session_look(eng, &acked, &resumed, &committed, &replica_ok);
        if (turn != TURN_ON)
            break;
        if (resumed)
            return session_adopt(eng, committed, replica_ok);
        poll_due(eng);
        /* The answer had come before the session broke. */
        turn = acked ? engine_epoch_commit(eng) : guest_check_due(eng);
    }
    return turn;
}

static enum turn epochs_run(struct engine *eng)
{
    bool taken;
    enum turn turn = TURN_ON;

    while (turn == TURN_ON) {
        turn = engine_interval(eng);
        if (turn == TURN_ON)
            turn = engine_epoch_run(eng, &taken);
    }
    return turn;
}

static enum turn engine_run(struct engine *eng)
{
    enum turn turn;

    do {
        turn = eng->committed ? epochs_run(eng) : engine_sync(eng);
        if (turn == TURN_LOST)
            turn = session_wait(eng);
    } while (turn == TURN_ON);
    return turn;
}

/* Until engine_start_sync or engine_stop. */
static bool start_wait(struct engine *eng)
{
    pthread_mutex_lock(&eng->lock);
    while (!eng->in.start && !eng->in.stop)
        pthread_cond_wait(&eng->wake, &eng->lock);
    bool start = !eng->in.stop;
    eng->session = eng->in.session;
    pthread_mutex_unlock(&eng->lock);
    return start;
}

/* Output stays held. A guest that could not be resumed is tried again as long
 * as we live. */
static void stop_wait(struct engine *eng)
{
    bool stop;

    do {
        uint64_t look_ns = guest_look_ns(eng);
        poll_due(eng);
        pthread_mutex_lock(&eng->lock);
        if (!eng->in.stop)
            engine_wait(eng, look_ns);
        stop = eng->in.stop;
        pthread_mutex_unlock(&eng->lock);
    } while (!stop);
}

static void *engine_main(void *arg)
{
    struct engine *eng = arg;
    struct err error = ERR_INIT;
    struct engine_event ev = {.type = ENGINE_STOPPED};

    if (start_wait(eng)) {
        enum turn turn = all_prepare(eng, &error)
                             ? engine_over(eng, ENGINE_FAILED, &error)
                             : engine_run(eng);
        if (turn != TURN_STOP)
            stop_wait(eng);
    }
    engine_finish(eng);
    engine_emit(eng, &ev);
    return NULL;
}

/* --- For the loop thread -------------------------------------------------- */

int engine_settle(struct hv *hv, uint32_t domid, const char *path,
                  struct err *e)
{
    struct suspend_flag f = {0};
    struct err error = ERR_INIT;
    int rc = 0;

    if (suspend_flag_open(&f, path, e))
        return -1;
    if (suspend_flag_get(&f)) {
        log_warn("domid=%u a suspend was left behind, undoing it", domid);
        if (hv->ops->suspend_recover(hv, domid, RECOVER_MS, &error) &&
            error.kind != ERR_GONE) {
            rc = -1;
            if (e)
                *e = error;
            err_add(e, "undo the suspend of a predecessor");
        } else {
            suspend_flag_set(&f, false);
        }
    }
    suspend_flag_close(&f);
    return rc;
}

int engine_recover(struct hv *hv, uint32_t domid, const char *path,
                   struct err *e)
{
    int rc = engine_settle(hv, domid, path, e);

    hv->ops->logdirty_stop(hv, domid);
    return rc;
}

static void defaults_set(struct engine_config *c)
{
    c->interval_ms = c->interval_ms ? c->interval_ms : INTERVAL_MS;
    c->shortest_ms = c->shortest_ms ? c->shortest_ms : SHORTEST_MS;
    c->stop_percent = c->stop_percent ? c->stop_percent : STOP_PERCENT;
    if (!c->xenstore_deadline_ms)
        c->xenstore_deadline_ms = XENSTORE_DEADLINE_MS;
    if (!c->evtchn_deadline_ms)
        c->evtchn_deadline_ms = EVTCHN_DEADLINE_MS;
}

static int engine_thread_start(struct engine *eng, struct err *e)
{
    pthread_condattr_t attr;

    pthread_mutex_init(&eng->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&eng->wake, &attr);
    pthread_condattr_destroy(&attr);
    return thread_start(&eng->thread, 0, engine_main, eng, "the engine", e);
}

int engine_open(struct engine **out, struct hv *hv,
                const struct engine_config *config, struct err *e)
{
    struct engine *eng = calloc(1, sizeof *eng);

    if (!eng)
        return err_sys(e, "engine");
    eng->config = *config;
    defaults_set(&eng->config);
    eng->pace.interval_ms = eng->config.interval_ms;
    eng->pace.shortest_ms = eng->config.shortest_ms;
    eng->pace.stop_percent = eng->config.stop_percent;
    eng->hv = hv;
    eng->hash = epoch_hash_new();
    if (engine_thread_start(eng, e)) {
        epoch_hash_free(eng->hash);
        free(eng);
        return -1;
    }
    *out = eng;
    return 0;
}

static void input_lock(struct engine *eng)
{
    pthread_mutex_lock(&eng->lock);
}

static void input_done(struct engine *eng)
{
    pthread_cond_signal(&eng->wake);
    pthread_mutex_unlock(&eng->lock);
}

void engine_start_sync(struct engine *eng, uint64_t session)
{
    input_lock(eng);
    eng->in.start = true;
    eng->in.session = session;
    input_done(eng);
}

int engine_acked(struct engine *eng, uint64_t epoch, uint64_t disks,
                 struct err *e)
{
    input_lock(eng);
    uint64_t sent = eng->commit_sent, committed = eng->committed;
    bool expected = epoch && (epoch <= committed || epoch == sent);
    if (expected && epoch > eng->in.acked) {
        eng->in.acked = epoch;
        eng->in.kept = disks;
    }
    input_done(eng);
    if (!expected)
        return err_set(e, "ACK of epoch %lu, which was not sent (last %lu)",
                       epoch, sent ? sent : committed);
    return 0;
}

int engine_answered(struct engine *eng, const void *payload, size_t len,
                    struct err *e)
{
    input_lock(eng);
    bool room = eng->in.answers.len + len <= ENGINE_ANSWERS_MAX;
    if (room)
        buf_blob(&eng->in.answers, payload, len);
    input_done(eng);
    return room ? 0 : err_set(e, "more answers than were asked for");
}

void engine_session_lost(struct engine *eng)
{
    input_lock(eng);
    eng->in.session = 0;
    buf_clear(&eng->in.answers);
    eng->in.resumed = false;
    input_done(eng);
}

void engine_session_resumed(struct engine *eng, uint64_t session,
                            uint64_t committed, bool replica_ok)
{
    input_lock(eng);
    eng->in.session = session;
    eng->in.resumed = true;
    eng->in.resumed_committed = committed;
    eng->in.replica_ok = replica_ok;
    input_done(eng);
}

void engine_kick(struct engine *eng)
{
    input_lock(eng);
    eng->in.kick = true;
    input_done(eng);
}

void engine_stop(struct engine *eng, enum engine_stop_how how)
{
    input_lock(eng);
    if (!eng->in.stop)
        eng->in.how = how;
    __atomic_store_n(&eng->in.stop, true, __ATOMIC_RELAXED); /* capture->over */
    input_done(eng);
}

void engine_close(struct engine *eng)
{
    if (!eng)
        return;
    pthread_join(eng->thread, NULL);
    encoder_free(eng->encoder);
    epoch_hash_free(eng->hash);
    free(eng->sent);
    buf_free(&eng->record);
    buf_free(&eng->in.answers);
    pthread_cond_destroy(&eng->wake);
    pthread_mutex_destroy(&eng->lock);
    eng->hv->ops->close(eng->hv);
    free(eng);
}
