// SPDX-License-Identifier: Apache-2.0
/* Following the VM's devices; see vif_follow.h. Engine thread, except open and
 * free. The kernel's news of network interfaces (rtnetlink's link group) and of
 * devices (uevents: backends come and go) say when to look at once, a clock
 * says when to look anyway. Each look is some dozen questions to xenstored. */
#include "agent/vif_follow.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/agent_core.h"
#include "common/clock.h"
#include "common/log.h"
#include "net-buffer/netbuf.h"

#define LOOK_NS    (2 * NS_PER_SEC)
#define HURRIED_NS (20 * NS_PER_MS) /* not oftener, however much happens */

enum { LINKS, UEVENTS, NEWS };

struct follow {
    struct checkpoint_device dev;
    struct checkpoint_device *net; /* may be NULL */
    struct hv *hv;
    uint32_t domid;
    int news[NEWS]; /* netlink sockets; -1: none */
    bool newsy;
    uint64_t looked_ns;
    char shell[HV_DEVICES_MAX]; /* what the replica's shell has */
    struct err change;          /* kind 0: none */
};

static struct follow *follow_of(struct checkpoint_device *d)
{
    return (struct follow *)d;
}

static int news_open(int protocol, unsigned groups)
{
    struct sockaddr_nl sa = {.nl_family = AF_NETLINK, .nl_groups = groups};
    int fd =
        socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);

    if (fd >= 0 && bind(fd, (struct sockaddr *)&sa, sizeof sa)) {
        close(fd);
        fd = -1;
    }
    if (fd < 0)
        log_warn("no news of devices: %m");
    return fd;
}

/* Of a backend of this VM; "ACTION@/devices/vbd-DOMID-DEVICE". */
static bool is_ours(const struct follow *f, const char *uevent)
{
    char vbd[32], vif[32];

    snprintf(vbd, sizeof vbd, "/vbd-%u-", f->domid);
    snprintf(vif, sizeof vif, "/vif-%u-", f->domid);
    return strstr(uevent, vbd) || strstr(uevent, vif);
}

/* An overrun (ENOBUFS) is news as well. */
static bool news_came(struct follow *f)
{
    char message[4096];
    ssize_t n;

    for (int i = 0; i < NEWS; i++)
        while (f->news[i] >= 0 &&
               ((n = recv(f->news[i], message, sizeof message - 1, 0)) > 0 ||
                (n < 0 && errno == ENOBUFS))) {
            message[n > 0 ? n : 0] = '\0';
            if (n < 0 || i == LINKS || is_ours(f, message))
                f->newsy = true;
        }
    return f->newsy;
}

static int vifs_take(struct follow *f, struct err *e)
{
    char names[HV_MAX_VIFS][NETBUF_NAME_MAX];
    int n;

    if (!f->net)
        return 0;
    if (f->hv->ops->vifs(f->hv, f->domid, names, &n, e))
        return -1;
    return netbuf_set_vifs(f->net, names, n, e);
}

static bool has_word(const char *list, const char *word, size_t len)
{
    for (const char *p = list; *p; p += strcspn(p, " ")) {
        p += *p == ' ';
        if (strcspn(p, " ") == len && !strncmp(p, word, len))
            return true;
    }
    return false;
}

/* The first word that `a` has and `b` lacks. */
static bool extra(const char *a, const char *b, char word[64])
{
    for (const char *p = a; *p; p += strcspn(p, " ")) {
        p += *p == ' ';
        size_t len = strcspn(p, " ");
        if (has_word(b, p, len))
            continue;
        snprintf(word, 64, "%.*s", (int)len, p);
        return true;
    }
    return false;
}

static const char *kind_name(const char *word)
{
    if (!strncmp(word, "vif/", 4))
        return "network interface";
    if (!strncmp(word, "vbd/", 4))
        return "disk";
    return "device";
}

