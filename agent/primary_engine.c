// SPDX-License-Identifier: Apache-2.0
/* The primary's agent and its engine: opening it, its events on the loop, and
 * what `status` shows of it. The sink and the event callback run on the
 * engine's thread; everything else on the loop's. */
#include "agent/primary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/disk_status.h"
#include "agent/paths.h"
#include "agent/vif_follow.h"
#include "common/clock.h"
#include "common/log.h"
#include "disk-replicate/device.h"
#include "net-buffer/netbuf.h"

#define ROOM_NS (50 * NS_PER_MS)

struct posted {
    struct posted *next;
    bool committing; /* not an engine event: COMMIT is about to be sent */
    struct engine_event ev;
};

static void post(struct primary *p, const struct engine_event *ev)
{
    struct posted *n = calloc(1, sizeof *n);

    if (!n)
        abort();
    if (ev)
        n->ev = *ev;
    else
        n->committing = true;
    pthread_mutex_lock(&p->lock);
    *p->tail = n;
    p->tail = &n->next;
    pthread_mutex_unlock(&p->lock);
    ev_async_send(p->a->loop, &p->posted);
}

static void engine_event_cb(void *arg, const struct engine_event *ev)
{
    post(arg, ev);
}

static const uint32_t wire_types[] = {
    [EPOCH_PAGES] = WIRE_PAGES,
    [EPOCH_STATE] = WIRE_STATE,
    [EPOCH_COMMIT] = WIRE_COMMIT,
    [EPOCH_DISK] = WIRE_DISK,
};

/* From the moment that COMMIT may be on the wire, a replica may exist that we
 * have not heard of: the lease has to know before. */
static int sink_send(void *arg, uint64_t session, enum epoch_record type,
                     const void *payload, size_t len, struct err *e)
{
    struct primary *p = arg;

    if (link_pipe_begin(p->pipe, session, e) ||
        link_pipe_room(p->pipe, len, ROOM_NS, e))
        return -1;
    if (type == EPOCH_COMMIT)
        post(p, NULL);
    return link_pipe_send(p->pipe, wire_types[type], payload, len, e);
}

/* The interfaces themselves are vif_follow.c's matter. */
static int net_open(struct primary *p, struct err *e)
{
    char tag[NETBUF_TAG_MAX + 1];
    struct agent *a = p->a;
    struct netbuf_limits limits = {.hold_bytes_max = (uint64_t)a->cfg.buffer_mb
                                                     << 20};
    struct follow_config c = {.domid = (uint32_t)a->rec.domid,
                              .devices = p->devices};

    leftovers_tag(tag, (uint32_t)a->rec.domid);
    if (!getenv("UNDERSTUDY_HV") && netbuf_open(tag, &limits, &c.net, e))
        return -1;
    p->net = vif_follow_new(&c);
    return 0;
}

/* The VM's disks, as the hypervisor has them. */
static int disks_expected(const struct primary *p)
{
    int n = 0;

    for (const char *w = p->devices; (w = strstr(w, "vbd/")); w++)
        n++;
    return n;
}

static int devices_open(struct primary *p, struct engine_config *c,
                        struct err *e)
{
    if (net_open(p, e) ||
        disk_device_new(&p->disks, c->domid, disks_expected(p),
                        p->a->cfg.disk_log_mb, p->a->cfg.disk_copy_mb_s, e))
        return -1;
    c->devices[c->device_count++] = p->net;
    if (p->disks)
        c->devices[c->device_count++] = p->disks;
    return 0;
}

static void devices_free(struct primary *p)
{
    if (p->net)
        p->net->ops->free(p->net);
    if (p->disks)
        p->disks->ops->free(p->disks);
    p->net = p->disks = NULL;
}

/* Several have to be missed before T is over. */
static unsigned evtchn_deadline_ms(const struct agent *a)
{
    unsigned part = a->rec.timeout_ms / 4;

    return a->cfg.suspend_ms < part ? a->cfg.suspend_ms : part;
}

