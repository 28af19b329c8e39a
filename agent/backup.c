// SPDX-License-Identifier: Apache-2.0
/* The backup's agent: it has the shell built, holds the replica, and takes
 * over. Loop thread; building, discarding and taking over are jobs, applying is
 * the replica's own thread. */
#include "agent/backup.h"
#include "agent/disk_status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/cold.h"
#include "agent/guest_down.h"
#include "agent/job.h"
#include "agent/paths.h"
#include "agent/turn.h"
#include "checkpoint/epoch.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "link/peers.h"

/* How long a backup without a replica waits for its primary before it goes:
 * the primary's daemon asks for a new one when it needs it. */
#define IDLE_NS (60 * NS_PER_SEC)
/* Without a session for so long, ask whether there is still a primary. An
 * answer takes at most ANSWER_NS. */
#define ASK_NS    (2 * NS_PER_SEC)
#define ANSWER_NS (30 * NS_PER_SEC)

/* --- Acknowledging
 * ------------------------------------------------------------
 */

/* Apply thread. Only the newest matters. */
void backup_committed(void *arg, uint64_t epoch, uint64_t applied,
                      uint64_t disks)
{
    struct backup *b = arg;

    __atomic_store_n(&b->ack_disks, disks, __ATOMIC_RELAXED);
    __atomic_store_n(&b->ack_applied, applied, __ATOMIC_RELAXED);
    __atomic_store_n(&b->ack_epoch, epoch, __ATOMIC_RELEASE);
    ev_async_send(b->a->loop, &b->acked);
}

void backup_disks_failed(void *arg, const struct err *why)
{
    struct backup *b = arg;

    b->disks_why = *why;
    __atomic_store_n(&b->disks_failed, true, __ATOMIC_RELEASE);
    ev_async_send(b->a->loop, &b->acked);
}

void backup_disks_answer(void *arg, const void *payload, size_t len)
{
    struct backup *b = arg;

    pthread_mutex_lock(&b->answers_lock);
    buf_blob(&b->answers, payload, len);
    pthread_mutex_unlock(&b->answers_lock);
    ev_async_send(b->a->loop, &b->acked);
}

static void answers_send(struct backup *b)
{
    pthread_mutex_lock(&b->answers_lock);
    struct reader r = reader_of(b->answers.data, b->answers.len);
    while (b->a->session && b->rep && reader_left(&r)) {
        size_t n;
        const uint8_t *p = read_blob(&r, WIRE_CONTROL_MAX, &n);
        link_send(b->a->session, WIRE_DISK_WANT, p, n);
    }
    buf_clear(&b->answers);
    pthread_mutex_unlock(&b->answers_lock);
}

