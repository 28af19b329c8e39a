// SPDX-License-Identifier: Apache-2.0
/* The per-VM agent: what both roles share. Started by the daemon, runs one
 * loop; slow work is done by jobs and by the engine's and the replica's own
 * threads. See agent_core.h. */
#include "agent/agent_core.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "agent/cold.h"
#include "agent/lock.h"
#include "agent/paths.h"
#include "agent/save.h"
#include "agent/turn.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"

#define KEEP_BYTES (32 << 20) /* of free memory, in one piece */

/* --- State, events, record ---------------------------------------------- */

void agent_event(struct agent *a, const char *name, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    log_info("dom=%s event=%s %s", a->rec.name, name, text);
    json_t *msg = json_pack("{s:s, s:o, s:I, s:s}", "event", name, "text",
                            text_json(text), "time_ms",
                            (json_int_t)clock_wall_ms(), "vm", a->rec.name);
    ipc_broadcast(a->ipc, msg);
    json_decref(msg);
}

static void record_update(struct agent *a)
{
    a->rec.state = a->state.now;
    agent_lease_record(a);
}

static int save_try(struct agent *a, struct err *e)
{
    record_update(a);
    if (save_now(&a->rec, e))
        return -1;
    a->unsaved = false;
    return 0;
}

/* We go on as if we died before it were written, and try again. */
static void unsaved_say(struct agent *a, const struct err *why)
{
    if (!a->unsaved)
        agent_event(a, "error", "%s; it is tried again", why->text);
    snprintf(a->unsaved_why, sizeof a->unsaved_why, "%s", why->text);
    a->unsaved = true;
    a->save_failures++;
    a->save_ns = clock_ns();
}

bool agent_save(struct agent *a)
{
    struct err e = ERR_INIT;

    if (a->forgotten)
        return false;
    if (!save_try(a, &e))
        return true;
    if (a->lease.state != LEASE_WON) {
        agent_give_up(a, &e);
        return false;
    }
    unsaved_say(a, &e);
    return true;
}

/* A write by a job. */
struct later {
    struct agent *a;
    json_t *msg;       /* what the daemon is then told, or NULL */
    agent_saved *done; /* who decides what comes of it, or NULL */
    unsigned failures; /* that were there before it */
    bool again;        /* because of one */
};

static void later_done(void *arg, int rc, const struct err *e)
{
    struct later *l = arg;
    struct agent *a = l->a;

    if (l->again)
        a->saves_again = false;
    if (!rc && l->failures == a->save_failures)
        a->unsaved = false;
    if (rc && !l->done && !a->over)
        unsaved_say(a, e);
    if (l->done && !a->over)
        l->done(a, rc ? e : NULL);
    if (l->msg && !a->over)
        ipc_broadcast(a->ipc, l->msg);
    json_decref(l->msg);
    free(l);
}

static void save_behind(struct agent *a, struct later what)
{
    struct later *l = malloc(sizeof *l);

    if (!l)
        abort();
    *l = what;
    l->a = a;
    l->failures = a->save_failures;
    record_update(a);
    save_later(a->loop, &a->rec, later_done, l);
}

void agent_save_later(struct agent *a)
{
    if (!a->forgotten)
        save_behind(a, (struct later){0});
}

void agent_save_then(struct agent *a, agent_saved *done)
{
    if (!a->forgotten)
        save_behind(a, (struct later){.done = done});
}

/* Never in the loop's own time: a disk that fails may do so slowly. */
static void save_again(struct agent *a)
{
    if (!a->unsaved || a->saves_again || a->forgotten ||
        clock_ns() - a->save_ns < NS_PER_SEC)
        return;
    a->saves_again = true;
    save_behind(a, (struct later){.again = true});
}

/* Has it to be on the disk before the next step? A copy that comes or goes has
 * not: it is in memory, and its generation is saved by itself. */
static bool state_binds(enum vm_state s)
{
    return s != VM_SYNCING && s != VM_PROTECTED && s != VM_DEGRADED;
}