int primary_engine_open(struct primary *p, struct err *e)
{
    struct agent *a = p->a;
    struct hv *hv = NULL;
    struct engine_config c = {
        .domid = (uint32_t)a->rec.domid,
        .interval_ms = a->rec.interval_ms,
        .shortest_ms = a->cfg.interval_min_ms,
        .stop_percent = a->cfg.stop_percent,
        .xenstore_deadline_ms = a->cfg.suspend_xenstore_ms,
        .evtchn_deadline_ms = evtchn_deadline_ms(a),
        .staging_pages = (uint64_t)a->cfg.staging_mb << (20 - 12),
        .sink = {sink_send, p},
        .event = engine_event_cb,
        .event_arg = p,
    };

    if (devices_open(p, &c, e)) {
        devices_free(p);
        return -1;
    }
    snprintf(c.name, sizeof c.name, "%s", a->rec.name);
    snprintf(c.suspend_flag, sizeof c.suspend_flag, "%s",
             path_flag(a->rec.uuid).s);
    if (agent_hv_open(&hv, e)) {
        devices_free(p);
        return -1;
    }
    if (engine_open(&p->eng, hv, &c, e)) {
        hv->ops->close(hv);
        devices_free(p);
        return -1;
    }
    primary_here(p);
    p->dropped = 0;
    p->voided = false;
    guest_take(p);
    return 0;
}

/* --- Events --- */

static void on_committing(struct primary *p)
{
    if (p->a->lease.state == LEASE_FREE && p->phase != PH_ENDING)
        agent_lease_event(p->a, LEASE_EV_COMMIT);
}

static void on_progress(struct primary *p, const struct engine_event *ev)
{
    json_t *msg = json_pack("{s:s, s:s, s:I, s:I}", "event", "progress", "vm",
                            p->a->rec.name, "done_bytes", (json_int_t)ev->done,
                            "total_bytes", (json_int_t)ev->total);

    ipc_broadcast(p->a->ipc, msg);
    json_decref(msg);
}

/* The replica is of no more use, and nobody shall read Protected from here on.
 * The backup has to give it up before output may flow again; without a session,
 * the lease decides after its timeout. */
static void on_void(struct primary *p, const struct err *why)
{
    if (p->a->state.now == VM_PROTECTED)
        agent_state(p->a, VM_DEGRADED, "the replica is void: %s", why->text);
    agent_event(p->a, "void", "the replica is void: %s", why->text);
    p->voided = true;
    p->failure = *why;
    if (p->a->lease.state == LEASE_FREE) {
        primary_end(p, ENGINE_RELEASE, THEN_RETRY);
        return;
    }
    if (p->a->session && p->a->hello_seen)
        primary_send_discard(p, why->text);
}

static void protected_say(struct primary *p)
{
    agent_state(p->a, VM_PROTECTED, "epoch %llu is on %s",
                (unsigned long long)p->epoch, p->a->rec.peer);
}

/* A host that comes back after a takeover knows by it that its copy may be an
 * old one: without it there is no protection. */
static void stage_written(struct agent *a, const struct err *why)
{
    struct primary *p = a->priv;

    if (!why) {
        p->established = a->rec.stage == STAGE_ESTABLISHED;
        if (p->established && p->phase == PH_RUN && !p->voided)
            protected_say(p);
        return;
    }
    struct err e = *why;
    err_add(&e, "the record of %s can't be written", a->rec.name);
    err_hint(&e, "make room on the disk of %s, or mend it", path_vms().s);
    a->rec.stage = p->stage_before;
    if (p->eng && p->phase != PH_ENDING && !p->voided)
        on_void(p, &e);
}