static void acked_cb(struct ev_loop *loop, ev_async *w, int revents)
{
    struct backup *b = w->data;
    struct agent *a = b->a;
    struct epoch_ack ack = {
        .epoch = __atomic_load_n(&b->ack_epoch, __ATOMIC_ACQUIRE),
        .applied = __atomic_load_n(&b->ack_applied, __ATOMIC_RELAXED),
        .disks = __atomic_load_n(&b->ack_disks, __ATOMIC_RELAXED)};
    struct buf out = {0};

    (void)loop;
    (void)revents;
    backup_disks_tick(b);
    answers_send(b);
    if (ack.epoch <= b->ack_sent || !b->rep || !backup_follows(b))
        return;
    b->ack_sent = ack.epoch;
    agent_lease_event(a, LEASE_EV_COMMIT);
    /* Nothing on the disk has to come before: the replica is in memory, and
     * dies with what a record could tell a successor. */
    if (a->session) {
        epoch_ack_put(&out, &ack);
        link_send_urgent(a->session, WIRE_ACK, out.data, out.len);
        buf_free(&out);
    }
    backup_cold_keep(b);
    if (a->state.now != VM_PROTECTED) {
        b->was_protected = true;
        agent_state(a, VM_PROTECTED, "epoch %llu is committed here",
                    (unsigned long long)ack.epoch);
    }
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
    if (b->stray.kind) {
        link_fail(a->session, &b->stray);
        if (!backup_stray(b))
            agent_exit(a, AGENT_EXIT_AGAIN); /* a person has helped */
        return;
    }
    a->hello_seen = true;
    b->told_silent = false;
    if (b->work == WORK_TAKEOVER || b->work == WORK_FENCE) {
        if (h.generation < a->lease.generation)
            return; /* it ends the session when it reads ours */
        err_kind(&e, ERR_REFUSED, "%s is being taken over here", a->rec.name);
        link_fail(a->session, &e);
        return;
    }
    if (a->arb) {
        if (backup_generation_fits(b, &h) &&
            memcmp(a->rec.incarnation, h.incarnation, 16)) {
            memcpy(a->rec.incarnation, h.incarnation, 16);
            agent_save_later(a);
        }
        return;
    }
    if (a->lease.state == LEASE_WON) {
        if (!lease_keeps(a->lease.generation, true, h.generation))
            agent_lease_event(a, LEASE_EV_DENIED);
        return;
    }
    /* Our replica is of a generation that is over. */
    if (h.generation > a->lease.generation && a->lease.state == LEASE_STANDBY &&
        b->work == WORK_NONE)
        backup_give_up(b, REPLY_NOTHING);
    if (h.generation >= a->lease.generation) {
        a->lease.generation = h.generation;
        memcpy(a->rec.incarnation, h.incarnation, 16);
        agent_save_later(a);
    }
}

static void on_epoch_record(struct backup *b, enum epoch_record type,
                            const uint8_t *payload, size_t len)
{
    struct err e = ERR_INIT;

    if (!b->rep && b->left_session == b->session_no)
        return;
    if (b->a->arb && !backup_follows(b)) {
        err_kind(&e, ERR_GONE, "%s may be taken over here", b->a->rec.name);
        link_fail(b->a->session, &e);
        return;
    }
    if (!b->rep)
        err_set(&e, "pages came before the shell was ready");
    else if (!replica_record(b->rep, type, payload, len, &e))
        return;
    agent_event(b->a, "violation", "%s", e.text);
    link_fail(b->a->session, &e);
}

static void on_stop(struct backup *b, const uint8_t *payload, size_t len)
{
    struct wire_stop stop;
    struct err e = ERR_INIT;

    if (stop_get(&stop, payload, len, &e)) {
        link_fail(b->a->session, &e);
        return;
    }
    b->stop = stop;
    b->left_session = b->session_no;
    backup_give_up(b, REPLY_STOPPED);
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
    b->discard = d;
    b->left_session = b->session_no;
    backup_give_up(b, REPLY_DISCARDED);
}

/* Why this host is nobody's backup now. */
static void refuse_text(struct agent *a, struct err *e)
{
    if (a->rec.running) {
        err_kind(e, ERR_REFUSED, "%s runs on this host since a takeover",
                 a->rec.name);
        return;
    }
    err_kind(e, ERR_REFUSED, "%s: %s", a->rec.name, a->reason);
    err_hint(e,
             "on that host: understudy unprotect %s, and remove the paused "
             "domain",
             a->rec.name);
}

