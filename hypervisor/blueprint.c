// SPDX-License-Identifier: Apache-2.0
/* Writing and parsing of blueprints; see blueprint.h. Pure. */
#include "hypervisor/blueprint.h"

#include <string.h>

#include "hypervisor/records.h"

static const char magic[8] = "UNDRBLUE";
#define VERSION 1

static bool bit(const uint64_t *map, uint64_t i)
{
    return map[i / 64] >> (i % 64) & 1;
}

/* The first gfn at or after `from` whose bit is `want`, or `end`. */
static uint64_t find_bit(const uint64_t *map, uint64_t from, uint64_t end,
                         bool want)
{
    uint64_t skip = want ? 0 : ~0ull;

    while (from < end) {
        if (from % 64 == 0 && map[from / 64] == skip)
            from += 64;
        else if (bit(map, from) == want)
            return from;
        else
            from++;
    }
    return end;
}

static void runs_write(struct buf *b, const uint64_t *ram, uint64_t end)
{
    size_t at = b->len;
    uint32_t n = 0;

    buf_u32(b, 0);
    for (uint64_t last = 0, gfn = 0;; n++) {
        gfn = find_bit(ram, last, end, true);
        if (gfn >= end)
            break;
        uint64_t stop = find_bit(ram, gfn, end, false);
        buf_varint(b, gfn - last);
        buf_varint(b, stop - gfn);
        last = stop;
    }
    put_le32(b->data + at, n);
}

void blueprint_write(struct buf *b, const struct blueprint *bp,
                     const uint64_t *ram)
{
    uint64_t ram_pages = 0;

    for (uint64_t i = 0; i < (bp->end_gfn + 63) / 64; i++)
        ram_pages += (uint64_t)__builtin_popcountll(ram[i]);
    buf_put(b, magic, sizeof magic);
    buf_u16(b, VERSION);
    buf_u16(b, 0);
    buf_str(b, bp->xen);
    buf_str(b, bp->name);
    buf_put(b, bp->uuid, sizeof bp->uuid);
    buf_u8(b, (uint8_t)bp->type);
    buf_u32(b, bp->vcpus);
    buf_u64(b, bp->pages);
    buf_u64(b, bp->max_pages);
    buf_u64(b, bp->end_gfn);
    buf_u64(b, ram_pages);
    buf_blob(b, bp->config, bp->config_len);
    buf_blob(b, bp->cpuid, bp->cpuid_len);
    buf_blob(b, bp->msrs, bp->msrs_len);
    buf_blob(b, bp->state, bp->state_len);
    runs_write(b, ram, bp->end_gfn);
}

bool blueprint_run(struct reader *runs, uint64_t *end, uint64_t *gfn,
                   uint64_t *count)
{
    if (!reader_left(runs))
        return false;
    uint64_t gap = read_varint(runs), n = read_varint(runs);
    if (runs->bad || gap > BLUEPRINT_GFN_MAX || !n || n > BLUEPRINT_GFN_MAX)
        return false;
    *gfn = *end + gap;
    *count = n;
    *end = *gfn + n;
    return true;
}

static bool runs_fit(const struct blueprint *bp)
{
    struct reader r = bp->runs;
    uint64_t end = 0, gfn, count, total = 0;

    for (uint32_t i = 0; i < bp->n_runs; i++) {
        if (!blueprint_run(&r, &end, &gfn, &count) || end > bp->end_gfn)
            return false;
        total += count;
    }
    return reader_done(&r) && total == bp->ram_pages;
}

static bool sizes_fit(const struct blueprint *bp)
{
    return bp->type <= HV_HVM && bp->vcpus && bp->vcpus <= 512 && bp->end_gfn &&
           bp->end_gfn <= BLUEPRINT_GFN_MAX && bp->ram_pages &&
           bp->ram_pages <= bp->end_gfn && bp->pages <= BLUEPRINT_GFN_MAX &&
           bp->max_pages <= BLUEPRINT_GFN_MAX && bp->name[0] &&
           bp->config_len && !memchr(bp->config, 0, bp->config_len) &&
           bp->cpuid_len % RECORD_LEAF_LEN == 0 &&
           bp->msrs_len % RECORD_MSR_LEN == 0;
}

/* A name goes into xenstore paths, host logs and libxl. */
static bool name_fits(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s <= ' ' || (unsigned char)*s == 127 || *s == '/')
            return false;
    return true;
}

static int head_parse(struct reader *r, struct err *e)
{
    const uint8_t *m = read_bytes(r, sizeof magic);
    uint16_t version = read_u16(r);

    read_u16(r);
    if (r->bad || memcmp(m, magic, sizeof magic))
        return err_set(e, "this is no blueprint of a VM");
    if (version == VERSION)
        return 0;
    err_kind(e, ERR_REFUSED, "the blueprint has version %u, we know %u",
             version, VERSION);
    return err_hint(e, "install the same version of understudy on both hosts");
}

int blueprint_parse(const void *p, size_t n, struct blueprint *bp,
                    struct err *e)
{
    struct reader r = reader_of(p, n);
    struct record_state state;

    memset(bp, 0, sizeof *bp);
    if (n > HV_BLUEPRINT_MAX)
        return err_set(e, "the blueprint is larger than %u MiB",
                       HV_BLUEPRINT_MAX >> 20);
    if (head_parse(&r, e))
        return -1;
    read_str(&r, bp->xen, sizeof bp->xen);
    read_str(&r, bp->name, sizeof bp->name);
    const uint8_t *uuid = read_bytes(&r, sizeof bp->uuid);
    if (uuid)
        memcpy(bp->uuid, uuid, sizeof bp->uuid);
    bp->type = read_u8(&r);
    bp->vcpus = read_u32(&r);
    bp->pages = read_u64(&r);
    bp->max_pages = read_u64(&r);
    bp->end_gfn = read_u64(&r);
    bp->ram_pages = read_u64(&r);
    bp->config = read_blob(&r, BLUEPRINT_CONFIG_MAX, &bp->config_len);
    bp->cpuid = read_blob(&r, BLUEPRINT_POLICY_MAX, &bp->cpuid_len);
    bp->msrs = read_blob(&r, BLUEPRINT_POLICY_MAX, &bp->msrs_len);
    bp->state = read_blob(&r, HV_STATE_MAX, &bp->state_len);
    bp->n_runs = read_u32(&r);
    bp->runs = r;
    if (r.bad)
        return err_set(e, "the blueprint is cut short");
    if (!sizes_fit(bp) || !name_fits(bp->name))
        return err_set(e, "the blueprint has impossible sizes or names");
    if (!runs_fit(bp))
        return err_set(e, "the blueprint's memory map does not add up");
    if (record_state_parse(bp->state, bp->state_len, &state, e))
        return err_add(e, "blueprint");
    return 0;
}

int blueprint_is_of(const struct hv_vm *vm, const char *name,
                    const uint8_t uuid[16], struct err *e)
{
    if (memcmp(vm->uuid, uuid, sizeof vm->uuid) != 0) {
        err_kind(e, ERR_REFUSED, "the blueprint is of another VM, not of %s",
                 vm->name);
        return err_hint(e, "compare `xl vm-list` and `understudy status` on "
                           "both hosts");
    }
    if (!strcmp(vm->name, name))
        return 0;
    err_kind(e, ERR_REFUSED, "%s is not the VM's name here, %s is", name,
             vm->name);
    return err_hint(e, "a VM that was renamed: unprotect it, and protect it "
                       "again");
}
