// SPDX-License-Identifier: Apache-2.0
/* Building a shell: restored, or booted, paused and without devices, because
 * libxl destroys a domain whose devices fail to attach; then its disks and
 * interfaces are attached one by one, interfaces with retries. */
#include "hypervisor/xl/xl.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libxl_utils.h>

#include "common/cleanup.h"
#include "common/log.h"

#define ATTACH_TRIES 3

/* Devices of a configuration, taken out of it. */
struct devices {
    libxl_device_nic *nics;
    libxl_device_disk *disks;
    int num_nics, num_disks;
};

static void devices_take(libxl_domain_config *c, struct devices *all)
{
    *all = (struct devices){c->nics, c->disks, c->num_nics, c->num_disks};
    c->nics = NULL;
    c->disks = NULL;
    c->num_nics = c->num_disks = 0;
}

static void devices_free(struct devices *all)
{
    for (int i = 0; i < all->num_nics; i++)
        libxl_device_nic_dispose(&all->nics[i]);
    for (int i = 0; i < all->num_disks; i++)
        libxl_device_disk_dispose(&all->disks[i]);
    free(all->nics);
    free(all->disks);
}

struct feeder {
    int fd;
    const struct blueprint *bp;
};

static void *feed(void *arg)
{
    struct feeder *f = arg;

    stream_write(f->fd, f->bp);
    return NULL;
}

/* Restore the empty image. The pipe's ends close on exec: a copy in libxl's
 * children would keep the stream open. */
static int restore(struct xl *x, libxl_domain_config *config,
                   const struct blueprint *bp, uint32_t *domid, struct err *e)
{
    libxl_domain_restore_params params;
    pthread_t thread;
    int fds[2];

    if (pipe2(fds, O_CLOEXEC))
        return err_sys(e, "make a pipe");
    struct feeder f = {fds[1], bp};
    if (pthread_create(&thread, NULL, feed, &f)) {
        close(fds[0]);
        close(fds[1]);
        return err_set(e, "start a thread");
    }
    libxl_domain_restore_params_init(&params);
    params.stream_version = 2;
    said_clear(x);
    int rc = libxl_domain_create_restore(x->ctx, config, domid, fds[0], -1,
                                         &params, NULL, NULL);
    libxl_domain_restore_params_dispose(&params);
    close(fds[0]); /* a feeder that still writes gets EPIPE */
    pthread_join(thread, NULL);
    return rc ? xl_err(x, e, "restore") : 0;
}

/* From the kernel that the configuration names; it is let run by the caller. */
static int boot(struct xl *x, libxl_domain_config *config, uint32_t *domid,
                struct err *e)
{
    said_clear(x);
    return libxl_domain_create_new(x->ctx, config, domid, NULL, NULL)
               ? xl_err(x, e, "boot")
               : 0;
}

static int nic_attach(struct xl *x, uint32_t domid, const libxl_device_nic *nic,
                      struct err *e)
{
    for (int tries = 1;; tries++) {
        libxl_device_nic copy;
        libxl_device_nic_init(&copy);
        libxl_device_nic_copy(x->ctx, &copy, nic);
        said_clear(x);
        int rc = libxl_device_nic_add(x->ctx, domid, &copy, NULL);
        if (rc && tries < ATTACH_TRIES) {
            log_warn("domain %u: attaching vif %d failed, again", domid,
                     nic->devid);
            libxl_device_nic_destroy(x->ctx, domid, &copy, NULL);
        }
        libxl_device_nic_dispose(&copy);
        if (!rc)
            return 0;
        if (tries < ATTACH_TRIES)
            continue;
        xl_err(x, e, "attach network interface %d to bridge %s", nic->devid,
               nic->bridge ? nic->bridge : "(none)");
        return err_hint(e, "look into /var/log/xen/xen-hotplug.log");
    }
}

/* What the block script refuses it refuses again: no second try. */
static int disk_attach(struct xl *x, uint32_t domid,
                       const libxl_device_disk *disk, struct err *e)
{
    libxl_device_disk copy;

    libxl_device_disk_init(&copy);
    libxl_device_disk_copy(x->ctx, &copy, disk);
    said_clear(x);
    int rc = libxl_device_disk_add(x->ctx, domid, &copy, NULL);
    libxl_device_disk_dispose(&copy);
    if (!rc)
        return 0;
    xl_err(x, e, "attach disk %s (%s)", disk->vdev, disk->pdev_path);
    return err_hint(e, "look into /var/log/xen/xen-hotplug.log; is %s there?",
                    disk->pdev_path);
}

static int devices_attach(struct xl *x, uint32_t domid,
                          const struct devices *all, struct err *e)
{
    for (int i = 0; i < all->num_disks; i++)
        if (disk_attach(x, domid, &all->disks[i], e))
            return -1;
    for (int i = 0; i < all->num_nics; i++)
        if (nic_attach(x, domid, &all->nics[i], e))
            return -1;
    return 0;
}

static int shell_config(struct xl *x, const struct blueprint *bp,
                        const char *name, const char *uuid,
                        libxl_domain_config *config, struct err *e)
{
    if (config_of(x, bp, config, e) || config_check(config, e))
        return -1;
    free(config->c_info.name);
    config->c_info.name = strdup(name);
    if (!config->c_info.name)
        abort();
    if (libxl_uuid_from_string(&config->c_info.uuid, uuid))
        return err_kind(e, ERR_USAGE, "%s is no uuid", uuid);
    return 0;
}

int shell_build(struct xl *x, const char *name, const char *uuid, bool boots,
                uint32_t *domid, struct err *e)
{
    libxl_domain_config config;
    struct devices devices = {0};
    struct buf raw = {0};
    struct blueprint bp;
    int rc = -1;

    libxl_domain_config_init(&config);
    if (blueprint_read(&raw, &bp, e) ||
        shell_config(x, &bp, name, uuid, &config, e))
        goto out;
    devices_take(&config, &devices);
    rc =
        boots ? boot(x, &config, domid, e) : restore(x, &config, &bp, domid, e);
    if (!rc && devices_attach(x, *domid, &devices, e)) {
        libxl_domain_destroy(x->ctx, *domid, NULL);
        rc = -1;
    }
out:
    devices_free(&devices);
    libxl_domain_config_dispose(&config);
    buf_free(&raw);
    return rc;
}