static void backup_record(struct agent *a, uint32_t type,
                          const uint8_t *payload, size_t len)
{
    struct backup *b = a->priv;
    bool runs = a->lease.state == LEASE_WON || a->lease.state == LEASE_LOST;
    struct err e = ERR_INIT;

    if (runs && type != WIRE_HELLO && type != WIRE_BYE) {
        refuse_text(a, &e);
        link_fail(a->session, &e);
        return;
    }
    switch (type) {
    case WIRE_HELLO:
        on_hello(b, payload, len);
        break;
    case WIRE_BLUEPRINT:
        backup_on_blueprint(b, payload, len);
        break;
    case WIRE_PAGES:
        on_epoch_record(b, EPOCH_PAGES, payload, len);
        break;
    case WIRE_STATE:
        on_epoch_record(b, EPOCH_STATE, payload, len);
        break;
    case WIRE_DISK:
        on_epoch_record(b, EPOCH_DISK, payload, len);
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
    if (backup_greets(b))
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
        if (!backup_fence(b))
            backup_takeover_start(b);
    } else if (action == LEASE_DO_DISCARD) {
        backup_give_up(b, REPLY_NOTHING);
    } else if (action == LEASE_DO_FENCE) {
        if (a->hv->ops->pause(a->hv, (uint32_t)a->rec.domid, &e))
            log_error("dom=%s pause: %s", a->rec.name, e.text);
        else
            backup_mark_remove(b); /* else the next agent tries it */
        a->rec.running = false;
        agent_state(a, VM_FENCED,
                    "%s has a higher generation; the copy here is paused",
                    a->rec.peer);
    }
}

static void ask_for_primary(struct backup *b, uint64_t now)
{
    struct agent *a = b->a;

    if (a->session || b->work != WORK_NONE || !a->daemon) {
        b->ask_ns = now + ASK_NS;
        return;
    }
    if (now < b->ask_ns)
        return;
    b->ask_ns = now + ANSWER_NS;
    agent_ask(a, json_pack("{s:i, s:s, s:s}", "ask", (int)++b->asked, "op",
                           "query", "uuid", a->rec.uuid));
}

static void backup_tick(struct agent *a, uint64_t now)
{
    struct backup *b = a->priv;
    bool replica = a->lease.state != LEASE_EMPTY;

    ask_for_primary(b, now);
    backup_cold_tick(b, now);
    backup_keep_tick(b, now);
    backup_shell_tick(b, now);
    backup_disks_tick(b);
    if (b->marked && !a->unsaved)
        backup_mark_remove(b);
    if (a->rec.running && b->work == WORK_NONE)
        backup_guest_tick(b, now);
    if (replica || a->session || b->work != WORK_NONE) {
        b->idle_ns = now;
        return;
    }
    backup_silence_say(b, now);
    if (!b->was_protected && now - b->idle_ns > IDLE_NS) {
        agent_event(a, "idle", "no primary came: forgetting %s", a->rec.name);
        agent_exit(a, AGENT_EXIT_DONE);
    }
}

static int backup_start(struct agent *a, struct err *e)
{
    struct backup *b = calloc(1, sizeof *b);

    if (!b)
        abort();
    a->priv = b;
    b->a = a;
    pthread_mutex_init(&b->answers_lock, NULL);
    b->idle_ns = clock_ns();
    b->was_protected = a->rec.state == VM_PROTECTED ||
                       a->rec.state == VM_DEGRADED || cold_is(a->rec.uuid);
    ev_async_init(&b->acked, acked_cb);
    b->acked.data = b;
    ev_async_start(a->loop, &b->acked);
    if (a->rec.state == VM_FENCED || !strcmp(a->rec.lease, "lost")) {
        a->lease.state = LEASE_LOST;
        return 0;
    }
    if (a->rec.running || a->rec.state == VM_TAKEN_OVER)
        return backup_resume(b, e);
    bool mine = false;
    if (backup_finish(b, &mine, e))
        return -1;
    if (mine)
        return 0;
    if (backup_stray(b))
        return 0;
    /* What a predecessor held died with it: memory alone is no replica. */
    backup_lease_begin(b);
    agent_state(a, VM_SYNCING, "waiting for %s", a->rec.peer);
    backup_clear(b);
    return 0;
}

/* unprotect, typed here: it has to be typed where the VM runs, unless nothing
 * that could be taken over is left here and nobody comes. */