static void change_note(struct follow *f, const char *now)
{
    char word[64];

    if (f->change.kind)
        return;
    if (extra(now, f->shell, word))
        err_set(&f->change, "a %s was added (%s)", kind_name(word), word);
    else if (extra(f->shell, now, word))
        err_set(&f->change, "a %s was removed (%s)", kind_name(word), word);
}

/* The interfaces are taken also when the list is what it was: one may have been
 * made again. */
static int look(struct follow *f, struct err *e)
{
    char now[HV_DEVICES_MAX];

    f->looked_ns = clock_ns();
    f->newsy = false;
    if (f->hv->ops->devices(f->hv, f->domid, now, e))
        return -1;
    change_note(f, now);
    return vifs_take(f, e);
}

/* --- The verbs ------------------------------------------------------------ */

static int follow_setup(struct checkpoint_device *d, struct err *e)
{
    struct follow *f = follow_of(d);

    if (!f->hv && agent_hv_open(&f->hv, e))
        return -1;
    if (f->news[LINKS] < 0)
        f->news[LINKS] = news_open(NETLINK_ROUTE, RTMGRP_LINK);
    if (f->news[UEVENTS] < 0)
        f->news[UEVENTS] =
            news_open(NETLINK_KOBJECT_UEVENT, 1 /* the kernel's */);
    return look(f, e) || (f->net && f->net->ops->setup(f->net, e)) ? -1 : 0;
}

static int follow_mark(struct checkpoint_device *d, uint64_t epoch,
                       struct err *e)
{
    struct checkpoint_device *net = follow_of(d)->net;

    return net ? net->ops->mark(net, epoch, e) : 0;
}

static int follow_commit(struct checkpoint_device *d, uint64_t epoch,
                         struct err *e)
{
    struct checkpoint_device *net = follow_of(d)->net;

    return net ? net->ops->commit(net, epoch, e) : 0;
}

static int follow_abort(struct checkpoint_device *d, bool release,
                        struct err *e)
{
    struct checkpoint_device *net = follow_of(d)->net;

    return net ? net->ops->abort(net, release, e) : 0;
}

static void follow_teardown(struct checkpoint_device *d, bool release)
{
    struct follow *f = follow_of(d);

    if (f->net)
        f->net->ops->teardown(f->net, release);
    if (f->hv)
        f->hv->ops->close(f->hv);
    f->hv = NULL;
    for (int i = 0; i < NEWS; i++) {
        if (f->news[i] >= 0)
            close(f->news[i]);
        f->news[i] = -1;
    }
}

static int follow_poll(struct checkpoint_device *d, struct device_load *load,
                       struct err *e)
{
    struct follow *f = follow_of(d);
    uint64_t age = clock_ns() - f->looked_ns;
    int rc = 0;

    *load = (struct device_load){0};
    if (f->net && f->net->ops->poll(f->net, load, e)) {
        rc = -1;
        f->newsy = true;
    }
    if ((news_came(f) && age > HURRIED_NS) || age > LOOK_NS)
        if (look(f, rc ? NULL : e))
            rc = -1;
    if (!f->change.kind)
        return rc;
    load->stale = true;
    *e = f->change;
    return -1;
}

static void follow_free(struct checkpoint_device *d)
{
    struct follow *f = follow_of(d);

    follow_teardown(d, false);
    if (f->net)
        f->net->ops->free(f->net);
    free(f);
}

static const struct checkpoint_device_ops ops = {
    .name = "devices",
    .setup = follow_setup,
    .mark = follow_mark,
    .commit = follow_commit,
    .abort = follow_abort,
    .teardown = follow_teardown,
    .poll = follow_poll,
    .free = follow_free,
};

struct checkpoint_device *vif_follow_new(const struct follow_config *c)
{
    struct follow *f = calloc(1, sizeof *f);

    if (!f)
        abort();
    f->dev.ops = &ops;
    f->net = c->net;
    f->domid = c->domid;
    f->news[LINKS] = f->news[UEVENTS] = -1;
    snprintf(f->shell, sizeof f->shell, "%s", c->devices);
    return &f->dev;
}
