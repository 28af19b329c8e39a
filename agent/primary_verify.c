// SPDX-License-Identifier: Apache-2.0
/* The primary's agent and the comparing of its VM's disks with the backup's:
 * beginning it, and telling how far it is. Loop thread. */
#include <stdlib.h>

#include "agent/primary.h"
#include "disk-replicate/device.h"
#include "disk-replicate/look.h"

static json_t *ranges_json(const struct disk_verify *v)
{
    json_t *list = json_array();

    for (size_t i = 0; i < v->count; i++) {
        char vdev[DISK_VDEV];
        disk_vdev(v->ranges[i].device, vdev);
        json_array_append_new(
            list, json_pack("{ss sI sI}", "disk", vdev, "offset",
                            (json_int_t)v->ranges[i].offset, "bytes",
                            (json_int_t)v->ranges[i].bytes));
    }
    return list;
}

static json_t *verify_json(const struct disk_verify *v)
{
    static const char *const states[] = {[DISK_VERIFY_NONE] = "none",
                                         [DISK_VERIFY_RUNS] = "running",
                                         [DISK_VERIFY_DONE] = "done",
                                         [DISK_VERIFY_FAILED] = "failed"};
    json_t *o = json_pack("{ss sI sI sI sI so}", "state", states[v->state],
                          "total_bytes", (json_int_t)v->total, "done_bytes",
                          (json_int_t)v->done, "differing_bytes",
                          (json_int_t)v->differing, "unknown_bytes",
                          (json_int_t)v->unknown, "ranges", ranges_json(v));

    if (v->state == DISK_VERIFY_FAILED)
        json_object_set_new(o, "error", text_json(v->why.text));
    return o;
}

/* Both sides are there, and an epoch is. */
static int verify_check(const struct primary *p, bool begins, struct err *e)
{
    struct agent *a = p->a;

    if (a->state.now != VM_PROTECTED) {
        err_kind(e, ERR_REFUSED, "%s is not Protected but %s", a->rec.name,
                 vm_state_name(a->state.now));
        return err_hint(e, "understudy status %s", a->rec.name);
    }
    if (!p->eng || (p->phase != PH_RUN && begins)) {
        err_kind(e, ERR_REFUSED, "%s can't be reached at the moment",
                 a->rec.peer);
        return err_hint(e, "understudy status %s", a->rec.name);
    }
    if (p->disks)
        return 0;
    err_kind(e, ERR_REFUSED, "%s has no disks that are replicated",
             a->rec.name);
    return err_hint(e, "understudy disk list %s", a->rec.name);
}

void primary_verify(struct primary *p, struct ipc_conn *c, const json_t *msg)
{
    struct disk_verify v;
    struct err e = ERR_INIT;
    bool begins = json_flag(msg, "begin", false);

    if (verify_check(p, begins, &e)) {
        ipc_reply_error(c, msg, &e);
        return;
    }
    if (begins) {
        disk_verify_begin(p->disks);
        engine_kick(p->eng);
    }
    disk_verify_look(p->disks, &v);
    ipc_reply(c, msg, json_pack("{so}", "verify", verify_json(&v)));
    free(v.ranges);
}
