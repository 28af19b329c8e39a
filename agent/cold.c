// SPDX-License-Identifier: Apache-2.0
/* What a VM is started from without its replica's memory; see cold.h. Magic,
 * the blueprint, and number and image of each disk, all little-endian. */
#include "agent/cold.h"

#include <unistd.h>

#include "agent/paths.h"
#include "common/file.h"
#include "hypervisor/hv.h"

#define COLD_MAGIC 0x31444c43u /* "CLD1" */
#define COLD_MAX   (HV_BLUEPRINT_MAX + 65536)

int cold_save(const char *uuid, const struct cold_vm *vm, struct err *e)
{
    struct buf b = {0};

    buf_u32(&b, COLD_MAGIC);
    buf_blob(&b, vm->blueprint.data, vm->blueprint.len);
    buf_u32(&b, (uint32_t)vm->disks.n);
    for (int i = 0; i < vm->disks.n; i++) {
        buf_u32(&b, vm->disks.disk[i].device);
        buf_str(&b, vm->disks.disk[i].image);
    }
    int rc = file_replace(path_cold(uuid).s, b.data, b.len, true, e);
    buf_free(&b);
    return rc;
}

static bool parse(struct reader *r, struct cold_vm *vm)
{
    size_t n = 0;
    bool good = read_u32(r) == COLD_MAGIC;
    const uint8_t *blueprint = read_blob(r, HV_BLUEPRINT_MAX, &n);
    uint32_t disks = read_u32(r);

    if (!good || r->bad || !disks || disks > DISKS_MAX)
        return false;
    for (uint32_t i = 0; i < disks; i++) {
        vm->disks.disk[i].device = read_u32(r);
        read_str(r, vm->disks.disk[i].image, DISK_PATH);
    }
    if (!reader_done(r))
        return false;
    vm->disks.n = (int)disks;
    buf_put(&vm->blueprint, blueprint, n);
    return true;
}

int cold_load(const char *uuid, struct cold_vm *vm, struct err *e)
{
    struct path path = path_cold(uuid);
    struct buf b = {0};

    *vm = (struct cold_vm){0};
    int rc = file_load(path.s, COLD_MAX, &b, e);
    struct reader r = reader_of(b.data, b.len);
    if (!rc && !parse(&r, vm))
        rc = err_set(e, "%s is damaged", path.s);
    buf_free(&b);
    return rc;
}

bool cold_is(const char *uuid)
{
    return !access(path_cold(uuid).s, F_OK);
}

void cold_remove(const char *uuid)
{
    unlink(path_cold(uuid).s);
}
