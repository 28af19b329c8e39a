// SPDX-License-Identifier: Apache-2.0
/* The primary's agent and the backup's: the session, its records, the order in
 * which a replica comes to be. Loop thread. */
#include "agent/primary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/job.h"
#include "agent/paths.h"
#include "checkpoint/epoch.h"
#include "common/clock.h"
#include "common/log.h"
#include "net-buffer/netbuf.h"

/* --- Sending --- */

void primary_send_discard(struct primary *p, const char *why)
{
    struct wire_discard *d = &p->discard;
    struct buf b = {0};

    d->generation = p->a->lease.generation;
    memcpy(d->incarnation, p->a->rec.incarnation, sizeof d->incarnation);
    snprintf(d->text, sizeof d->text, "%s", why);
    discard_put(&b, d);
    link_send_urgent(p->a->session, WIRE_DISCARD, b.data, b.len);
    buf_free(&b);
    primary_phase(p, PH_DISCARD);
}

void primary_send_stop(struct primary *p, enum wire_stop_reason reason)
{
    struct wire_stop *s = &p->stop;
    struct buf b = {0};

    s->reason = reason;
    s->generation = p->a->lease.generation;
    memcpy(s->incarnation, p->a->rec.incarnation, sizeof s->incarnation);
    stop_put(&b, s);
    link_send_urgent(p->a->session, WIRE_STOP, b.data, b.len);
    buf_free(&b);
    primary_retry(p, 2.);
    primary_phase(p, PH_STOP);
}

static void send_blueprint(struct primary *p)
{
    const struct buf *all = &p->blueprint;

    for (size_t at = 0; at < all->len;) {
        size_t n = all->len - at;
        struct buf b = {0};
        if (n > WIRE_BULK_CHUNK)
            n = WIRE_BULK_CHUNK;
        struct wire_blueprint w = {
            .total = (uint32_t)all->len,
            .offset = (uint32_t)at,
            .last = at + n == all->len,
            .data = all->data + at,
            .len = n,
        };
        blueprint_put(&b, &w);
        link_send(p->a->session, WIRE_BLUEPRINT, b.data, b.len);
        buf_free(&b);
        at += n;
    }
}

/* --- Describing (a job) --- */

struct describe_job {
    struct primary *p;
    struct link_session *session; /* the one it was started for */
    uint32_t domid;
    char flag[512];
    struct buf blueprint;
    char devices[HV_DEVICES_MAX];
};

static int describe_run(void *arg, struct err *e)
{
    struct describe_job *j = arg;
    struct hv *hv = NULL;

    if (agent_hv_open(&hv, e))
        return -1;
    /* A guest that was paused may answer long after its engine has ended. */
    int rc = engine_settle(hv, j->domid, j->flag, e) ||
             hv->ops->check_protect(hv, j->domid, e);
    if (!rc)
        rc = hv->ops->devices(hv, j->domid, j->devices, e);
    if (!rc)
        rc = hv->ops->describe(hv, j->domid, &j->blueprint, e);
    if (!rc && !getenv("UNDERSTUDY_HV"))
        rc = netbuf_check(e);
    hv->ops->close(hv);
    return rc;
}

static void describe_done(void *arg, int rc, const struct err *e)
{
    struct describe_job *j = arg;
    struct primary *p = j->p;

    if (p->phase == PH_DESCRIBE && rc) {
        primary_failed(p, e);
    } else if (p->phase == PH_DESCRIBE && j->session == p->a->session) {
        buf_free(&p->blueprint);
        p->blueprint = j->blueprint;
        memcpy(p->devices, j->devices, sizeof p->devices);
        memset(&j->blueprint, 0, sizeof j->blueprint);
        send_blueprint(p);
        primary_phase(p, PH_SHELL);
    }
    buf_free(&j->blueprint);
    free(j);
}