void agent_state(struct agent *a, enum vm_state to, const char *why, ...)
{
    enum vm_state from = a->state.now;
    struct err e = ERR_INIT;
    va_list ap;

    va_start(ap, why);
    vsnprintf(a->reason, sizeof a->reason, why, ap);
    va_end(ap);
    if (from == to)
        return;
    if (state_move(&a->state, to, a->reason, clock_ns(), &e)) {
        agent_give_up(a, &e);
        return;
    }
    log_info("dom=%s state=%s was=%s %s", a->rec.name, vm_state_name(to),
             vm_state_name(from), a->reason);
    json_t *msg =
        json_pack("{s:s, s:s, s:s, s:o, s:I}", "state", vm_state_name(to),
                  "previous", vm_state_name(from), "vm", a->rec.name, "text",
                  text_json(a->reason), "time_ms", (json_int_t)clock_wall_ms());
    if (!state_binds(to)) {
        save_behind(a, (struct later){.msg = msg});
        return;
    }
    if (agent_save(a))
        ipc_broadcast(a->ipc, msg);
    json_decref(msg);
}

void agent_exit(struct agent *a, enum agent_exit status)
{
    struct err e = ERR_INIT;

    if (status == AGENT_EXIT_DONE) {
        /* What else is pending in this turn of the loop still runs. */
        a->forgotten = true;
        if (save_delete(a->rec.uuid, &e))
            log_error("dom=%s %s", a->rec.name, e.text);
        unlink(path_agent(a->rec.uuid).s);
        cold_remove(a->rec.uuid);
    }
    a->exit_status = a->forgotten ? AGENT_EXIT_DONE : status;
    a->over = true;
    ev_break(a->loop, EVBREAK_ALL);
}

void agent_give_up(struct agent *a, const struct err *why)
{
    agent_event(a, "error", "%s; the agent starts again", why->text);
    agent_exit(a, AGENT_EXIT_AGAIN);
}

/* --- Time ---------------------------------------------------------------- */

static void tick_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct agent *a = w->data;
    uint64_t now = clock_ns();
    struct link_stats stats;

    (void)loop;
    (void)revents;
    if (a->session && a->hello_seen) {
        link_stats(a->session, &stats);
        lease_heard_agent(&a->lease, stats.heard_ns);
    }
    lease_heard_daemon(&a->lease, a->daemon_heard_ns);
    agent_lease_check(a, now);
    agent_lease_action(a, lease_tick(&a->lease, now));
    save_again(a);
    a->role->tick(a, now);
}

/* --- The session ---------------------------------------------------------- */

void agent_send_hello(struct agent *a)
{
    struct wire_hello h = {
        .protocol = WIRE_VERSION,
        .kind = WIRE_VM,
        .role = a->rec.role == ROLE_PRIMARY ? WIRE_PRIMARY : WIRE_BACKUP,
        .running = a->rec.running,
        .generation = a->lease.generation,
        .beat_ms = a->rec.timeout_ms / 10,
    };
    struct buf b = {0};

    memcpy(h.uuid, a->uuid, sizeof h.uuid);
    memcpy(h.incarnation, a->rec.incarnation, sizeof h.incarnation);
    snprintf(h.version, sizeof h.version, "%s", UNDERSTUDY_VERSION);
    snprintf(h.name, sizeof h.name, "%s", a->rec.name);
    a->role->hello(a, &h);
    hello_put(&b, &h);
    link_send(a->session, WIRE_HELLO, b.data, b.len);
    buf_free(&b);
}

static void session_ready(struct link_session *s, void *arg)
{
    struct agent *a = arg;

    /* A backup accepts: a new connection of its primary replaces the old. */
    if (s != a->session) {
        struct err e = ERR_INIT;
        err_kind(&e, ERR_GONE, "a newer connection replaces it");
        bool had = a->session;
        agent_session_set(a, s);
        if (had)
            a->role->session_closed(a, &e);
    }
    a->role->session_ready(a);
}

static void session_beat(struct agent *a, const uint8_t *payload, size_t len)
{
    struct wire_beat beat;
    struct err e = ERR_INIT;

    if (beat_get(&beat, payload, len, &e)) {
        link_fail(a->session, &e);
        return;
    }
    a->peer_beat_sent = beat.sent_ns;
    a->peer_beat_ns = clock_ns();
}

static void session_record(struct link_session *s, uint32_t type,
                           const uint8_t *payload, size_t len, void *arg)
{
    struct agent *a = arg;
    struct err e = ERR_INIT;

    if (s != a->session)
        return;
    if (type == WIRE_BEAT) {
        session_beat(a, payload, len);
    } else if (!a->hello_seen && type != WIRE_HELLO && type != WIRE_REFUSE &&
               type != WIRE_BYE) {
        err_set(&e, "the peer sent %s before HELLO", wire_type_name(type));
        link_fail(s, &e);
    } else {
        a->role->record(a, type, payload, len);
    }
}

