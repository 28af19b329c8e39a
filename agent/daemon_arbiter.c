// SPDX-License-Identifier: Apache-2.0
/* This host's arbiter; see daemon_arbiter.h. */
#include "agent/daemon_arbiter.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "agent/job.h"
#include "agent/paths.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"

#define PATIENCE_NS (3 * NS_PER_SEC)

/* --- Which one ----------------------------------------------------------- */

static int file_read(char line[ARBITER_LINE_MAX], struct err *e)
{
    struct path path = path_arbiter();
    FILE *f = fopen(path.s, "re");

    line[0] = '\0';
    if (!f && errno == ENOENT)
        return 0;
    if (!f)
        return err_sys(e, "open %s", path.s);
    bool got = fgets(line, ARBITER_LINE_MAX, f);
    bool bad = ferror(f);
    fclose(f);
    line[strcspn(line, "\n")] = '\0';
    return got && !bad ? 0 : err_set(e, "%s can't be read", path.s);
}

/* Empty: forget. */
static int file_write(const char *line, struct err *e)
{
    struct path path = path_arbiter(), dir = path_etc();
    char new[sizeof path.s + 8];

    snprintf(new, sizeof new, "%s.new", path.s);
    if (!line[0] && unlink(path.s) && errno != ENOENT)
        return err_sys(e, "remove %s", path.s);
    if (line[0]) {
        CLEANUP_CLOSE int fd =
            open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0 || dprintf(fd, "%s\n", line) < 0 || fsync(fd) ||
            rename(new, path.s))
            return err_sys(e, "write %s", path.s);
    }
    CLEANUP_CLOSE int fd = open(dir.s, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) ? err_sys(e, "sync %s", dir.s) : 0;
}

static void on_changed(void *arg, struct arbiter *a)
{
    struct daemon *d = arg;
    struct arbiter_health h;

    a->ops->health(a, &h);
    if (h.up)
        daemon_event(d, "arbiter", "", "the arbiter answers");
    else
        daemon_event(d, "arbiter", "", "the arbiter is lost: %s", h.why.text);
}

static void forget(struct daemon *d)
{
    if (d->arb)
        d->arb->ops->close(d->arb);
    d->arb = NULL;
    d->arbiter[0] = '\0';
}

static int use(struct daemon *d, const char *line, struct err *e)
{
    struct arbiter_host host = {
        .loop = d->loop, .tls = d->tls, .changed = on_changed, .arg = d};
    const struct arbiter_ops *ops = NULL;
    struct arbiter *a = NULL;

    memcpy(host.pin, link_key_pin(d->key), sizeof host.pin);
    snprintf(host.name, sizeof host.name, "%s", d->name);
    if (line[0] && arbiter_find(line, &ops, e))
        return -1;
    if (ops && ops->open(line, &host, &a, e))
        return -1;
    forget(d);
    d->arb = a;
    if (ops)
        snprintf(d->arbiter, sizeof d->arbiter, "%s", line);
    return 0;
}

int darbiter_start(struct daemon *d, struct err *e)
{
    char line[ARBITER_LINE_MAX];

    if (d->cfg.arbiter[0])
        return use(d, d->cfg.arbiter, e) ? err_add(e, "%s", path_config().s)
                                         : 0;
    if (file_read(line, e))
        return -1;
    return use(d, line, e) ? err_add(e, "%s", path_arbiter().s) : 0;
}

void darbiter_stop(struct daemon *d)
{
    forget(d);
}

int darbiter_choose(const struct daemon *d, const char *asked, char line[512],
                    struct err *e)
{
    const char *which = asked[0] ? asked : d->arbiter;
    const struct arbiter_ops *ops;

    if (!which[0]) {
        err_kind(e, ERR_USAGE,
                 "an arbiter has to be named: it decides which host runs the "
                 "VM when they lose sight of each other");
        return err_hint(e, "`understudy arbiter set` names one; or "
                           "--arbiter none, when you accept that a cut link "
                           "between the two hosts runs the VM twice");
    }
    if (arbiter_find(which, &ops, e))
        return -1;
    if (ops && !arbiter_same(which, d->arbiter)) {
        err_kind(e, ERR_REFUSED, "the arbiter of %s is %s", d->name,
                 d->arbiter[0] ? d->arbiter : "not set");
        return err_hint(e, "understudy arbiter set \"%.200s\"", which);
    }
    snprintf(line, ARBITER_LINE_MAX, "%s", ops ? d->arbiter : "none");
    return 0;
}

