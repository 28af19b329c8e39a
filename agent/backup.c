// SPDX-License-Identifier: Apache-2.0
/* The backup's agent: it has the shell built, holds the replica, and takes
 * over. Loop thread; building, discarding and taking over are jobs, applying is
 * the replica's own thread. */
#include "agent/backup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/job.h"
#include "agent/paths.h"
#include "checkpoint/epoch.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "link/peers.h"

/* How long a backup without a replica waits for its primary before it goes:
 * the primary's daemon asks for a new one when it needs it. */
#define IDLE_NS (60 * NS_PER_SEC)

static void backup_settle(struct backup *b);
static void blueprint_build(struct backup *b);

/* --- Acknowledging
 * ------------------------------------------------------------
 */

/* Apply thread. Only the newest matters. */
static void ack_cb(void *arg, uint64_t epoch, uint64_t applied)
{
    struct backup *b = arg;

    __atomic_store_n(&b->ack_applied, applied, __ATOMIC_RELAXED);
    __atomic_store_n(&b->ack_epoch, epoch, __ATOMIC_RELEASE);
    ev_async_send(b->a->loop, &b->acked);
}

static void acked_cb(struct ev_loop *loop, ev_async *w, int revents)
{
    struct backup *b = w->data;
    struct agent *a = b->a;
    struct epoch_ack ack = {
        .epoch = __atomic_load_n(&b->ack_epoch, __ATOMIC_ACQUIRE),
        .applied = __atomic_load_n(&b->ack_applied, __ATOMIC_RELAXED)};
    struct buf out = {0};

    (void)loop;
    (void)revents;
    if (ack.epoch <= b->ack_sent || !b->rep ||
        (a->lease.state != LEASE_EMPTY && a->lease.state != LEASE_STANDBY))
        return;
    b->ack_sent = ack.epoch;
    agent_lease_event(a, LEASE_EV_COMMIT);
    if (a->state.now != VM_PROTECTED) {
        b->was_protected = true;
        agent_state(a, VM_PROTECTED, "epoch %llu is committed here",
                    (unsigned long long)ack.epoch);
    }
    if (a->session) {
        epoch_ack_put(&out, &ack);
        link_send_urgent(a->session, WIRE_ACK, out.data, out.len);
        buf_free(&out);
    }
}

/* --- Building the shell (a job)
 * ------------------------------------------------
 */

struct shell_job {
    struct backup *b;
    struct hv *hv;
    struct replica *rep;
    uint32_t shell;
    bool build;
};

static int shell_destroy(struct hv *hv, const uint8_t uuid[16], struct err *e)
{
    struct hv_domain d;

    if (hv->ops->find_uuid(hv, uuid, true, &d, e)) {
        if (e->kind != ERR_GONE)
            return -1;
        err_clear(e);
        return 0;
    }
    return hv->ops->destroy(hv, d.domid, e);
}

static int shell_build(struct shell_job *j, struct err *e)
{
    const struct buf *bp = &j->b->blueprint;
    struct replica_config c = {.ack = ack_cb, .ack_arg = j->b};
    const struct hv_ops *ops = j->hv->ops;

    if (ops->shell_check(j->hv, bp->data, bp->len, e) ||
        ops->shell_build(j->hv, bp->data, bp->len, &j->shell, e))
        return -1;
    c.domid = j->shell;
    snprintf(c.name, sizeof c.name, "%s", j->b->a->rec.name);
    if (replica_open(&j->rep, j->hv, &c, e)) {
        struct err ignored = ERR_INIT;
        ops->destroy(j->hv, j->shell, &ignored);
        return -1;
    }
    j->hv = NULL; /* the replica's now */
    return 0;
}

/* Give up what is there; then, if asked, build anew. */
static int shell_run(void *arg, struct err *e)
{
    struct shell_job *j = arg;
    int rc;

    replica_free(j->rep);
    j->rep = NULL;
    if (agent_hv_open(&j->hv, e))
        return -1;
    rc = shell_destroy(j->hv, j->b->a->uuid, e);
    if (!rc && j->build)
        rc = shell_build(j, e);
    if (j->hv)
        j->hv->ops->close(j->hv);
    return rc;
}

