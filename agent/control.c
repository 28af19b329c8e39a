// SPDX-License-Identifier: Apache-2.0
/* The control socket: clients, the table of verbs, and the verbs that only
 * read; see control.h. */
#include "agent/control.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/daemon_arbiter.h"
#include "agent/paths.h"
#include "common/log.h"
#include "link/wire.h"

static struct client *clients;

/* --- Requests ----------------------------------------------------------- */

static void op_free(struct op *op)
{
    for (struct op **p = op->client ? &op->client->ops : NULL; p && *p;
         p = &(*p)->next) {
        if (*p == op) {
            *p = op->next;
            break;
        }
    }
    json_decref(op->request);
    free(op);
}

void op_reply(struct op *op, json_t *extra)
{
    if (op->client)
        ipc_reply(op->client->conn, op->request, extra);
    else
        json_decref(extra);
    op_free(op);
}

void op_fail(struct op *op, const struct err *why)
{
    log_debug("%s: %s", json_text(op->request, "op", "?"), why->text);
    if (op->client)
        ipc_reply_error(op->client->conn, op->request, why);
    op_free(op);
}

void op_progress(struct op *op, json_t *status)
{
    json_t *line = json_object();

    json_object_set(line, "id", json_object_get(op->request, "id"));
    json_object_set(line, "progress", status);
    if (op->client)
        ipc_send(op->client->conn, line);
    json_decref(line);
}

/* --- Verbs that only read ----------------------------------------------- */

static void control_version(struct op *op)
{
    op_reply(op, json_pack("{ss ss si}", "version", UNDERSTUDY_VERSION, "name",
                           op->d->name, "protocol", WIRE_VERSION));
}

static void control_key(struct op *op)
{
    char pin[PIN_TEXT];

    pin_format(link_key_pin(op->d->key), pin);
    op_reply(op, json_pack("{ss ss si}", "name", op->d->name, "pin", pin,
                           "port", op->d->cfg.port));
}

static void control_names(struct op *op)
{
    json_t *vms = json_array(), *peers = json_array();

    for (struct vm *vm = op->d->vms; vm; vm = vm->next)
        json_array_append_new(vms, json_string(vm->rec.name));
    for (size_t i = 0; i < op->d->peers.count; i++)
        json_array_append_new(peers, json_string(op->d->peers.list[i].name));
    op_reply(op, json_pack("{so so}", "vms", vms, "peers", peers));
}

static void control_events(struct op *op)
{
    long long n = json_number(op->request, "count", EVENTS_KEPT);
    const char *vm = json_text(op->request, "vm", NULL);
    json_t *list =
        events_last(&op->d->events, vm,
                    n < 0 || n > EVENTS_KEPT ? EVENTS_KEPT : (unsigned)n);

    if (op->client && json_flag(op->request, "follow", false)) {
        json_decref(op->client->follow);
        op->client->follow = json_incref(op->request);
    }
    op_reply(op, json_pack("{so}", "events", list));
}

static void on_event(void *arg, json_t *event)
{
    (void)arg;
    for (struct client *c = clients; c; c = c->next) {
        const char *vm = json_text(c->follow, "vm", NULL);
        if (!c->follow || (vm && strcmp(vm, json_text(event, "vm", ""))))
            continue;
        json_t *line = json_object();
        json_object_set(line, "id", json_object_get(c->follow, "id"));
        json_object_set(line, "follow", event);
        ipc_send(c->conn, line);
        json_decref(line);
    }
}

/* All agents are asked at once; a status that does not come within 2 s is
 * filled from what the daemon knows. */
struct status_op {
    struct op *op;
    json_t *list;
    unsigned pending;
};

struct status_part {
    struct status_op *all;
    size_t index;
    char uuid[STORE_UUID_LEN + 1];
};

static void status_finish(struct status_op *s)
{
    op_reply(s->op, json_pack("{so}", "status", s->list));
    free(s);
}

static void on_status(void *arg, const json_t *reply, const struct err *why)
{
    struct status_part *part = arg;
    struct status_op *s = part->all;
    json_t *status = json_object_get(reply, "status");
    struct vm *vm = vm_find_uuid(s->op->d, part->uuid);

    (void)why;
    if (status) {
        if (vm)
            vm_status_add(vm, status, true);
        json_array_set(s->list, part->index, status);
    } else if (vm) {
        json_array_set_new(s->list, part->index, vm_status_known(vm));
    }
    free(part);
    if (!--s->pending)
        status_finish(s);
}

