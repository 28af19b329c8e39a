// SPDX-License-Identifier: Apache-2.0
/* What a VM's configuration may hold and still be protected: each thing that
 * may not be there is refused by its own name, with what to do about it. The
 * lab has real guests of some of them; Xen gives a PVH guest no others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "hypervisor/xl/xl.h"

/* check.c's neighbours, which only speak of this host. */
void said_clear(struct xl *x)
{
    (void)x;
}

int xl_err(struct xl *x, struct err *e, const char *fmt, ...)
{
    (void)x;
    return err_set(e, "%s", fmt);
}

static libxl_domain_config config;
static struct err e;

static int begin(void **state)
{
    (void)state;
    libxl_domain_config_init(&config);
    config.c_info.type = LIBXL_DOMAIN_TYPE_PVH;
    libxl_domain_build_info_init_type(&config.b_info, LIBXL_DOMAIN_TYPE_PVH);
    config.nics = calloc(HV_MAX_VIFS + 1, sizeof *config.nics);
    config.disks = calloc(1, sizeof *config.disks);
    if (!config.nics || !config.disks)
        abort();
    for (int i = 0; i <= HV_MAX_VIFS; i++)
        libxl_device_nic_init(&config.nics[i]);
    libxl_device_disk_init(&config.disks[0]);
    config.num_nics = 1;
    err_clear(&e);
    return 0;
}

static int end(void **state)
{
    (void)state;
    config.num_nics = HV_MAX_VIFS + 1;
    config.num_disks = 1;
    libxl_domain_config_dispose(&config);
    return 0;
}

static void refused(const char *word)
{
    err_clear(&e);
    assert_int_equal(config_check(&config, &e), -1);
    assert_int_equal(e.kind, ERR_REFUSED);
    assert_non_null(strstr(e.text, word));
    assert_true(e.hint[0]);
}

static void plain_pvh_is_fine(void **state)
{
    (void)state;
    assert_int_equal(config_check(&config, &e), 0);
    config.num_nics = HV_MAX_VIFS;
    assert_int_equal(config_check(&config, &e), 0);
}

static void other_types_are_refused(void **state)
{
    (void)state;
    config.c_info.type = LIBXL_DOMAIN_TYPE_PV;
    refused("PVH");
    config.c_info.type = LIBXL_DOMAIN_TYPE_HVM;
    refused("PVH");
}

static void each_device_is_refused_by_name(void **state)
{
    const struct {
        int *count;
        const char *word;
    } devices[] = {
        {&config.num_pcidevs, "pci="},
        {&config.num_dtdevs, "dtdev="},
        {&config.num_rdms, "rdm="},
        {&config.num_usbctrls, "usbctrl="},
        {&config.num_usbdevs, "usbdev="},
        {&config.num_vfbs, "vfb="},
        {&config.num_vkbs, "vkb="},
        {&config.num_vtpms, "vtpm="},
        {&config.num_p9s, "p9="},
        {&config.num_pvcallsifs, "PV calls"},
        {&config.num_vdispls, "vdispl="},
        {&config.num_vsnds, "vsnd="},
        {&config.num_channels, "channel="},
    };

    (void)state;
    for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++) {
        *devices[i].count = 1;
        refused(devices[i].word);
        *devices[i].count = 0;
    }
    assert_int_equal(config_check(&config, &e), 0);
}

static void only_disks_of_ours_are_replicated(void **state)
{
    libxl_device_disk *d = &config.disks[0];

    (void)state;
    config.num_disks = 1;
    d->vdev = strdup("xvda");
    d->pdev_path = strdup("/srv/web.img");
    d->readwrite = 1;
    refused("disk xvda (/srv/web.img) is not replicated");
    d->script = strdup("block-drbd");
    refused("is not replicated");
    free(d->script);
    d->script = strdup("/etc/xen/scripts/block-understudy");
    assert_int_equal(config_check(&config, &e), 0);
    d->backend_domid = 3;
    refused("lives in a driver domain");
    d->backend_domid = 0;
    d->readwrite = 0;
    refused("is read-only");
    d->readwrite = 1;
    d->is_cdrom = 1;
    refused("is a CD drive");
}

/* On the backup the peer names what is overwritten. */
static void images_are_in_their_folders(void **state)
{
    static const char *const bad[] = {
        "/dev/sda",           "/srv/../etc/shadow", "/srv",
        "/srv/guest/vmlinuz", "/var/lib/xen/key",   "web.img",
        "/srv/x/.."};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(image_check(bad[i], &e), -1);
    assert_int_equal(image_check("/srv/web.img", &e), 0);
    assert_int_equal(image_check("/var/lib/xen/images/a/b", &e), 0);
    setenv("UNDERSTUDY_DISK_DIRS", "/dev/vg*", 1);
    assert_int_equal(image_check("/dev/vg0/web", &e), 0);
    assert_int_equal(image_check("/srv/web.img", &e), -1);
    unsetenv("UNDERSTUDY_DISK_DIRS");
}

