// SPDX-License-Identifier: Apache-2.0
/* Platform state as records of Xen's migration stream, version 3
 * (xen: docs/specs/libxc-migration-stream.pandoc): u32 type, u32 length, body,
 * padding to 8 bytes, all little-endian. get_state() writes them, set_state(),
 * the blueprint and the stream that builds the shell read them. Pure; what is
 * parsed here comes from the peer. */
#ifndef HYPERVISOR_RECORDS_H
#define HYPERVISOR_RECORDS_H

#include <stdint.h>

#include "common/bytes.h"
#include "common/err.h"

enum record_type {
    RECORD_END = 0x00,
    RECORD_PAGE_DATA = 0x01,
    RECORD_TSC_INFO = 0x08,
    RECORD_HVM_CONTEXT = 0x09,
    RECORD_HVM_PARAMS = 0x0a,
    RECORD_STATIC_DATA_END = 0x10,
    RECORD_CPUID_POLICY = 0x11,
    RECORD_MSR_POLICY = 0x12,
};

#define RECORD_PARAMS_MAX  32
#define RECORD_TSC_LEN     24u
#define RECORD_CONTEXT_MAX (8u << 20)
#define RECORD_LEAF_LEN    24u /* sizeof(xen_cpuid_leaf_t) */
#define RECORD_MSR_LEN     16u /* sizeof(xen_msr_entry_t) */

struct record_param {
    uint64_t index, value;
};

/* A parsed state; `context` points into the parsed bytes. */
struct record_state {
    uint32_t tsc_mode, tsc_khz, tsc_incarnation;
    uint64_t tsc_nsec;
    const uint8_t *context;
    uint32_t context_len;
    struct record_param params[RECORD_PARAMS_MAX];
    unsigned n_params;
};

/* Open a record in `b`, and close it: set its length and pad. Returns the
 * place to hand to record_end(). Fixed buffers set b->overflow as always. */
size_t record_begin(struct buf *b, enum record_type type);
void record_end(struct buf *b, size_t at);
/* A whole record with the given body. */
void record_put(struct buf *b, enum record_type type, const void *body,
                size_t n);

/* Parse a state: exactly one record each of TSC info, HVM context and HVM
 * params, in any order, nothing else, nothing left over. */
int record_state_parse(const void *p, size_t n, struct record_state *s,
                       struct err *e);

/* The same, and the HVM context is what Xen makes (xen:
 * public/arch-x86/hvm/save.h, public/hvm/save.h): entries of u16 type, u16
 * instance, u32 length and as many bytes, the header first, an empty end last.
 * What is in them is Xen's to judge. */
int record_state_check(const void *p, size_t n, struct err *e);

#endif