static void session_closed(struct link_session *s, const struct err *why,
                           void *arg)
{
    struct agent *a = arg;

    if (s != a->session)
        return;
    a->session = NULL;
    a->hello_seen = false;
    a->role->session_closed(a, why);
}

const struct link_callbacks agent_link_callbacks = {
    .ready = session_ready,
    .record = session_record,
    .closed = session_closed,
};

void agent_session_drop(struct agent *a)
{
    if (a->session)
        link_drop(a->session);
    a->session = NULL;
    a->hello_seen = false;
}

void agent_session_set(struct agent *a, struct link_session *s)
{
    agent_session_drop(a);
    a->session = s;
    a->beat_seq = a->peer_beat_sent = 0;
}

static void beat_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct agent *a = w->data;
    struct buf b = {0};

    (void)loop;
    (void)revents;
    if (!a->session || !link_is_ready(a->session))
        return;
    struct wire_beat beat = {
        .seq = ++a->beat_seq,
        .sent_ns = clock_ns(),
        .echo_ns = a->peer_beat_sent,
        .held_ns = a->peer_beat_sent ? clock_ns() - a->peer_beat_ns : 0,
    };
    beat_put(&b, &beat);
    link_send_urgent(a->session, WIRE_BEAT, b.data, b.len);
    buf_free(&b);
}

/* --- The daemon ----------------------------------------------------------- */

static json_t *status_build(struct agent *a)
{
    uint64_t now = clock_ns();
    json_t *o = json_pack(
        "{s:s, s:s, s:I, s:s, s:s, s:s, s:s, s:I, s:i, s:I, s:o, s:i}", "name",
        a->rec.name, "uuid", a->rec.uuid, "domid", (json_int_t)a->rec.domid,
        "role", vm_role_name(a->rec.role), "state", vm_state_name(a->state.now),
        "peer", a->rec.peer, "arbiter", a->rec.arbiter, "generation",
        (json_int_t)a->lease.generation, "interval_ms", (int)a->rec.interval_ms,
        "peer_heard_ms",
        (json_int_t)(lease_silence(&a->lease, now) / NS_PER_MS), "reason",
        text_json(a->reason), "pid", (int)getpid());
    json_object_set_new(o, "timeout_ms", json_integer(a->rec.timeout_ms));
    if (a->unsaved)
        json_object_set_new(o, "unsaved", text_json(a->unsaved_why));
    agent_lease_status(a, o);
    a->role->status(a, o);
    return o;
}

static void daemon_peer(struct agent *a, const json_t *msg)
{
    long long heard_ms = json_number(msg, "heard_ms", -1);
    uint64_t now = clock_ns();

    if (heard_ms >= 0 && (uint64_t)heard_ms < now / NS_PER_MS)
        a->daemon_heard_ns = now - (uint64_t)heard_ms * NS_PER_MS;
}

static void ipc_message(struct ipc_conn *c, json_t *msg, int fd, void *arg)
{
    struct agent *a = arg;
    const char *op = json_text(msg, "op", "");
    CLEANUP_CLOSE int owned = fd;

    if (!strcmp(op, "peer")) {
        a->daemon = c;
        daemon_peer(a, msg);
    } else if (!strcmp(op, "status")) {
        ipc_reply(c, msg, json_pack("{s:o}", "status", status_build(a)));
    } else if (!strcmp(op, "give-way")) {
        turn_give_way(a, c, msg);
    } else {
        a->role->request(a, c, msg, take_fd(&owned));
    }
}

static void ipc_gone(struct ipc_conn *c, const struct err *why, void *arg)
{
    struct agent *a = arg;

    (void)why;
    a->role->client_gone(a, c);
    if (a->daemon == c)
        a->daemon = NULL;
}

void agent_ask(struct agent *a, json_t *msg)
{
    if (a->daemon)
        ipc_send(a->daemon, msg);
    json_decref(msg);
}

int agent_hv_open(struct hv **hv, struct err *e)
{
    const char *choice = getenv("UNDERSTUDY_HV");

    if (choice && !strncmp(choice, "fake:", 5))
        return hv_fake_open(choice + 5, hv, e);
    return hv_xen_open(hv, e);
}

/* --- Life --- */

static void term_cb(struct ev_loop *loop, ev_signal *w, int revents)
{
    struct agent *a = w->data;

    (void)revents;
    a->exit_status = AGENT_EXIT_AGAIN;
    ev_break(loop, EVBREAK_ALL);
}