static void layouts_and_roles_are_refused(void **state)
{
    (void)state;
    config.b_info.num_vnuma_nodes = 2;
    refused("vnuma=");
    config.b_info.num_vnuma_nodes = 0;
    libxl_defbool_set(&config.b_info.nested_hvm, true);
    refused("nestedhvm=");
    libxl_defbool_set(&config.b_info.nested_hvm, false);
    libxl_defbool_set(&config.b_info.disable_migrate, true);
    refused("nomigrate=");
    libxl_defbool_set(&config.b_info.disable_migrate, false);
    libxl_defbool_set(&config.c_info.driver_domain, true);
    refused("driver domain");
    libxl_defbool_set(&config.c_info.driver_domain, false);
    assert_int_equal(config_check(&config, &e), 0);
}

/* On the backup these names come from the peer. */
static void names_that_reach_elsewhere_are_refused(void **state)
{
    libxl_device_nic *nic = &config.nics[0];

    (void)state;
    config.b_info.bootloader = strdup("/tmp/loader");
    refused("bootloader");
    free(config.b_info.bootloader);
    config.b_info.bootloader = strdup("pygrub");
    nic->script = strdup("/tmp/script");
    refused("/tmp/script");
    free(nic->script);
    nic->script = strdup("/etc/xen/scripts/../../../tmp/script");
    refused("the script");
    free(nic->script);
    nic->script = strdup("/etc/xen/scripts/vif-bridge");
    assert_int_equal(config_check(&config, &e), 0);
    nic->bridge = strdup("../xenbr0");
    refused("impossible name");
}

static void allowed(char **file, const char *path)
{
    free(*file);
    *file = strdup(path);
    err_clear(&e);
    if (config_check(&config, &e))
        fail_msg("%s", e.text);
}

/* They become memory of the guest: the peer must not name the host's keys. */
static void files_are_from_the_folders_for_kernels(void **state)
{
    char **files[] = {&config.b_info.kernel, &config.b_info.ramdisk,
                      &config.b_info.device_tree,
                      &config.b_info.u.pvh.pvshim_path};
    static const char *const bad[] = {
        "/etc/shadow",
        "/boot/../etc/shadow",
        "/usr/lib/xen/..",
        "/usr/lib/xen-4.17",
        "/usr/lib/ssl/private/key",
        "boot/vmlinuz",
        "/bootx/linux",
        "/boot",
        "/dev/mem",
        "",
    };

    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        for (size_t j = 0; j < sizeof bad / sizeof *bad; j++) {
            free(*files[i]);
            *files[i] = strdup(bad[j]);
            refused("may not be read");
        }
        allowed(files[i], "/boot/vmlinuz-of-another-host");
        allowed(files[i], "/usr/lib/grub-xen/grub-i386-xen_pvh.bin");
        allowed(files[i], "/usr/lib/xen-4.17/boot/xen-shim");
        allowed(files[i], "/srv/guest/vmlinux");
    }
    setenv("UNDERSTUDY_KERNEL_DIRS", "/one:/the/other", 1);
    refused("may not be read");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        free(*files[i]);
        *files[i] = NULL;
    }
    allowed(files[0], "/one/linux");
    allowed(files[1], "/the/other/initrd");
    unsetenv("UNDERSTUDY_KERNEL_DIRS");
}

static void what_is_there_is_a_plain_file(void **state)
{
    char dir[] = "/tmp/understudy-k.XXXXXX", path[64], link[64];

    (void)state;
    assert_non_null(mkdtemp(dir));
    setenv("UNDERSTUDY_KERNEL_DIRS", dir, 1);
    snprintf(path, sizeof path, "%s/linux", dir);
    snprintf(link, sizeof link, "%s/link", dir);
    fclose(fopen(path, "we"));
    allowed(&config.b_info.kernel, path);
    assert_int_equal(symlink(path, link), 0);
    allowed(&config.b_info.kernel, link);
    unlink(link);
    assert_int_equal(symlink("/dev/null", link), 0);
    refused("may not be read");
    unlink(link);
    mkdir(link, 0700);
    refused("may not be read");
    snprintf(link, sizeof link, "rm -r %s", dir);
    assert_int_equal(system(link), 0);
    unsetenv("UNDERSTUDY_KERNEL_DIRS");
}

static void programs_of_the_peers_choice_are_refused(void **state)
{
    char arg[] = "--output-directory=/etc", *args[] = {arg, NULL};

    (void)state;
    config.b_info.bootloader = strdup("bash");
    refused("bootloader");
    free(config.b_info.bootloader);
    config.b_info.bootloader = strdup("pygrub");
    config.b_info.bootloader_args = args;
    refused("bootloader_args");
    config.b_info.bootloader_args = NULL;
    config.b_info.device_model = strdup("/bin/sh");
    refused("device model");
}

static void interfaces_of_others_are_refused(void **state)
{
    (void)state;
    config.nics[0].backend_domid = 3;
    refused("driver domain");
    config.nics[0].backend_domid = 0;
    config.num_nics = HV_MAX_VIFS + 1;
    refused("at most");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)
    const struct CMUnitTest tests[] = {
        T(plain_pvh_is_fine),
        T(other_types_are_refused),
        T(each_device_is_refused_by_name),
        T(only_disks_of_ours_are_replicated),
        T(images_are_in_their_folders),
        T(layouts_and_roles_are_refused),
        T(names_that_reach_elsewhere_are_refused),
        T(files_are_from_the_folders_for_kernels),
        T(what_is_there_is_a_plain_file),
        T(programs_of_the_peers_choice_are_refused),
        T(interfaces_of_others_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