static void send_ready(struct backup *b)
{
    struct wire_ready r = {.generation = b->a->lease.generation};
    struct buf out = {0};

    ready_put(&out, &r);
    link_send(b->a->session, WIRE_READY, out.data, out.len);
    buf_free(&out);
}

static void shell_done(void *arg, int rc, const struct err *e)
{
    struct shell_job *j = arg;
    struct backup *b = j->b;
    struct agent *a = b->a;
    bool same = a->session && b->session_no == b->job_session;

    b->work = WORK_NONE;
    b->rep = j->rep;
    b->shell = j->rep ? j->shell : 0;
    a->rec.domid = b->shell ? (int64_t)b->shell : -1;
    b->ack_sent = b->ack_epoch = 0;
    if (rc)
        agent_event(a, "error", "%s: %s",
                    j->build ? "building the shell" : "removing the replica",
                    e->text);
    if (j->build && same && rc)
        link_fail(a->session, e);
    else if (j->build && same)
        send_ready(b);
    free(j);
    backup_settle(b);
    if (b->build_due && b->build_due == b->session_no && a->session &&
        b->work == WORK_NONE)
        blueprint_build(b);
}

/* The replica, if any, is void from this moment on; it is never started. */
static void shell_start(struct backup *b, bool build)
{
    struct shell_job *j = calloc(1, sizeof *j);
    struct agent *a = b->a;

    if (!j)
        abort();
    j->b = b;
    j->rep = b->rep;
    j->build = build;
    b->rep = NULL;
    b->work = build ? WORK_BUILD : WORK_DISCARD;
    b->job_session = b->session_no;
    agent_lease_event(a, LEASE_EV_DISCARDED);
    job_start(a->loop, shell_run, shell_done, j);
}

/* --- Giving up, and what is said afterwards
 * -------------------------------------
 */

static void reply_discarded(struct backup *b)
{
    struct wire_discard d = {.generation = b->a->lease.generation};
    struct buf out = {0};

    memcpy(d.incarnation, b->a->rec.incarnation, sizeof d.incarnation);
    snprintf(d.text, sizeof d.text, "the replica is gone");
    discard_put(&out, &d);
    link_send_urgent(b->a->session, WIRE_DISCARDED, out.data, out.len);
    buf_free(&out);
}

static void reply_stopped(struct backup *b)
{
    struct agent *a = b->a;
    struct buf out = {0};
    bool over = b->stop.reason != WIRE_STOP_REBOOT;

    agent_event(a, "stop", "%s ends protection: %s", a->rec.peer,
                stop_reason_name(b->stop.reason));
    agent_state(a, VM_UNPROTECTED, "the primary ended protection: %s",
                stop_reason_name(b->stop.reason));
    if (a->session) {
        stop_put(&out, &b->stop);
        link_send_urgent(a->session, WIRE_STOPPED, out.data, out.len);
        buf_free(&out);
    }
    if (over && a->session)
        link_close(a->session, 2000); /* `closed` ends us */
    else if (over)
        agent_exit(a, AGENT_EXIT_DONE);
}

/* No job is under way: say what was promised. */
static void backup_settle(struct backup *b)
{
    enum reply reply = b->reply;

    b->reply = REPLY_NOTHING;
    if (reply == REPLY_STOPPED) {
        b->was_protected = false;
        reply_stopped(b);
    } else if (reply == REPLY_DISCARDED && b->a->session) {
        agent_state(b->a, VM_SYNCING, "the replica was given up");
        reply_discarded(b);
    }
}

static void give_up(struct backup *b, enum reply reply)
{
    b->reply = reply;
    if (b->work == WORK_NONE)
        shell_start(b, false);
}

/* --- Records
 * --------------------------------------------------------------------
 */