static void on_synced(struct primary *p, const struct engine_event *ev)
{
    agent_lease_event(p->a, LEASE_EV_COMMIT);
    if (p->phase == PH_SYNC) /* or it is the session's or the operator's */
        primary_phase(p, PH_RUN);
    p->tries = 0;
    err_clear(&p->failure);
    p->epoch = ev->epoch;
    if (p->established) {
        if (p->phase == PH_RUN)
            protected_say(p);
        return;
    }
    p->a->rec.stage = STAGE_ESTABLISHED;
    agent_save_then(p->a, stage_written);
}

static void on_epoch(struct primary *p, const struct engine_event *ev)
{
    enum vm_state now = p->a->state.now;

    err_clear(&p->skipped);
    p->epoch = ev->epoch;
    agent_lease_event(p->a, LEASE_EV_COMMIT);
    /* Output was held, and nobody won. */
    if (p->phase == PH_RUN && p->established &&
        (now == VM_DEGRADED || now == VM_SYNCING))
        protected_say(p);
}

enum wire_stop_reason primary_stop_reason(enum hv_shutdown down)
{
    switch (down) {
    case HV_POWEROFF:
        return WIRE_STOP_POWEROFF;
    case HV_REBOOT:
        return WIRE_STOP_REBOOT;
    case HV_CRASH:
        return WIRE_STOP_CRASH;
    default:
        return WIRE_STOP_GONE;
    }
}

static void on_guest_down(struct primary *p, enum hv_shutdown down)
{
    static const char *const words[] = {
        [HV_POWEROFF] = "powered off",
        [HV_REBOOT] = "rebooted",
        [HV_SUSPEND] = "was suspended by somebody else",
        [HV_CRASH] = "crashed",
        [HV_OTHER] = "was stopped by its watchdog, or was destroyed, saved or "
                     "migrated by somebody else",
    };

    p->down = down;
    p->voided = true;
    agent_event(p->a, "guest-down", "the guest %s; telling %s", words[down],
                p->a->rec.peer);
    if (p->a->lease.state == LEASE_FREE)
        primary_end(p, ENGINE_RELEASE, THEN_GUEST_DOWN);
    else if (p->a->session && p->a->hello_seen)
        primary_send_stop(p, primary_stop_reason(down));
    p->then = THEN_GUEST_DOWN;
}

static void on_event(struct primary *p, const struct engine_event *ev)
{
    /* What it said before it heard that it has to stop is of no interest. */
    if (p->phase == PH_ENDING && ev->type != ENGINE_STOPPED)
        return;
    switch (ev->type) {
    case ENGINE_SYNC_PROGRESS:
        on_progress(p, ev);
        break;
    case ENGINE_SYNCED:
        on_synced(p, ev);
        break;
    case ENGINE_EPOCH:
        on_epoch(p, ev);
        break;
    case ENGINE_SKIPPED:
        p->skipped = ev->error;
        agent_event(p->a, "skipped", "epoch %llu was skipped: %s",
                    (unsigned long long)ev->epoch, ev->error.text);
        break;
    case ENGINE_BREAK:
        agent_event(p->a, "skipped", "epoch %llu is given up: %s",
                    (unsigned long long)ev->epoch, ev->error.text);
        if (p->a->session)
            link_fail(p->a->session, &ev->error);
        break;
    case ENGINE_GUEST_DOWN:
        on_guest_down(p, ev->reason);
        break;
    case ENGINE_VOID:
    case ENGINE_FAILED:
        on_void(p, &ev->error);
        break;
    case ENGINE_STOPPED:
        engine_close(p->eng);
        p->eng = NULL;
        devices_free(p);
        primary_ended(p);
        break;
    }
}

void primary_drain(struct primary *p)
{
    for (;;) {
        pthread_mutex_lock(&p->lock);
        struct posted *n = p->head;
        if (n)
            p->head = n->next;
        if (!p->head)
            p->tail = &p->head;
        pthread_mutex_unlock(&p->lock);
        if (!n)
            return;
        if (n->committing)
            on_committing(p);
        else
            on_event(p, &n->ev);
        free(n);
    }
}