static int agent_setup(struct agent *a, const char *uuid, struct err *e)
{
    static const struct ipc_handler handler = {.message = ipc_message,
                                               .closed = ipc_gone};

    if (paths_setup(e) || config_load(&a->cfg, NULL, e) ||
        store_load(uuid, &a->rec, e))
        return -1;
    if (!uuid_parse(uuid, a->uuid))
        return err_set(e, "'%s' is not a uuid", uuid);
    config_export(&a->cfg);
    fault_setup(path_run().s);
    /* Nothing of the VM is touched by two. */
    if (lock_take(path_agent(uuid).s, e) < 0)
        return -1;
    if (link_key_load(path_etc().s, false, &a->key, e) ||
        link_tls_new(a->key, &a->tls, e) || agent_hv_open(&a->hv, e))
        return -1;
    return ipc_listen(a->loop, path_vm(uuid).s, 16, &handler, a, &a->ipc, e);
}

static void agent_timers(struct agent *a)
{
    double t = a->rec.timeout_ms / 1000.0;
    /* A stall of 0.8 T and the pause before it have to fit into T. */
    double beat = a->rec.timeout_ms / 10 / 1000.0;

    ev_timer_init(&a->tick, tick_cb, 0., t / 20);
    a->tick.data = a;
    ev_timer_start(a->loop, &a->tick);
    ev_timer_init(&a->beat, beat_cb, 0., beat);
    a->beat.data = a;
    ev_timer_start(a->loop, &a->beat);
}

static void agent_free(struct agent *a)
{
    agent_session_drop(a);
    ipc_server_free(a->ipc);
    if (a->forgotten)
        agent_lease_leave(a);
    agent_lease_close(a);
    link_tls_free(a->tls);
    link_key_free(a->key);
    if (a->hv)
        a->hv->ops->close(a->hv);
}

static int agent_run(struct agent *a, struct err *e)
{
    static ev_signal term;

    ev_signal_init(&term, term_cb, SIGTERM);
    term.data = a;
    ev_signal_start(a->loop, &term);
    if (agent_lease_open(a, e))
        return -1;
    agent_lease_begin(a,
                      a->rec.role == ROLE_PRIMARY ? LEASE_FREE : LEASE_EMPTY);
    state_load(&a->state, a->rec.state, clock_ns());
    if (a->role->start(a, e))
        return -1;
    agent_timers(a);
    /* ev_run() forgets an ev_break() that came before it. */
    if (!a->over)
        ev_run(a->loop, 0);
    return 0;
}

int agent_main(const char *role, const char *uuid)
{
    struct agent a = {.exit_status = AGENT_EXIT_AGAIN};
    struct err e = ERR_INIT;
    char name[96];

    prctl(PR_SET_NAME, "understudyd"); /* "exe", as it was started */
    a.loop = ev_default_loop(EVFLAG_AUTO);
    a.role = strcmp(role, "backup") ? &agent_primary_role : &agent_backup_role;
    snprintf(name, sizeof name, "agent %.36s", uuid);
    config_defaults(&a.cfg);
    log_setup(name, a.cfg.log);
    signal(SIGPIPE, SIG_IGN);
    if (agent_setup(&a, uuid, &e)) {
        log_error("%s", e.text);
        /* Without a record there is nothing to do, now or later. */
        a.exit_status = e.kind == ERR_GONE ? AGENT_EXIT_DONE : AGENT_EXIT_AGAIN;
        agent_free(&a);
        return a.exit_status;
    }
    snprintf(name, sizeof name, "%s/%s", vm_role_name(a.rec.role), a.rec.name);
    log_setup(name, a.cfg.log);
    /* What an epoch needed, the next one needs again: to give it back, and to
     * have it anew, page by page, takes longer than to fill it. */
    mallopt(M_MMAP_THRESHOLD, KEEP_BYTES);
    mallopt(M_TRIM_THRESHOLD, KEEP_BYTES);
    mallopt(M_TOP_PAD, KEEP_BYTES / 2);
    /* No page of ours may have to be read from disk while a guest is stopped
     * or a takeover is due. */
    if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT))
        log_warn("memory is not locked: %m");
    if (agent_run(&a, &e))
        log_error("dom=%s %s", a.rec.name, e.text);
    agent_free(&a);
    return a.exit_status;
}
