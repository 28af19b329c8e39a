// SPDX-License-Identifier: Apache-2.0
/* Reading a VM's configuration for what can't be protected, and comparing it
 * with what this host has. Each refusal is one sentence with its cause, and a
 * hint. */
#include "hypervisor/xl/xl.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"

#define SCRIPTS     "/etc/xen/scripts"
#define DISK_SCRIPT "block-understudy"

static int refuse(struct err *e, const char *what, const char *hint)
{
    err_kind(e, ERR_REFUSED, "%s", what);
    return err_hint(e, "%s", hint);
}

/* Devices that live outside of memory, disks and network interfaces: their
 * state would be lost. */
static int devices_check(const libxl_domain_config *c, struct err *e)
{
    const struct {
        int n;
        const char *what;
    } devices[] = {
        {c->num_pcidevs, "a PCI device passed through (pci=)"},
        {c->num_dtdevs, "a device passed through (dtdev=)"},
        {c->num_rdms, "reserved device memory (rdm=)"},
        {c->num_usbctrls, "a USB controller (usbctrl=)"},
        {c->num_usbdevs, "a USB device (usbdev=)"},
        {c->num_vfbs, "a framebuffer (vfb=)"},
        {c->num_vkbs, "a virtual keyboard (vkb=)"},
        {c->num_vtpms, "a virtual TPM (vtpm=)"},
        {c->num_p9s, "a 9p file system (p9=)"},
        {c->num_pvcallsifs, "a PV calls interface"},
        {c->num_vdispls, "a virtual display (vdispl=)"},
        {c->num_vsnds, "a virtual sound card (vsnd=)"},
        {c->num_channels, "a channel (channel=)"},
    };
    char text[128];

    for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++) {
        if (!devices[i].n)
            continue;
        snprintf(text, sizeof text, "the VM has %s", devices[i].what);
        return refuse(e, text,
                      "take it out of the VM's configuration and "
                      "start the VM again");
    }
    return 0;
}

/* Scripts and bootloaders run as root in dom0, and on the backup it is the
 * peer who names them: only what the host's administrator has installed. */
static bool is_plain(const char *name)
{
    return !strchr(name, '/') && name[0] != '.';
}

static bool script_ok(const char *script)
{
    size_t n = strlen(SCRIPTS "/");

    if (strncmp(script, SCRIPTS "/", n) == 0)
        script += n;
    return *script && is_plain(script);
}

static bool is_ours(const char *script)
{
    size_t n = strlen(SCRIPTS "/");

    if (!script)
        return false;
    if (strncmp(script, SCRIPTS "/", n) == 0)
        script += n;
    return !strcmp(script, DISK_SCRIPT);
}

static int disk_refuse(const libxl_device_disk *d, const char *why,
                       const char *hint, struct err *e)
{
    err_kind(e, ERR_REFUSED, "the VM's disk %s (%s) %s",
             d->vdev ? d->vdev : "?", d->pdev_path ? d->pdev_path : "empty",
             why);
    return err_hint(e, "%s", hint);
}

static int disk_check(const libxl_device_disk *d, struct err *e)
{
    if (d->is_cdrom || !d->pdev_path)
        return disk_refuse(d, "is a CD drive",
                           "take it out of the VM's configuration", e);
    if (!is_ours(d->script))
        return disk_refuse(d, "is not replicated",
                           "in the VM's configuration, script=" DISK_SCRIPT
                           ",vdev=...,target=IMAGE makes it so",
                           e);
    if (!d->readwrite)
        return disk_refuse(d,
                           "is read-only, and only writable ones are "
                           "replicated",
                           "make it writable, or take it out", e);
    if (d->backend_domid || d->backend_domname)
        return disk_refuse(d, "lives in a driver domain",
                           "only disks served by dom0 can be protected", e);
    return image_check(d->pdev_path, e);
}

static int disks_check(const libxl_domain_config *c, struct err *e)
{
    for (int i = 0; i < c->num_disks; i++)
        if (disk_check(&c->disks[i], e))
            return -1;
    return 0;
}

static int nic_check(const libxl_device_nic *n, struct err *e)
{
    if (n->backend_domid || n->backend_domname) {
        err_kind(e, ERR_REFUSED,
                 "network interface %d lives in a driver "
                 "domain",
                 n->devid);
        return err_hint(e, "only interfaces served by dom0 can be protected");
    }
    if (n->script && !script_ok(n->script)) {
        err_kind(e, ERR_REFUSED, "network interface %d has the script %s",
                 n->devid, n->script);
        return err_hint(e, "put the script into " SCRIPTS " on both hosts");
    }
    if (!n->bridge || is_plain(n->bridge))
        return 0;
    err_kind(e, ERR_REFUSED,
             "network interface %d has a bridge with an impossible name, %s",
             n->devid, n->bridge);
    return err_hint(e, "correct bridge= in the VM's configuration");
}

static int nics_check(const libxl_domain_config *c, struct err *e)
{
    char text[128];

    if (c->num_nics > HV_MAX_VIFS) {
        snprintf(text, sizeof text,
                 "the VM has %d network interfaces, at "
                 "most %d can be protected",
                 c->num_nics, HV_MAX_VIFS);
        return refuse(e, text, "take some out of its configuration");
    }
    for (int i = 0; i < c->num_nics; i++)
        if (nic_check(&c->nics[i], e))
            return -1;
    return 0;
}