static void describe(struct primary *p)
{
    struct describe_job *j;

    if (p->phase != PH_DESCRIBE || !p->a->session)
        return;
    j = calloc(1, sizeof *j);
    if (!j)
        abort();
    j->p = p;
    j->session = p->a->session;
    j->domid = (uint32_t)p->a->rec.domid;
    snprintf(j->flag, sizeof j->flag, "%s", path_flag(p->a->rec.uuid).s);
    job_start(p->a->loop, describe_run, describe_done, j);
}

/* A predecessor's plug would be in the way of ours. */
void primary_describe(struct primary *p)
{
    primary_phase(p, PH_DESCRIBE);
    agent_state(p->a, VM_SYNCING, "building the shell on %s", p->a->rec.peer);
    if (!leftovers_wait(p, describe))
        describe(p);
}

/* --- Receiving --- */

/* The peer runs the VM too: by the rule one of us keeps it. When we do, the
 * peer finds that out from our HELLO and gives way. */
static bool peer_runs(struct primary *p, const struct wire_hello *h)
{
    struct agent *a = p->a;

    if (!h->running)
        return false;
    if (!p->established && !p->left.there && !p->eng) {
        struct err e = ERR_INIT;
        err_kind(&e, ERR_REFUSED, "%s runs %s itself since a takeover",
                 a->rec.peer, a->rec.name);
        err_hint(&e, "compare `understudy status %s` on both hosts",
                 a->rec.name);
        primary_failed(p, &e);
        return true;
    }
    if (lease_keeps(a->lease.generation, false, h->generation)) {
        agent_event(a, "two-runners",
                    "%s runs the VM with generation %llu, ours is %llu: it "
                    "has to give way",
                    a->rec.peer, (unsigned long long)h->generation,
                    (unsigned long long)a->lease.generation);
        struct err e = ERR_INIT;
        err_set(&e, "%s runs the VM too", a->rec.peer);
        primary_failed(p, &e);
        return true;
    }
    agent_event(a, "two-runners",
                "%s runs the VM with generation %llu, ours is %llu: we give "
                "way",
                a->rec.peer, (unsigned long long)h->generation,
                (unsigned long long)a->lease.generation);
    if (a->lease.state == LEASE_ASKING || a->lease.state == LEASE_FREE ||
        a->lease.state == LEASE_GUARDED)
        agent_lease_event(a, LEASE_EV_DENIED);
    return true;
}

/* The peer names a newer generation than ours, and a replica of ours may be
 * what it starts with it: whatever else it says, output stays held. */
static bool peer_won(struct primary *p, const struct wire_hello *h)
{
    struct agent *a = p->a;
    struct err e = ERR_INIT;

    if (h->generation <= a->lease.generation ||
        (a->lease.state != LEASE_GUARDED && a->lease.state != LEASE_ASKING))
        return false;
    err_set(&e, "%s names generation %llu, ours is %llu: output stays held",
            a->rec.peer, (unsigned long long)h->generation,
            (unsigned long long)a->lease.generation);
    if (!p->outrun)
        agent_event(a, "generation", "%s", e.text);
    p->outrun = true;
    agent_lease_event(a, LEASE_EV_UNSURE);
    primary_failed(p, &e);
    return true;
}

static void rejoin(struct primary *p, const struct wire_hello *h)
{
    struct agent *a = p->a;
    bool ours = h->has_replica && h->generation == a->lease.generation &&
                !memcmp(h->incarnation, a->rec.incarnation, 16);

    if (!h->has_replica && !h->committed) {
        /* Nothing is there that could take over. */
        if (!p->voided) {
            err_set(&p->failure, "%s has lost its replica", a->rec.peer);
            agent_event(a, "void", "%s", p->failure.text);
        }
        p->voided = true;
        agent_lease_event(a, LEASE_EV_DISCARDED);
        if (p->phase != PH_ENDING)
            primary_end(p, ENGINE_RELEASE, THEN_RETRY);
        return;
    }
    if (!ours || p->voided) {
        if (!p->failure.text[0])
            err_set(&p->failure, "%s holds the replica of another run",
                    a->rec.peer);
        if (p->then == THEN_GUEST_DOWN)
            primary_send_stop(p, primary_stop_reason(p->down));
        else
            primary_send_discard(p, "the replica is void");
        return;
    }
    p->ticket = link_pipe_attach(p->pipe, a->session);
    primary_phase(p, PH_RUN);
    agent_event(a, "session", "the session to %s is back, epoch %llu",
                a->rec.peer, (unsigned long long)h->committed);
    engine_session_resumed(p->eng, p->ticket, h->committed, true);
}

