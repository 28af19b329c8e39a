// SPDX-License-Identifier: Apache-2.0
/* The blueprint: everything the other host needs to build a shell of a VM.
 * describe() writes it on the primary, shell_check(), shell_build() and
 * understudy-xl read it on the backup. Pure; the bytes come from the peer.
 *
 * Layout, little-endian (blob = u32 length and bytes, varint = LEB128):
 *   8 bytes "UNDRBLUE", u16 version (1), u16 zero
 *   str xen version ("4.17"), str name, 16 bytes uuid, u8 type (hv_type),
 *   u32 vcpus, u64 pages, u64 max_pages, u64 end_gfn, u64 ram_pages
 *   blob config (libxl's JSON, no NUL), blob CPUID policy, blob MSR policy,
 *   blob platform state (records.h)
 *   u32 runs, then for each run of populated gfns: varint gap since the end
 *   of the run before, varint pages (at least 1) */
#ifndef HYPERVISOR_BLUEPRINT_H
#define HYPERVISOR_BLUEPRINT_H

#include "common/bytes.h"
#include "common/err.h"
#include "hypervisor/hv.h"

#define BLUEPRINT_CONFIG_MAX (1u << 20)
#define BLUEPRINT_POLICY_MAX (1u << 20)
#define BLUEPRINT_GFN_MAX    (1ull << 34) /* 64 TiB */

/* What a blueprint says. Pointers reach into the parsed bytes, `config` is not
 * NUL-terminated. */
struct blueprint {
    char xen[32];
    char name[64];
    uint8_t uuid[16];
    enum hv_type type;
    uint32_t vcpus;
    uint64_t pages, max_pages, end_gfn, ram_pages;
    const uint8_t *config, *cpuid, *msrs, *state;
    size_t config_len, cpuid_len, msrs_len, state_len;
    struct reader runs; /* at the first run */
    uint32_t n_runs;
};

/* Append a blueprint. `ram` is the bitmap of populated gfns below end_gfn;
 * ram_pages, n_runs and runs of `bp` are ignored, they come from it. */
void blueprint_write(struct buf *b, const struct blueprint *bp,
                     const uint64_t *ram);
/* Check everything: sizes, names, order and sum of the runs, state records.
 * ERR_REFUSED with a hint for another version. */
int blueprint_parse(const void *p, size_t n, struct blueprint *bp,
                    struct err *e);

/* The name and uuid of a blueprint are those of `vm`, or ERR_REFUSED. */
int blueprint_is_of(const struct hv_vm *vm, const char *name,
                    const uint8_t uuid[16], struct err *e);

/* Iterate the runs of a parsed blueprint: *gfn is where the last one ended
 * (0 at first) and becomes the start of the next; false after the last. */
bool blueprint_run(struct reader *runs, uint64_t *end, uint64_t *gfn,
                   uint64_t *count);

#endif