static void on_hello(struct backup *b, const uint8_t *payload, size_t len)
{
    struct agent *a = b->a;
    struct wire_hello h;
    struct err e = ERR_INIT;

    if (hello_get(&h, payload, len, &e)) {
        link_fail(a->session, &e);
        return;
    }
    if (h.protocol != WIRE_VERSION || h.role != WIRE_PRIMARY ||
        memcmp(h.uuid, a->uuid, sizeof h.uuid)) {
        err_kind(&e, ERR_REFUSED, "protocol %u here, %u there, or another VM",
                 WIRE_VERSION, h.protocol);
        err_hint(&e, "install the same version of understudy on both hosts");
        link_fail(a->session, &e);
        return;
    }
    a->hello_seen = true;
    b->told_silent = false;
    if (a->lease.state == LEASE_WON) {
        if (!lease_keeps(a->lease.generation, true, h.generation))
            agent_lease_event(a, LEASE_EV_DENIED);
        return;
    }
    /* Our replica is of a generation that is over. */
    if (h.generation > a->lease.generation && a->lease.state == LEASE_STANDBY &&
        b->work == WORK_NONE)
        give_up(b, REPLY_NOTHING);
    if (h.generation >= a->lease.generation) {
        a->lease.generation = h.generation;
        memcpy(a->rec.incarnation, h.incarnation, 16);
        agent_save(a);
    }
}

/* The whole blueprint is here and nothing else is under way. */
static void blueprint_build(struct backup *b)
{
    b->build_due = 0;
    buf_free(&b->blueprint);
    b->blueprint = b->collect;
    memset(&b->collect, 0, sizeof b->collect);
    agent_state(b->a, VM_SYNCING, "building the shell for %s", b->a->rec.name);
    shell_start(b, true);
}

static void on_blueprint(struct backup *b, const uint8_t *payload, size_t len)
{
    struct agent *a = b->a;
    struct wire_blueprint w;
    struct err e = ERR_INIT;
    bool done = false;

    if (blueprint_get(&w, payload, len, &e) ||
        blueprint_collect(&b->collect, &w, &done, &e)) {
        link_fail(a->session, &e);
        return;
    }
    if (!done)
        return;
    if (b->work == WORK_DISCARD) {
        b->build_due = b->session_no; /* shell_done() goes on with it */
        return;
    }
    if (b->work != WORK_NONE) {
        err_kind(&e, ERR_REFUSED, "%s is still clearing up here", a->rec.name);
        err_hint(&e, "try again in a few seconds");
        link_fail(a->session, &e);
        return;
    }
    blueprint_build(b);
}

static void on_epoch_record(struct backup *b, enum epoch_record type,
                            const uint8_t *payload, size_t len)
{
    struct err e = ERR_INIT;

    if (!b->rep)
        err_set(&e, "pages came before the shell was ready");
    else if (!replica_record(b->rep, type, payload, len, &e))
        return;
    agent_event(b->a, "violation", "%s", e.text);
    link_fail(b->a->session, &e);
}

static void on_stop(struct backup *b, const uint8_t *payload, size_t len)
{
    struct err e = ERR_INIT;

    if (stop_get(&b->stop, payload, len, &e))
        link_fail(b->a->session, &e);
    else
        give_up(b, REPLY_STOPPED);
}

static void on_discard(struct backup *b, const uint8_t *payload, size_t len)
{
    struct wire_discard d;
    struct err e = ERR_INIT;

    if (discard_get(&d, payload, len, &e)) {
        link_fail(b->a->session, &e);
        return;
    }
    agent_event(b->a, "discard", "the replica is given up: %s", d.text);
    give_up(b, REPLY_DISCARDED);
}

static void backup_record(struct agent *a, uint32_t type,
                          const uint8_t *payload, size_t len)
{
    struct backup *b = a->priv;
    bool runs = a->lease.state == LEASE_WON || a->lease.state == LEASE_LOST;
    struct err e = ERR_INIT;

    if (runs && type != WIRE_HELLO && type != WIRE_BYE) {
        err_kind(&e, ERR_REFUSED, "%s runs on this host since a takeover",
                 a->rec.name);
        link_fail(a->session, &e);
        return;
    }
    switch (type) {
    case WIRE_HELLO:
        on_hello(b, payload, len);
        break;
    case WIRE_BLUEPRINT:
        on_blueprint(b, payload, len);
        break;
    case WIRE_PAGES:
        on_epoch_record(b, EPOCH_PAGES, payload, len);
        break;
    case WIRE_STATE:
        on_epoch_record(b, EPOCH_STATE, payload, len);
        break;
    case WIRE_COMMIT:
        on_epoch_record(b, EPOCH_COMMIT, payload, len);
        break;
    case WIRE_DISCARD:
        on_discard(b, payload, len);
        break;
    case WIRE_STOP:
        on_stop(b, payload, len);
        break;
    case WIRE_BYE:
    case WIRE_REFUSE:
        break; /* the end of the session follows */
    default:
        err_set(&e, "%s from a primary", wire_type_name(type));
        link_fail(a->session, &e);
    }
}