static void posted_cb(struct ev_loop *loop, ev_async *w, int revents)
{
    (void)loop;
    (void)revents;
    primary_drain(w->data);
}

void primary_engine_init(struct primary *p)
{
    pthread_mutex_init(&p->lock, NULL);
    p->tail = &p->head;
    ev_async_init(&p->posted, posted_cb);
    p->posted.data = p;
    ev_async_start(p->a->loop, &p->posted);
    p->pipe = link_pipe_new(p->a->loop, 4u << 20);
}

/* --- Status --- */

static void stat_put(json_t *out, const char *name, const struct engine_stat *s)
{
    json_object_set_new(out, name,
                        json_pack("{s:I, s:I, s:I, s:I}", "median",
                                  (json_int_t)s->median, "p99",
                                  (json_int_t)s->p99, "max", (json_int_t)s->max,
                                  "last", (json_int_t)s->last));
}

static void number_put(json_t *out, const char *name, uint64_t v)
{
    json_object_set_new(out, name, json_integer((json_int_t)v));
}

static void sync_put(json_t *out, const struct engine_status *st)
{
    uint64_t left =
        st->sync_total > st->sync_done ? st->sync_total - st->sync_done : 0;

    if (!st->syncing)
        return;
    json_object_set_new(
        out, "sync",
        json_pack("{s:I, s:I, s:I, s:I}", "done_bytes",
                  (json_int_t)st->sync_done, "total_bytes",
                  (json_int_t)st->sync_total, "rate_bps",
                  (json_int_t)st->sync_rate_bps, "left_s",
                  (json_int_t)(st->sync_rate_bps ? left * 8 / st->sync_rate_bps
                                                 : 0)));
}

static void disks_put(json_t *out, const struct device_load *load)
{
    if (!load->copy_bytes)
        return;
    json_object_set_new(out, "disks",
                        json_pack("{s:I, s:I}", "bytes",
                                  (json_int_t)load->copy_bytes, "backlog_bytes",
                                  (json_int_t)load->backlog_bytes));
}

void primary_status(struct agent *a, json_t *out)
{
    struct primary *p = a->priv;
    struct engine_status st;

    if (!p->eng) {
        disk_status_put(out, a->rec.domid);
        return;
    }
    engine_status(p->eng, &st);
    number_put(out, "epoch", st.committed);
    number_put(out, "epochs", st.epochs);
    number_put(out, "skipped", st.skipped);
    number_put(out, "bytes_sent", st.bytes_sent);
    number_put(out, "held_bytes", st.load.held_bytes);
    number_put(out, "held_packets", st.load.held_packets);
    number_put(out, "dropped_packets", st.load.dropped_packets);
    if (st.committed_ns)
        number_put(out, "lag_ms", (clock_ns() - st.committed_ns) / NS_PER_MS);
    number_put(out, "interval_now_ms", st.interval_now_ms);
    json_object_set_new(out, "suspend",
                        json_string(st.suspend_path == HV_SUSPEND_EVTCHN
                                        ? "event channel"
                                        : "xenstore"));
    stat_put(out, "pause_us", &st.pause_us);
    stat_put(out, "suspend_us", &st.suspend_us);
    stat_put(out, "copy_us", &st.copy_us);
    stat_put(out, "state_us", &st.state_us);
    stat_put(out, "mark_us", &st.mark_us);
    stat_put(out, "resume_us", &st.resume_us);
    stat_put(out, "send_us", &st.send_us);
    stat_put(out, "ack_us", &st.ack_us);
    stat_put(out, "dirty_pages", &st.dirty_pages);
    stat_put(out, "epoch_bytes", &st.bytes);
    disks_put(out, &st.load);
    disk_status_put(out, a->rec.domid);
    sync_put(out, &st);
}
