// SPDX-License-Identifier: Apache-2.0
/* The verbs of the control socket about peers. The file is written by a job;
 * what is in memory changes only when that is done. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/control.h"
#include "agent/hosts.h"
#include "agent/job.h"
#include "agent/paths.h"

struct peer_op {
    struct op *op;
    struct link_peers peers; /* as they shall be */
    const char *event;
    char text[64 + ADDRESS_TEXT];
};

/* A copy of the list for the job's thread. */
static void peers_copy(struct link_peers *to, const struct link_peers *from)
{
    memset(to, 0, sizeof *to);
    buf_put(&to->comments, from->comments.data, from->comments.len);
    for (size_t i = 0; i < from->count; i++)
        peers_add(to, &from->list[i], NULL);
}

static int save_run(void *arg, struct err *e)
{
    struct peer_op *p = arg;

    return peers_save(&p->peers, path_peers().s, e);
}

static void save_done(void *arg, int rc, const struct err *e)
{
    struct peer_op *p = arg;
    struct daemon *d = p->op->d;

    d->peers_busy = false;
    if (rc) {
        op_fail(p->op, e);
    } else {
        struct link_peers old = d->peers;
        d->peers = p->peers;
        p->peers = old;
        daemon_event(d, p->event, "", "%s", p->text);
        hosts_update(d);
        op_reply(p->op, NULL);
    }
    peers_free(&p->peers);
    free(p);
}

__attribute__((format(printf, 3, 4))) static struct peer_op *
change_new(struct op *op, const char *event, const char *fmt, ...)
{
    struct peer_op *p = calloc(1, sizeof *p);
    va_list ap;

    if (!p)
        abort();
    p->op = op;
    p->event = event;
    va_start(ap, fmt);
    vsnprintf(p->text, sizeof p->text, fmt, ap);
    va_end(ap);
    peers_copy(&p->peers, &op->d->peers);
    return p;
}

/* `rc` and `e` tell how the change of the copy went. */
static void change_save(struct peer_op *p, int rc, struct err *e)
{
    struct op *op = p->op;

    if (!rc && op->d->peers_busy)
        rc = err_kind(e, ERR_REFUSED, "the list of peers is being changed");
    if (rc) {
        op_fail(op, e);
        peers_free(&p->peers);
        free(p);
        return;
    }
    op->d->peers_busy = true;
    job_start(op->d->loop, save_run, save_done, p);
}

/* Repeating an addition is fine, so that a broken-off `peer add` can be typed
 * again; another key under a known name is not. */
static int peer_check(const struct daemon *d, const struct link_peer *p,
                      bool *same, struct err *e)
{
    const struct link_peer *old = peers_by_name(&d->peers, p->name);

    *same = false;
    if (pin_equal(p->pin, link_key_pin(d->key))) {
        err_kind(e, ERR_REFUSED, "this is the key of this very host");
        return err_hint(e, "name the other host");
    }
    if (!old)
        return 0;
    if (!pin_equal(old->pin, p->pin)) {
        err_kind(e, ERR_REFUSED, "%s is known by another key", p->name);
        return err_hint(e,
                        "if its key was really changed: understudy peer "
                        "remove %s, then add it again",
                        p->name);
    }
    *same = address_equal(&old->at, &p->at);
    if (*same)
        return 0;
    err_kind(e, ERR_REFUSED, "%s is known at another address, %s", p->name,
             old->at.host);
    return err_hint(e, "understudy peer remove %s, then add it again", p->name);
}

void control_peer_add(struct op *op)
{
    struct link_peer p;
    struct err e = ERR_INIT;
    bool same;

    memset(&p, 0, sizeof p);
    if (peer_parse(&p, json_text(op->request, "name", ""),
                   json_text(op->request, "address", ""),
                   json_text(op->request, "pin", ""), &e) ||
        peer_check(op->d, &p, &same, &e)) {
        op_fail(op, &e);
        return;
    }
    if (same) {
        op_reply(op, json_pack("{sb}", "known", 1));
        return;
    }
    struct peer_op *c = change_new(op, "peer-added", "%s", p.name);
    change_save(c, peers_add(&c->peers, &p, &e), &e);
}

void control_peer_remove(struct op *op)
{
    const char *name = json_text(op->request, "name", "");
    struct err e = ERR_INIT;

    for (struct vm *vm = op->d->vms; vm; vm = vm->next) {
        if (strcmp(vm->rec.peer, name))
            continue;
        err_kind(&e, ERR_REFUSED, "%s is the peer of the VM %s", name,
                 vm->rec.name);
        err_hint(&e, "understudy unprotect %s", vm->rec.name);
        op_fail(op, &e);
        return;
    }
    struct peer_op *c = change_new(op, "peer-removed", "%s", name);
    change_save(c, peers_remove(&c->peers, name, &e), &e);
}

static void path_change(struct op *op, const char *event,
                        int (*change)(struct link_peer *peer,
                                      const struct link_address *a,
                                      struct err *e))
{
    const char *name = json_text(op->request, "name", "");
    struct link_address a;
    char text[ADDRESS_TEXT];
    struct err e = ERR_INIT;

    if (address_parse(&a, json_text(op->request, "address", ""), &e)) {
        op_fail(op, &e);
        return;
    }
    address_format(&a, text);
    struct peer_op *c = change_new(op, event, "%.63s %s", name, text);
    struct link_peer *peer =
        (struct link_peer *)(uintptr_t)peers_by_name(&c->peers, name);
    int rc = peer
                 ? change(peer, &a, &e)
                 : err_kind(&e, ERR_GONE, "there is no peer named %.63s", name);
    change_save(c, rc, &e);
}

void control_peer_path_add(struct op *op)
{
    path_change(op, "path-added", peer_path_add);
}

void control_peer_path_remove(struct op *op)
{
    path_change(op, "path-removed", peer_path_remove);
}

void control_peer_list(struct op *op)
{
    json_t *list = json_array();

    for (size_t i = 0; i < op->d->peers.count; i++) {
        const struct link_peer *p = &op->d->peers.list[i];
        const struct host *h = host_find(op->d, p->name);
        struct err e = ERR_INIT;
        char pin[PIN_TEXT];
        pin_format(p->pin, pin);
        if (h && !host_up(h))
            host_error(h, &e);
        json_array_append_new(
            list, json_pack("{ss ss si ss sb sI so so}", "name", p->name,
                            "address", p->at.host, "port", p->at.port, "pin",
                            pin, "up", h && host_up(h), "heard_ms",
                            (json_int_t)(h ? host_heard_ms(h) : -1), "reason",
                            text_json(e.text), "paths",
                            h ? host_paths_json(h) : json_array()));
    }
    op_reply(op, json_pack("{so}", "peers", list));
}
