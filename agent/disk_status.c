// SPDX-License-Identifier: Apache-2.0
/* Disks in the words of status; see disk_status.h. An agent's loop, and jobs of
 * the daemon. */
#include "agent/disk_status.h"

#include <string.h>

#include "agent/ipc.h"

static const char *state_of(const struct disk_view *v)
{
    const struct disk_page *p = &v->page;

    if (!v->server)
        return "no server";
    switch (p->role) {
    case DISK_PRIMARY:
        return p->lost ? "lost" : p->copied < p->bytes ? "syncing" : "in sync";
    case DISK_COPYING:
        return "syncing";
    case DISK_FOLLOWS:
        return "in sync";
    case DISK_HELD:
        return "held";
    case DISK_UNUSABLE:
        return "unusable";
    default:
        return v->read_only ? "read-only" : "plain";
    }
}

static const char *role_of(const struct disk_view *v)
{
    switch (v->page.role) {
    case DISK_PRIMARY:
        return "primary";
    case DISK_COPYING:
    case DISK_FOLLOWS:
    case DISK_HELD:
    case DISK_UNUSABLE:
        return "backup";
    default:
        return "none";
    }
}

json_t *disk_status_json(const struct disk_view *v)
{
    const char *state = state_of(v);
    json_t *o = json_pack("{ss so sI ss ss sI}", "id", v->id, "image",
                          text_json(v->image), "bytes",
                          (json_int_t)v->page.bytes, "role", role_of(v),
                          "state", state, "pid", (json_int_t)v->server);

    if (v->of_vm)
        json_object_set_new(o, "disk", json_string(v->vdev));
    if (!strcmp(state, "syncing"))
        json_object_set_new(o, "copied_bytes",
                            json_integer((json_int_t)v->page.copied));
    if (v->page.role == DISK_PRIMARY)
        json_object_set_new(o, "backlog_bytes",
                            json_integer((json_int_t)v->page.held_bytes));
    return o;
}

struct listing {
    json_t *list;
    long long domid;
    uint64_t bytes;
};

static void list_add(void *arg, const struct disk_view *v)
{
    struct listing *l = arg;

    if (!v->of_vm || v->domid != l->domid)
        return;
    json_array_append_new(l->list, disk_status_json(v));
    l->bytes += v->page.bytes;
}

void disk_status_put(json_t *status, long long domid)
{
    struct listing l = {.list = json_array(), .domid = domid};
    json_t *disks = json_object_get(status, "disks");

    if (domid > 0)
        (void)disk_look(list_add, &l, NULL);
    if (json_array_size(l.list) && !disks) {
        disks = json_pack("{sI}", "bytes", (json_int_t)l.bytes);
        json_object_set_new(status, "disks", disks);
    }
    if (json_array_size(l.list))
        json_object_set(disks, "list", l.list);
    json_decref(l.list);
}
