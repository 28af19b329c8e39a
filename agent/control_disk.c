// SPDX-License-Identifier: Apache-2.0
/* The verbs disk-list, disk-size and disk-verify of the control socket, and
 * what a peer's disk-size is told. The files and the hypervisor are looked at
 * by jobs. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/control.h"
#include "agent/disk_status.h"
#include "agent/hosts.h"
#include "agent/job.h"

/* --- disk-list ----------------------------------------------------------- */

struct list {
    struct op *op;
    char vm[64]; /* "": all */
    struct hv *hv;
    bool only; /* of `domid` */
    uint32_t domid;
    json_t *disks;
};

/* The VM's name, of its replica as well. */
static void vm_name(struct list *l, uint32_t domid, json_t *o)
{
    struct hv_domain dom;
    struct err gone = ERR_INIT;

    if (l->hv->ops->info(l->hv, domid, &dom, &gone))
        return;
    char *tag = strstr(dom.name, HV_REPLICA_TAG);
    if (tag)
        *tag = '\0';
    json_object_set_new(o, "vm", text_json(dom.name));
    json_object_set_new(o, "domid", json_integer(domid));
}

static void list_add(void *arg, const struct disk_view *v)
{
    struct list *l = arg;

    if (l->only && (!v->of_vm || v->domid != l->domid))
        return;
    json_t *o = disk_status_json(v);
    if (v->of_vm)
        vm_name(l, v->domid, o);
    json_array_append_new(l->disks, o);
}

/* Its replica does as well. */
static int domain_find(struct list *l, struct err *e)
{
    char replica[sizeof l->vm + sizeof HV_REPLICA_TAG];
    struct hv_domain dom;
    struct err other = ERR_INIT;

    snprintf(replica, sizeof replica, "%s%s", l->vm, HV_REPLICA_TAG);
    if (l->hv->ops->find(l->hv, l->vm, &dom, e) &&
        l->hv->ops->find(l->hv, replica, &dom, &other))
        return -1;
    l->only = true;
    l->domid = dom.domid;
    return 0;
}

static int list_run(void *arg, struct err *e)
{
    struct list *l = arg;

    if (daemon_hv_open(&l->hv, e))
        return -1;
    int rc = l->vm[0] ? domain_find(l, e) : 0;
    if (!rc && disk_look(list_add, l, e) < 0)
        rc = -1;
    l->hv->ops->close(l->hv);
    if (rc || !l->only || json_array_size(l->disks))
        return rc;
    err_kind(e, ERR_GONE, "%s has no disk here that understudy-disk serves",
             l->vm);
    return err_hint(e, "in its configuration: disk=['script=block-understudy,"
                       "vdev=xvda,target=FILE']");
}

static void list_done(void *arg, int rc, const struct err *e)
{
    struct list *l = arg;

    if (rc)
        op_fail(l->op, e);
    else
        op_reply(l->op, json_pack("{sO}", "disks", l->disks));
    json_decref(l->disks);
    free(l);
}

void control_disk_list(struct op *op)
{
    const char *vm = json_text(op->request, "vm", "");
    struct list *l = calloc(1, sizeof *l);
    struct err e = ERR_INIT;

    if (!l)
        abort();
    if (strlen(vm) >= sizeof l->vm) {
        err_kind(&e, ERR_GONE, "there is no VM of such a name");
        op_fail(op, &e);
        free(l);
        return;
    }
    l->op = op;
    snprintf(l->vm, sizeof l->vm, "%s", vm);
    l->disks = json_array();
    job_start(op->d->loop, list_run, list_done, l);
}

/* --- disk-size: how large a peer's disk is ---------------------------------
 */

static void on_size(void *arg, json_t *reply, const struct err *why)
{
    struct op *op = arg;
    long long bytes = json_number(reply, "bytes", 0);
    struct err e = ERR_INIT;

    if (!reply) {
        op_fail(op, why);
    } else if (bytes < 512 || bytes % 512) {
        err_set(&e, "%s says that the disk has %lld bytes",
                json_text(op->request, "peer", "?"), bytes);
        op_fail(op, &e);
    } else {
        op_reply(op, json_pack("{sI}", "bytes", (json_int_t)bytes));
    }
}