int darbiter_agrees(const struct daemon *d, const char *line, char ours[512],
                    struct err *e)
{
    const struct arbiter_ops *ops;

    if (arbiter_find(line, &ops, e))
        return -1;
    if (ops && !arbiter_same(line, d->arbiter)) {
        err_kind(e, ERR_REFUSED, "its arbiter is %s, and not %s",
                 d->arbiter[0] ? d->arbiter : "not set", line);
        return err_hint(e, "on %s: understudy arbiter set \"%.200s\"", d->name,
                        line);
    }
    snprintf(ours, ARBITER_LINE_MAX, "%s", ops ? d->arbiter : "none");
    return 0;
}

int darbiter_up(const struct daemon *d, struct err *e)
{
    struct arbiter_health h = {0};

    if (!d->arb)
        return err_kind(e, ERR_REFUSED, "%s has no arbiter", d->name);
    d->arb->ops->health(d->arb, &h);
    if (h.up)
        return 0;
    *e = h.why;
    e->kind = ERR_REFUSED;
    return err_add(e, "%s can't ask the arbiter", d->name);
}

/* --- Before a VM is protected -------------------------------------------- */

struct meeting {
    struct daemon *d;
    char peer[64];
    uint64_t until_ns;
    ev_timer look;
    struct witness_ask ask;
    darbiter_done *done;
    void *arg;
};

static struct meeting *meeting_new(struct daemon *d, struct host *h,
                                   darbiter_done *done, void *arg)
{
    struct meeting *m = calloc(1, sizeof *m);

    if (!m)
        abort();
    m->d = d;
    snprintf(m->peer, sizeof m->peer, "%s", h->peer.name);
    m->done = done;
    m->arg = arg;
    return m;
}

static void meeting_end(struct meeting *m, uint64_t generation,
                        const struct err *why)
{
    darbiter_done *done = m->done;
    void *arg = m->arg;

    free(m);
    done(arg, generation, why);
}

static void on_agreed(void *arg, json_t *reply, const struct err *why)
{
    meeting_end(arg, 0, reply ? NULL : why);
}

/* A daemon that has just started may not be connected yet. */
static void on_look(struct ev_loop *loop, ev_timer *w, int events)
{
    struct meeting *m = w->data;
    struct host *h = host_find(m->d, m->peer);
    struct err e = ERR_INIT;

    (void)events;
    int rc = darbiter_up(m->d, &e);
    if (rc && clock_ns() < m->until_ns) {
        ev_timer_set(w, 0.05, 0.);
        ev_timer_start(loop, w);
    } else if (rc) {
        meeting_end(m, 0, &e);
    } else if (!h) {
        err_kind(&e, ERR_GONE, "%s is no peer any more", m->peer);
        meeting_end(m, 0, &e);
    } else {
        host_ask(h,
                 json_pack("{ss ss}", "op", "arbiter", "line", m->d->arbiter),
                 8., on_agreed, m);
    }
}

void darbiter_meet(struct daemon *d, struct host *h, darbiter_done *done,
                   void *arg)
{
    struct meeting *m = meeting_new(d, h, done, arg);

    m->until_ns = clock_ns() + PATIENCE_NS;
    ev_timer_init(&m->look, on_look, 0., 0.);
    m->look.data = m;
    ev_timer_start(d->loop, &m->look);
}

static void register_ask(struct meeting *m);

static void on_registered(void *arg, const struct lease_record *r,
                          const struct err *why)
{
    struct meeting *m = arg;
    struct err e = ERR_INIT;

    if (r && r->mine) {
        meeting_end(m, r->generation, NULL);
        return;
    }
    if (r && r->generation > m->ask.generation && m->ask.generation == 1) {
        m->ask.generation = r->generation;
        register_ask(m);
        return;
    }
    if (!r) {
        e = *why;
        err_add(&e, "the VM could not be registered");
    } else {
        err_kind(&e, ERR_REFUSED,
                 "in the arbiter this VM is held by the other host, with "
                 "generation %llu",
                 (unsigned long long)r->generation);
        err_hint(&e,
                 "if it does not run on %s: `understudy unprotect` it there, "
                 "or `understudy-witness forget` it when that host is no more",
                 m->peer);
    }
    meeting_end(m, 0, &e);
}