static void on_unprotect(struct backup *b, struct ipc_conn *c, json_t *msg)
{
    struct agent *a = b->a;
    struct err e = ERR_INIT;
    bool ran = a->lease.state == LEASE_WON || a->lease.state == LEASE_LOST ||
               b->stray.kind;
    bool forsaken = a->lease.state == LEASE_EMPTY && !a->session &&
                    lease_silence(&a->lease, clock_ns()) > a->lease.timeout_ns;

    if (!ran && !forsaken) {
        err_kind(&e, ERR_REFUSED, "%s runs on %s, this host is only its backup",
                 a->rec.name, a->rec.peer);
        err_hint(&e, "on %s: understudy unprotect %s", a->rec.peer,
                 a->rec.name);
        ipc_reply_error(c, msg, &e);
        return;
    }
    ipc_reply(c, msg, NULL);
    b->reply = REPLY_LEFT;
    if (b->work == WORK_NONE)
        backup_settle(b);
}

/* protect, typed here after a takeover. */
static void on_turn(struct backup *b, struct ipc_conn *c, json_t *msg)
{
    struct agent *a = b->a;
    struct err e = ERR_INIT;

    if (a->lease.state == LEASE_WON && a->state.now == VM_TAKEN_OVER &&
        b->work == WORK_NONE && !b->handing) {
        turn_request(a, c, msg);
        return;
    }
    err_kind(&e, ERR_REFUSED, "%s is %s here and can't be protected just now",
             a->rec.name, vm_state_name(a->state.now));
    err_hint(&e, "try again in a few seconds");
    ipc_reply_error(c, msg, &e);
}

/* An answer to `query`: the primary's host knows nothing of this VM, or no more
 * than that it took it over, so its protection was ended when we could not be
 * told. */
static void on_answer(struct backup *b, const json_t *msg)
{
    struct agent *a = b->a;

    bool primary = json_flag(msg, "known", true) &&
                   strcmp(json_text(msg, "role", ""), "backup") != 0;

    if (json_number(msg, "answer", -1) != (long long)b->asked)
        return;
    b->ask_ns = clock_ns() + ASK_NS;
    if (a->session || b->work != WORK_NONE || !json_flag(msg, "ok", false) ||
        primary)
        return;
    if (a->lease.state != LEASE_EMPTY && a->lease.state != LEASE_STANDBY)
        return;
    agent_event(a, "stop", "%s does not protect %s any more", a->rec.peer,
                a->rec.name);
    backup_give_up(b, REPLY_LEFT);
}

static void backup_client_gone(struct agent *a, struct ipc_conn *c)
{
    struct backup *b = a->priv;

    if (b->taker == c)
        b->taker = NULL;
    if (a->daemon == c)
        b->ask_ns = clock_ns() + ASK_NS;
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
    } else if (!strcmp(op, "turn")) {
        on_turn(b, c, msg);
    } else if (json_object_get(msg, "answer")) {
        on_answer(b, msg);
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

    disk_status_put(out, b->shell ? b->shell : a->rec.domid);
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
        json_integer((json_int_t)(b->rep ? st.committed : b->epoch)));
    if (b->running_ns)
        json_object_set_new(
            out, "takeover",
            json_pack("{s:I, s:I}", "detect_ms",
                      (json_int_t)((b->claimed_ns - b->heard_ns) / NS_PER_MS),
                      "total_ms",
                      (json_int_t)((b->running_ns - b->heard_ns) / NS_PER_MS)));
    if (b->from_disk_ms)
        json_object_set_new(out, "from_disk_ms",
                            json_integer((json_int_t)b->from_disk_ms));
}

const struct agent_role agent_backup_role = {
    .role = ROLE_BACKUP,
    .start = backup_start,
    .tick = backup_tick,
    .decided = backup_decided,
    .generation = backup_generation,
    .session_ready = backup_session_ready,
    .record = backup_record,
    .session_closed = backup_session_closed,
    .hello = backup_hello,
    .request = backup_request,
    .status = backup_status,
    .client_gone = backup_client_gone,
};