void control_disk_size(struct op *op)
{
    const char *peer = json_text(op->request, "peer", "");
    const char *image = json_text(op->request, "image", "");
    struct host *h = host_find(op->d, peer);
    struct err e = ERR_INIT;

    if (!h) {
        err_kind(&e, ERR_GONE, "%.64s is no peer of this host", peer);
        err_hint(&e, "understudy peer add root@%.64s", peer);
        op_fail(op, &e);
        return;
    }
    host_ask(h, json_pack("{ss ss}", "op", "disk-size", "image", image), 6.,
             on_size, op);
}

/* --- disk-verify: the agent does it ----------------------------------------
 */

static void on_verify(void *arg, const json_t *reply, const struct err *why)
{
    struct op *op = arg;
    const struct vm *vm = vm_find(op->d, json_text(op->request, "vm", ""));

    if (reply)
        op_reply(op, json_pack("{sO ss}", "verify",
                               json_object_get(reply, "verify"), "peer",
                               vm ? vm->rec.peer : ""));
    else
        op_fail(op, why);
}

void control_disk_verify(struct op *op)
{
    bool begins = json_flag(op->request, "begin", false);
    struct err e = ERR_INIT;
    struct vm *vm = vm_need(op->d, json_text(op->request, "vm", ""), &e);

    if (vm && vm->rec.role != ROLE_PRIMARY) {
        err_kind(&e, ERR_REFUSED, "this host is not the one that protects %s",
                 vm->rec.name);
        err_hint(&e, "on %s: understudy disk verify %s", vm->rec.peer,
                 vm->rec.name);
        vm = NULL;
    }
    if (!vm) {
        op_fail(op, &e);
        return;
    }
    if (begins)
        daemon_event(op->d, "operator", vm->rec.name,
                     "its disks are compared with those on %s", vm->rec.peer);
    vm_ask(vm, json_pack("{ss sb}", "op", "verify", "begin", begins), 5.,
           on_verify, op);
}

/* --- disk-size, asked by a peer ----------------------------------------------
 */

struct size {
    struct daemon *d;
    struct host_request *r;
    char image[DISK_PATH], real[PATH_MAX];
    uint64_t bytes;
};

static void size_look(void *arg, const struct disk_view *v)
{
    struct size *s = arg;

    if (v->server && !strcmp(v->image, s->real))
        s->bytes = v->page.bytes;
}

static int size_run(void *arg, struct err *e)
{
    struct size *s = arg;

    if (realpath(s->image, s->real) && disk_look(size_look, s, e) < 0)
        return -1;
    if (s->bytes)
        return 0;
    err_kind(e, ERR_GONE, "no disk %s is served there", s->image);
    return err_hint(e, "`understudy disk list` on %s shows those that are",
                    s->d->name);
}

static void size_done(void *arg, int rc, const struct err *e)
{
    struct size *s = arg;

    if (rc)
        host_reply_error(s->r, e);
    else
        host_reply(
            s->r, json_pack("{sb sI}", "ok", 1, "bytes", (json_int_t)s->bytes));
    free(s);
}

void host_request_disk_size(struct daemon *d, struct host_request *r,
                            const json_t *msg)
{
    const char *image = json_text(msg, "image", "");
    struct size *s = calloc(1, sizeof *s);
    struct err e = ERR_INIT;

    if (!s)
        abort();
    if (image[0] != '/' || strlen(image) >= sizeof s->image) {
        err_kind(&e, ERR_USAGE, "that is no path of a disk image");
        host_reply_error(r, &e);
        free(s);
        return;
    }
    s->d = d;
    s->r = r;
    snprintf(s->image, sizeof s->image, "%s", image);
    job_start(d->loop, size_run, size_done, s);
}