static void register_ask(struct meeting *m)
{
    struct arbiter *a = m->d->arb;
    struct err e = ERR_INIT;

    if (!a)
        err_kind(&e, ERR_GONE, "%s has no arbiter any more", m->d->name);
    if (!a || a->ops->submit(a, &m->ask, 5000, on_registered, m, NULL, &e))
        meeting_end(m, 0, &e);
}

/* As a new VM; where there is a record the answer says its number, and it is
 * asked for with that. */
void darbiter_register(struct daemon *d, const char *uuid, struct host *h,
                       darbiter_done *done, void *arg)
{
    struct meeting *m = meeting_new(d, h, done, arg);
    uint64_t *nonce = &m->ask.nonce;

    m->ask.op = WITNESS_REGISTER;
    m->ask.generation = 1;
    uuid_parse(uuid, m->ask.vm);
    memcpy(m->ask.other, h->peer.pin, sizeof m->ask.other);
    if (getrandom(nonce, sizeof *nonce, 0) != sizeof *nonce)
        abort();
    *nonce = *nonce >> 2 | 1;
    register_ask(m);
}

/* --- The operator -------------------------------------------------------- */

struct set_op {
    struct op *op;
    char line[ARBITER_LINE_MAX];
};

static int set_run(void *arg, struct err *e)
{
    return file_write(((struct set_op *)arg)->line, e);
}

static unsigned vms_elsewhere(const struct daemon *d)
{
    unsigned n = 0;

    for (const struct vm *vm = d->vms; vm; vm = vm->next)
        n += !vm->damaged && strcmp(vm->rec.arbiter, d->arbiter) != 0;
    return n;
}

static void set_done(void *arg, int rc, const struct err *why)
{
    struct set_op *s = arg;
    struct daemon *d = s->op->d;
    struct err e = ERR_INIT;

    if (rc) {
        op_fail(s->op, why);
    } else if (use(d, s->line, &e)) {
        op_fail(s->op, &e);
    } else {
        daemon_event(d, "operator", "", "the arbiter is %s",
                     d->arbiter[0] ? d->arbiter : "not set any more");
        op_reply(s->op, json_pack("{ss sI}", "arbiter", d->arbiter, "others",
                                  (json_int_t)vms_elsewhere(d)));
    }
    free(s);
}

void control_arbiter_set(struct op *op)
{
    const char *line = json_text(op->request, "arbiter", "");
    const struct arbiter_ops *ops;
    struct err e = ERR_INIT;

    if (op->d->cfg.arbiter[0]) {
        err_kind(&e, ERR_REFUSED, "the arbiter is set in %s", path_config().s);
        err_hint(&e, "change it there, and restart understudyd");
    } else {
        arbiter_find(line, &ops, &e);
    }
    if (e.kind) {
        op_fail(op, &e);
        return;
    }
    struct set_op *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->op = op;
    snprintf(s->line, sizeof s->line, "%s", ops ? line : "");
    job_start(op->d->loop, set_run, set_done, s);
}

void control_arbiter_show(struct op *op)
{
    const struct daemon *d = op->d;
    struct arbiter_health h = {0};
    long long heard_ms = -1;

    if (d->arb)
        d->arb->ops->health(d->arb, &h);
    if (h.heard_ns)
        heard_ms = (long long)((clock_ns() - h.heard_ns) / NS_PER_MS);
    op_reply(op,
             json_pack("{ss ss sb sI so so}", "arbiter", d->arbiter, "from",
                       d->cfg.arbiter[0] ? path_config().s : path_arbiter().s,
                       "up", h.up, "heard_ms", (json_int_t)heard_ms, "reason",
                       text_json(h.why.text), "hint", text_json(h.why.hint)));
}