static void status_ask(struct status_op *s, struct vm *vm)
{
    struct status_part *part = calloc(1, sizeof *part);

    if (!part)
        abort();
    part->all = s;
    part->index = json_array_size(s->list);
    snprintf(part->uuid, sizeof part->uuid, "%s", vm->rec.uuid);
    json_array_append_new(s->list, json_object());
    s->pending++;
    vm_ask(vm, json_pack("{ss}", "op", "status"), 2., on_status, part);
}

static void control_status(struct op *op)
{
    const char *name = json_text(op->request, "vm", NULL);
    struct status_op *s = calloc(1, sizeof *s);
    struct err e = ERR_INIT;

    if (!s)
        abort();
    if (name && !vm_need(op->d, name, &e)) {
        free(s);
        op_fail(op, &e);
        return;
    }
    s->op = op;
    s->list = json_array();
    if (name) {
        status_ask(s, vm_find(op->d, name));
        return;
    }
    for (struct vm *vm = op->d->vms; vm; vm = vm->next)
        status_ask(s, vm);
    if (!s->pending)
        status_finish(s);
}

/* --- Clients ------------------------------------------------------------ */

static const struct {
    const char *name;
    void (*run)(struct op *op);
} verbs[] = {
    {"version", control_version},
    {"key", control_key},
    {"names", control_names},
    {"status", control_status},
    {"events", control_events},
    {"wait", control_wait},
    {"protect", control_protect},
    {"unprotect", control_unprotect},
    {"takeover", control_takeover},
    {"peer-add", control_peer_add},
    {"peer-list", control_peer_list},
    {"peer-path-add", control_peer_path_add},
    {"peer-path-remove", control_peer_path_remove},
    {"peer-remove", control_peer_remove},
    {"arbiter-set", control_arbiter_set},
    {"arbiter-show", control_arbiter_show},
    {"disk-list", control_disk_list},
    {"disk-size", control_disk_size},
    {"disk-verify", control_disk_verify},
};

static void on_opened(struct ipc_conn *conn, void *arg)
{
    struct client *c = calloc(1, sizeof *c);

    if (!c)
        abort();
    c->d = arg;
    c->conn = conn;
    c->next = clients;
    clients = c;
    ipc_conn_set_arg(conn, c);
}

static void on_message(struct ipc_conn *conn, json_t *msg, int fd, void *arg)
{
    struct client *c = arg;
    const char *name = json_text(msg, "op", "");
    struct op *op = calloc(1, sizeof *op);
    struct err e = ERR_INIT;

    (void)conn;
    if (!op)
        abort();
    if (fd >= 0)
        close(fd);
    op->d = c->d;
    op->client = c;
    op->request = json_incref(msg);
    op->next = c->ops;
    c->ops = op;
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        if (!strcmp(name, verbs[i].name)) {
            verbs[i].run(op);
            return;
        }
    }
    err_kind(&e, ERR_USAGE, "understudyd %s does not know \"%s\"",
             UNDERSTUDY_VERSION, name);
    err_hint(&e, "understudy and understudyd have to be of one version");
    op_fail(op, &e);
}

static void client_free(struct client *c)
{
    for (struct client **p = &clients; *p; p = &(*p)->next) {
        if (*p == c) {
            *p = c->next;
            break;
        }
    }
    while (c->ops) {
        struct op *op = c->ops;
        c->ops = op->next;
        op->client = NULL;
        if (op->cancel)
            op->cancel(op);
    }
    json_decref(c->follow);
    free(c);
}

static void on_closed(struct ipc_conn *conn, const struct err *why, void *arg)
{
    (void)conn, (void)why;
    client_free(arg);
}

int control_start(struct daemon *d, struct err *e)
{
    static const struct ipc_handler handler = {on_opened, on_message,
                                               on_closed};

    d->events.added = on_event;
    return ipc_listen(d->loop, path_control().s, d->cfg.max_clients, &handler,
                      d, &d->control, e);
}

void control_stop(struct daemon *d)
{
    d->events.added = NULL;
    ipc_server_free(d->control);
    d->control = NULL;
    while (clients)
        client_free(clients);
}