static bool is_set(libxl_defbool b)
{
    return !libxl_defbool_is_default(b) && libxl_defbool_val(b);
}

/* libxl looks for a bootloader's name in PATH, too. */
static int programs_check(const libxl_domain_build_info *b, struct err *e)
{
    if (b->bootloader && strcmp(b->bootloader, "pygrub") != 0)
        return refuse(e, "the VM has a bootloader that is not pygrub",
                      "use bootloader=\"pygrub\" or a kernel");
    if (b->bootloader_args && b->bootloader_args[0])
        return refuse(e, "the VM's bootloader has arguments (bootloader_args=)",
                      "take them out of the VM's configuration");
    if (b->device_model || b->stubdomain_kernel || b->stubdomain_ramdisk)
        return refuse(e, "the VM names a device model of its own",
                      "take device_model_override= out of its configuration");
    return 0;
}

int config_check(libxl_domain_config *c, struct err *e)
{
    const libxl_domain_build_info *b = &c->b_info;

    if (c->c_info.type != LIBXL_DOMAIN_TYPE_PVH)
        return refuse(e, "only PVH guests can be protected",
                      "set type=\"pvh\" in the VM's configuration");
    if (b->num_vnuma_nodes)
        return refuse(e, "the VM has a virtual NUMA layout (vnuma=)",
                      "take it out of the VM's configuration");
    if (is_set(c->c_info.driver_domain))
        return refuse(e, "the VM is a driver domain",
                      "protect the VMs that it serves instead, with backends "
                      "in dom0");
    if (is_set(b->nested_hvm))
        return refuse(e, "the VM may run virtual machines itself (nestedhvm=)",
                      "take it out of the VM's configuration");
    if (is_set(b->disable_migrate))
        return refuse(e, "the VM must not be migrated (nomigrate=)",
                      "take it out of the VM's configuration");
    if (programs_check(b, e) || files_check(c, e) || devices_check(c, e) ||
        disks_check(c, e))
        return -1;
    return nics_check(c, e);
}

/* --- This host ----------------------------------------------------------- */

static bool exists(const char *before, const char *name, const char *after)
{
    char path[512];
    int n = snprintf(path, sizeof path, "%s%s%s", before, name, after);

    return n > 0 && (size_t)n < sizeof path && !access(path, F_OK);
}

static int bridge_fits(const libxl_device_nic *n, struct err *e)
{
    const char *script = n->script ? n->script : "vif-bridge";
    bool openvswitch = strstr(script, "openvswitch");

    if (!exists(*script == '/' ? "" : SCRIPTS "/", script, "")) {
        err_kind(e, ERR_REFUSED,
                 "this host has no script %s, which network "
                 "interface %d needs",
                 script, n->devid);
        return err_hint(e, "install the script on this host too");
    }
    if (!n->bridge || openvswitch)
        return 0;
    if (exists("/sys/class/net/", n->bridge, "/bridge"))
        return 0;
    err_kind(e, ERR_REFUSED,
             "this host has no bridge %s, which network "
             "interface %d needs",
             n->bridge, n->devid);
    return err_hint(e,
                    "create %s here, connected to the same network as on "
                    "the other host",
                    n->bridge);
}

/* Without it attaching one takes minutes to fail. */
static int netback_fits(const libxl_domain_config *c, struct err *e)
{
    if (!c->num_nics || exists("/sys/bus/xen-backend/drivers/vif", "", ""))
        return 0;
    err_kind(e, ERR_REFUSED,
             "this host's kernel serves no network interfaces of VMs");
    return err_hint(e, "load its module here: `modprobe xen-netback`");
}

static int name_fits(struct xl *x, const char *name, struct err *e)
{
    uint32_t domid;

    if (libxl_name_to_domid(x->ctx, name, &domid))
        return 0;
    err_kind(e, ERR_REFUSED, "a domain %s (id %u) is on this host already",
             name, domid);
    return err_hint(e, "shut it down or rename it (`xl rename`)");
}

static int memory_fits(struct xl *x, libxl_domain_config *c, struct err *e)
{
    uint64_t need_kb, free_kb;

    said_clear(x);
    if (libxl_domain_need_memory(x->ctx, c, 0, &need_kb) ||
        libxl_get_free_memory(x->ctx, &free_kb))
        return xl_err(x, e, "compute the memory that the VM needs");
    if (need_kb <= free_kb)
        return 0;
    err_kind(e, ERR_REFUSED,
             "the replica needs %lu MiB, this host has %lu MiB "
             "free",
             (need_kb + 1023) / 1024, free_kb / 1024);
    return err_hint(e, "free memory, for example with `xl mem-set 0 ...`");
}

int config_fits(struct xl *x, libxl_domain_config *c, struct err *e)
{
    char shell[128];

    if (netback_fits(c, e))
        return -1;
    for (int i = 0; i < c->num_nics; i++)
        if (bridge_fits(&c->nics[i], e))
            return -1;
    snprintf(shell, sizeof shell, "%s%s", c->c_info.name, HV_REPLICA_TAG);
    if (name_fits(x, c->c_info.name, e) || name_fits(x, shell, e))
        return -1;
    if (c->b_info.kernel && access(c->b_info.kernel, R_OK))
        log_warn("dom=%s: no %s here: after a takeover it can't reboot",
                 c->c_info.name, c->b_info.kernel);
    return memory_fits(x, c, e);
}