static void on_hello(struct primary *p, const uint8_t *payload, size_t len)
{
    struct agent *a = p->a;
    struct wire_hello h;
    struct err e = ERR_INIT;

    if (hello_get(&h, payload, len, &e)) {
        link_fail(a->session, &e);
        return;
    }
    if (h.protocol != WIRE_VERSION || h.role != WIRE_BACKUP ||
        memcmp(h.uuid, a->uuid, sizeof h.uuid)) {
        err_kind(&e, ERR_REFUSED,
                 "%s speaks protocol %u (ours is %u) or means another VM",
                 a->rec.peer, h.protocol, WIRE_VERSION);
        err_hint(&e, "install the same version of understudy on both hosts");
        link_fail(a->session, &e);
        return;
    }
    a->hello_seen = true;
    if (primary_other_generation(p, &h))
        return;
    if (!a->arb && (peer_runs(p, &h) || peer_won(p, &h)))
        return;
    p->outrun = false;
    if (!a->rec.wanted)
        primary_send_stop(p, WIRE_STOP_UNPROTECT);
    else if (p->eng)
        rejoin(p, &h);
    else if (p->then == THEN_GUEST_DOWN)
        primary_send_stop(p, primary_stop_reason(p->down));
    else if (h.has_replica)
        primary_send_discard(p, "a new copy is about to be made");
    else {
        if (a->lease.state == LEASE_GUARDED)
            agent_lease_event(a, LEASE_EV_DISCARDED);
        primary_describe(p);
    }
}

/* The backup holds nothing any more: output may flow. An answer to anything
 * but the question counts for nothing. */
static void on_discarded(struct primary *p, const uint8_t *payload, size_t len)
{
    struct wire_discard d;
    struct err e = ERR_INIT;

    if (discard_get(&d, payload, len, &e)) {
        link_fail(p->a->session, &e);
        return;
    }
    if (p->phase != PH_DISCARD || d.generation != p->discard.generation ||
        memcmp(d.incarnation, p->discard.incarnation, sizeof d.incarnation))
        return;
    agent_lease_event(p->a, LEASE_EV_DISCARDED);
    if (p->eng)
        primary_end(p, ENGINE_RELEASE, THEN_RETRY);
    else
        primary_describe(p);
}

static void on_ready(struct primary *p, const uint8_t *payload, size_t len)
{
    struct wire_ready r;
    struct err e = ERR_INIT;

    if (ready_get(&r, payload, len, &e)) {
        link_fail(p->a->session, &e);
        return;
    }
    if (p->phase != PH_SHELL)
        return;
    if (primary_engine_open(p, &e)) {
        primary_failed(p, &e);
        return;
    }
    p->ticket = link_pipe_attach(p->pipe, p->a->session);
    agent_event(p->a, "sync", "copying memory to %s", p->a->rec.peer);
    primary_phase(p, PH_SYNC);
    engine_start_sync(p->eng, p->ticket);
}

static void on_ack(struct primary *p, const uint8_t *payload, size_t len)
{
    struct epoch_ack ack;
    struct err e = ERR_INIT;

    if (epoch_ack_read(payload, len, &ack, &e) ||
        (p->eng && engine_acked(p->eng, ack.epoch, ack.disks, &e)))
        link_fail(p->a->session, &e);
}