/* --- Sessions
 * ---------------------------------------------------------------------
 */

static bool backup_lookup(void *arg, const uint8_t pin[PIN_BYTES],
                          char name[WIRE_NAME_MAX])
{
    struct agent *a = arg;
    struct link_peers peers = {0};
    struct err e = ERR_INIT;
    bool known = false;

    if (!peers_load(&peers, path_peers().s, &e)) {
        const struct link_peer *peer = peers_by_pin(&peers, pin);
        known = peer && !strcmp(peer->name, a->rec.peer);
        if (peer)
            snprintf(name, WIRE_NAME_MAX, "%s", peer->name);
    }
    peers_free(&peers);
    return known;
}

static void backup_accept(struct agent *a, int fd)
{
    struct link_session *s = NULL;
    struct err e = ERR_INIT;

    if (link_accept(a->loop, a->tls, fd, WIRE_VM, backup_lookup, a,
                    &agent_link_callbacks, a, &s, &e))
        log_warn("dom=%s %s", a->rec.name, e.text);
}

static void backup_session_ready(struct agent *a)
{
    struct backup *b = a->priv;

    b->session_no++;
    buf_clear(&b->collect);
    agent_send_hello(a);
}

static void backup_session_closed(struct agent *a, const struct err *why)
{
    struct backup *b = a->priv;

    if (why->kind)
        agent_event(a, "session", "the session from %s ended: %s", a->rec.peer,
                    why->text);
    if (b->rep)
        replica_session_lost(b->rep);
    b->idle_ns = clock_ns();
    bool over = b->stop.reason && b->stop.reason != WIRE_STOP_REBOOT;
    if (over && b->work == WORK_NONE && !b->rep)
        agent_exit(a, AGENT_EXIT_DONE);
}

static void backup_hello(struct agent *a, struct wire_hello *h)
{
    struct backup *b = a->priv;

    if (b->rep)
        h->committed = replica_committed(b->rep);
    h->has_replica = b->rep && h->committed > 0;
}

/* --- Life ------------------------------------------------------------ */

static void backup_decided(struct agent *a, enum lease_action action)
{
    struct backup *b = a->priv;
    struct err e = ERR_INIT;

    if (action == LEASE_DO_TAKEOVER) {
        backup_takeover_start(b);
    } else if (action == LEASE_DO_DISCARD) {
        give_up(b, REPLY_NOTHING);
    } else if (action == LEASE_DO_FENCE) {
        if (a->hv->ops->pause(a->hv, (uint32_t)a->rec.domid, &e))
            log_error("dom=%s pause: %s", a->rec.name, e.text);
        a->rec.running = false;
        agent_state(a, VM_FENCED,
                    "%s has a higher generation; the copy here is paused",
                    a->rec.peer);
    }
}

static void backup_tick(struct agent *a, uint64_t now)
{
    struct backup *b = a->priv;
    bool replica = a->lease.state != LEASE_EMPTY;

    if (replica || a->session || b->work != WORK_NONE) {
        b->idle_ns = now;
        return;
    }
    if (!b->told_silent &&
        lease_silence(&a->lease, now) > a->lease.timeout_ns) {
        b->told_silent = true;
        agent_event(a, "silent",
                    "%s is silent, and no whole epoch is here: nothing to "
                    "take over with, nothing is started",
                    a->rec.peer);
    }
    if (!b->was_protected && now - b->idle_ns > IDLE_NS) {
        agent_event(a, "idle", "no primary came: forgetting %s", a->rec.name);
        agent_exit(a, AGENT_EXIT_DONE);
    }
}

