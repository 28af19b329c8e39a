// SPDX-License-Identifier: Apache-2.0
/* The kernel's NBD client by netlink; see nbdlink.h. A socket a call. */
#include "disk-replicate/nbdlink.h"

#include <dirent.h>
#include <linux/nbd-netlink.h>
#include <linux/nbd.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERVER_FLAGS                                                           \
    (NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |            \
     NBD_FLAG_SEND_TRIM)
#define BLOCK_BYTES 512u

struct call {
    struct nl_sock *sock;
    struct nl_msg *msg;
    int index; /* from the answer; -1: none came */
};

static void call_end(struct call *c)
{
    nlmsg_free(c->msg);
    nl_socket_free(c->sock);
}

static int nl_err(struct err *e, const char *what, int r)
{
    return err_set(e, "%s: %s", what, nl_geterror(r));
}

static int call_begin(struct call *c, uint8_t command, struct err *e)
{
    *c = (struct call){nl_socket_alloc(), nlmsg_alloc(), -1};
    if (!c->sock || !c->msg)
        return err_set(e, "no memory for netlink");
    int r = genl_connect(c->sock);
    if (r < 0)
        return nl_err(e, "netlink", r);
    int family = genl_ctrl_resolve(c->sock, NBD_GENL_FAMILY_NAME);
    if (family < 0) {
        err_set(e, "the kernel has no network block device");
        return err_hint(e, "modprobe nbd");
    }
    if (!genlmsg_put(c->msg, NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, 0, command,
                     NBD_GENL_VERSION))
        return err_set(e, "no memory for netlink");
    return 0;
}

static int answer_read(struct nl_msg *msg, void *arg)
{
    struct call *c = arg;
    struct nlattr *a =
        nlmsg_find_attr(nlmsg_hdr(msg), GENL_HDRLEN, NBD_ATTR_INDEX);

    if (a)
        c->index = (int)nla_get_u32(a);
    return NL_OK;
}

/* Send it and wait for its answer. */
static int call_send(struct call *c, const char *what, struct err *e)
{
    int r;

    nl_socket_modify_cb(c->sock, NL_CB_VALID, NL_CB_CUSTOM, answer_read, c);
    r = nl_send_auto(c->sock, c->msg);
    if (r >= 0)
        r = nl_wait_for_ack(c->sock);
    return r < 0 ? nl_err(e, what, r) : 0;
}

static int socket_put(struct nl_msg *msg, int fd)
{
    struct nlattr *all = nla_nest_start(msg, NBD_ATTR_SOCKETS);
    struct nlattr *one = all ? nla_nest_start(msg, NBD_SOCK_ITEM) : NULL;

    if (!one || nla_put_u32(msg, NBD_SOCK_FD, (uint32_t)fd))
        return -1;
    nla_nest_end(msg, one);
    nla_nest_end(msg, all);
    return 0;
}

static int params_put(struct nl_msg *msg, const struct nbdlink_params *p)
{
    uint64_t flags = SERVER_FLAGS | (p->read_only ? NBD_FLAG_READ_ONLY : 0);

    return nla_put_u64(msg, NBD_ATTR_SIZE_BYTES, p->bytes) ||
           nla_put_u64(msg, NBD_ATTR_BLOCK_SIZE_BYTES, BLOCK_BYTES) ||
           nla_put_u64(msg, NBD_ATTR_SERVER_FLAGS, flags) ||
           nla_put_u64(msg, NBD_ATTR_TIMEOUT, p->request_s) ||
           nla_put_u64(msg, NBD_ATTR_DEAD_CONN_TIMEOUT, p->dead_s);
}

static int kernel_connect(struct nbdlink *l, const char *name, int fd,
                          const struct nbdlink_params *p, int *index,
                          struct err *e)
{
    struct call c;
    int rc = call_begin(&c, NBD_CMD_CONNECT, e);

    (void)l;
    if (!rc && (params_put(c.msg, p) ||
                nla_put_string(c.msg, NBD_ATTR_BACKEND_IDENTIFIER, name) ||
                socket_put(c.msg, fd)))
        rc = err_set(e, "no memory for netlink");
    if (!rc)
        rc = call_send(&c, "attach a network block device", e);
    if (!rc && c.index < 0)
        rc = err_set(e, "the kernel did not say which device it took");
    *index = c.index;
    call_end(&c);
    return rc;
}

static int kernel_reconnect(struct nbdlink *l, const char *name, int index,
                            int fd, struct err *e)
{
    struct call c;
    int rc = call_begin(&c, NBD_CMD_RECONFIGURE, e);

    (void)l;
    if (!rc && (nla_put_u32(c.msg, NBD_ATTR_INDEX, (uint32_t)index) ||
                nla_put_string(c.msg, NBD_ATTR_BACKEND_IDENTIFIER, name) ||
                socket_put(c.msg, fd)))
        rc = err_set(e, "no memory for netlink");
    if (!rc)
        rc = call_send(&c, "attach again", e);
    call_end(&c);
    return rc;
}

static int kernel_disconnect(struct nbdlink *l, const char *name, int index,
                             struct err *e)
{
    struct call c;
    int rc = call_begin(&c, NBD_CMD_DISCONNECT, e);

    (void)l;
    (void)name;
    if (!rc && nla_put_u32(c.msg, NBD_ATTR_INDEX, (uint32_t)index))
        rc = err_set(e, "no memory for netlink");
    if (!rc)
        rc = call_send(&c, "detach the network block device", e);
    call_end(&c);
    return rc;
}

/* The identifier of /dev/nbdINDEX, "" when it has none. */
static void backend_read(const char *device, char out[NBDLINK_NAME])
{
    char path[300];

    out[0] = '\0';
    snprintf(path, sizeof path, "/sys/block/%s/backend", device);
    FILE *f = fopen(path, "re");
    if (!f)
        return;
    if (!fgets(out, NBDLINK_NAME, f))
        out[0] = '\0';
    out[strcspn(out, "\n")] = '\0';
    fclose(f);
}

static int kernel_find(struct nbdlink *l, const char *name, int *index,
                       struct err *e)
{
    char backend[NBDLINK_NAME];
    DIR *d = opendir("/sys/block");
    const struct dirent *x;

    (void)l;
    if (!d)
        return err_sys(e, "open /sys/block");
    *index = -1;
    while ((x = readdir(d))) {
        if (strncmp(x->d_name, "nbd", 3) != 0)
            continue;
        backend_read(x->d_name, backend);
        if (!strcmp(backend, name))
            *index = atoi(x->d_name + 3);
    }
    closedir(d);
    return *index < 0 ? err_kind(e, ERR_GONE, "no device for %s", name) : 0;
}

static const struct nbdlink_ops kernel_ops = {
    kernel_find, kernel_connect, kernel_reconnect, kernel_disconnect};

struct nbdlink nbdlink_kernel = {&kernel_ops};