static void on_disk_want(struct primary *p, const uint8_t *payload, size_t len)
{
    struct err e = ERR_INIT;

    if (p->eng && (p->phase == PH_SYNC || p->phase == PH_RUN) &&
        engine_answered(p->eng, payload, len, &e))
        link_fail(p->a->session, &e);
}

static void on_stopped(struct primary *p, const uint8_t *payload, size_t len)
{
    struct wire_stop s;
    struct err e = ERR_INIT;

    if (stop_get(&s, payload, len, &e)) {
        link_fail(p->a->session, &e);
        return;
    }
    if (p->phase != PH_STOP || s.generation != p->stop.generation ||
        memcmp(s.incarnation, p->stop.incarnation, sizeof s.incarnation))
        return;
    agent_lease_event(p->a, LEASE_EV_DISCARDED);
    if (p->phase == PH_STOP)
        primary_end(p, ENGINE_RELEASE, p->then);
}

void primary_record(struct agent *a, uint32_t type, const uint8_t *payload,
                    size_t len)
{
    struct primary *p = a->priv;

    switch (type) {
    case WIRE_HELLO:
        on_hello(p, payload, len);
        break;
    case WIRE_ACK:
        on_ack(p, payload, len);
        break;
    case WIRE_DISK_WANT:
        on_disk_want(p, payload, len);
        break;
    case WIRE_READY:
        on_ready(p, payload, len);
        break;
    case WIRE_DISCARDED:
        on_discarded(p, payload, len);
        break;
    case WIRE_STOPPED:
        on_stopped(p, payload, len);
        break;
    default: {
        struct err e = ERR_INIT;
        err_set(&e, "%s from a backup", wire_type_name(type));
        link_fail(a->session, &e);
    }
    }
}

/* --- The session's life --- */

void primary_hello(struct agent *a, struct wire_hello *h)
{
    struct primary *p = a->priv;
    struct engine_status st;

    h->running = true;
    if (p->eng) {
        engine_status(p->eng, &st);
        h->committed = st.committed;
    }
}

void primary_session_ready(struct agent *a)
{
    agent_send_hello(a);
}

void primary_session_closed(struct agent *a, const struct err *why)
{
    struct primary *p = a->priv;

    primary_drain(p);
    if (p->eng && p->phase != PH_ENDING) {
        engine_session_lost(p->eng);
        if (p->phase != PH_REJOIN && p->phase != PH_CONNECT)
            agent_event(a, "session", "the session to %s ended: %s",
                        a->rec.peer, why->text);
        if (a->lease.state == LEASE_FREE) {
            /* No COMMIT was sent: no replica can exist. */
            p->failure = *why;
            primary_end(p, ENGINE_RELEASE, p->then);
        } else if (p->phase == PH_REJOIN) {
            /* Nobody answers for the VM: its record may be gone there, and a
             * new agent that holds nothing is as good as a discard. */
            primary_prepare(p);
        } else {
            primary_retry(p, 0.2);
            primary_phase(p, PH_REJOIN);
        }
        return;
    }
    if (p->phase == PH_STOP && a->lease.state == LEASE_FREE)
        primary_end(p, ENGINE_RELEASE, p->then);
    else if (p->phase == PH_CONNECT || p->phase == PH_DISCARD ||
             p->phase == PH_DESCRIBE || p->phase == PH_SHELL ||
             (p->phase == PH_STOP && p->then == THEN_GUEST_DOWN))
        primary_failed(p, why);
}

void primary_connect(struct primary *p)
{
    struct agent *a = p->a;
    struct err e = ERR_INIT;
    struct link_session *s = NULL;
    struct link_target t = {
        .peer = a->rec.peer,
        .address = p->address,
        .port = p->port,
        .pin = p->pin,
        .kind = WIRE_VM,
    };

    memcpy(t.uuid, a->uuid, sizeof t.uuid);
    if (link_connect(a->loop, a->tls, &t, &agent_link_callbacks, a, &s, &e)) {
        primary_failed(p, &e);
        return;
    }
    agent_session_set(a, s);
}