/* We run the VM since an earlier takeover. */
static int backup_resume(struct backup *b, struct err *e)
{
    struct agent *a = b->a;
    struct hv_domain d;

    if (a->hv->ops->find_uuid(a->hv, a->uuid, false, &d, e) &&
        a->hv->ops->find_uuid(a->hv, a->uuid, true, &d, e)) {
        if (e->kind != ERR_GONE)
            return -1;
        agent_event(a, "gone", "%s ran here since a takeover and is gone",
                    a->rec.name);
        agent_exit(a, AGENT_EXIT_DONE);
        return 0;
    }
    a->lease.state = LEASE_WON;
    a->rec.domid = d.domid;
    return 0;
}

static int backup_start(struct agent *a, struct err *e)
{
    struct backup *b = calloc(1, sizeof *b);

    if (!b)
        abort();
    a->priv = b;
    b->a = a;
    b->idle_ns = clock_ns();
    b->was_protected =
        a->rec.state == VM_PROTECTED || a->rec.state == VM_DEGRADED;
    ev_async_init(&b->acked, acked_cb);
    b->acked.data = b;
    ev_async_start(a->loop, &b->acked);
    if (a->rec.running || a->rec.state == VM_TAKEN_OVER)
        return backup_resume(b, e);
    /* What a predecessor held died with it: memory alone is no replica. */
    agent_state(a, VM_SYNCING, "waiting for %s", a->rec.peer);
    shell_start(b, false);
    return 0;
}

/* unprotect, typed here: it has to be typed where the VM runs. */
static void on_unprotect(struct backup *b, struct ipc_conn *c, json_t *msg)
{
    struct agent *a = b->a;
    struct err e = ERR_INIT;

    if (a->lease.state == LEASE_WON || a->lease.state == LEASE_LOST) {
        ipc_reply(c, msg, NULL);
        agent_state(a, VM_UNPROTECTED, "unprotect was asked for");
        agent_exit(a, AGENT_EXIT_DONE);
        return;
    }
    err_kind(&e, ERR_REFUSED, "%s is the backup of %s", "this host",
             a->rec.name);
    err_hint(&e, "type it on %s, where the VM runs", a->rec.peer);
    ipc_reply_error(c, msg, &e);
}

static void backup_request(struct agent *a, struct ipc_conn *c, json_t *msg,
                           int fd)
{
    struct backup *b = a->priv;
    const char *op = json_text(msg, "op", "");
    struct err e = ERR_INIT;

    if (!strcmp(op, "session") && fd >= 0) {
        backup_accept(a, fd);
        return;
    }
    if (fd >= 0)
        close(fd);
    if (!strcmp(op, "takeover")) {
        backup_on_takeover(b, c, msg);
    } else if (!strcmp(op, "stop")) {
        on_unprotect(b, c, msg);
    } else {
        err_kind(&e, ERR_USAGE, "unknown request '%s'", op);
        ipc_reply_error(c, msg, &e);
    }
}

static void backup_status(struct agent *a, json_t *out)
{
    struct backup *b = a->priv;
    struct replica_status st = {0};

    if (b->rep) {
        replica_status(b->rep, &st);
        json_object_set_new(out, "bytes_received",
                            json_integer((json_int_t)st.bytes));
        json_object_set_new(out, "applied",
                            json_integer((json_int_t)st.applied));
        if (st.committed_ns)
            json_object_set_new(
                out, "lag_ms",
                json_integer(
                    (json_int_t)((clock_ns() - st.committed_ns) / NS_PER_MS)));
    }
    json_object_set_new(
        out, "epoch",
        json_integer((json_int_t)(b->rep ? st.committed : b->ack_sent)));
    if (b->running_ns)
        json_object_set_new(
            out, "takeover",
            json_pack("{s:I, s:I}", "detect_ms",
                      (json_int_t)((b->claimed_ns - b->heard_ns) / NS_PER_MS),
                      "total_ms",
                      (json_int_t)((b->running_ns - b->heard_ns) / NS_PER_MS)));
}

const struct agent_role agent_backup_role = {
    .role = ROLE_BACKUP,
    .start = backup_start,
    .tick = backup_tick,
    .decided = backup_decided,
    .session_ready = backup_session_ready,
    .record = backup_record,
    .session_closed = backup_session_closed,
    .hello = backup_hello,
    .request = backup_request,
    .status = backup_status,
};
