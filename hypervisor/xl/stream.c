// SPDX-License-Identifier: Apache-2.0
/* The save image that a shell is restored from, made up from a blueprint
 * instead of saved: all frames of the VM are allocated and none has contents
 * (page type XALLOC), the platform state is the blueprint's. Called by the
 * feeder thread of build.c.
 *
 * Formats: xen docs/specs/libxl-migration-stream.pandoc (version 2) around
 * docs/specs/libxc-migration-stream.pandoc (version 3). */
#include "hypervisor/xl/xl.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "hypervisor/records.h"

#define XL_RECORD_END     0u
#define XL_RECORD_CONTEXT 1u /* LIBXC_CONTEXT: the inner stream follows */
#define DOMAIN_X86_HVM    2u
#define PAGES_A_RECORD    1024u
#define XALLOC            (0xeull << 60) /* XEN_DOMCTL_PFINFO_XALLOC << 32 */

static void be32(struct buf *b, uint32_t v)
{
    buf_u32(b, __builtin_bswap32(v));
}

static bool flush(int fd, struct buf *b)
{
    for (size_t done = 0; done < b->len;) {
        ssize_t n = write(fd, b->data + done, b->len - done);
        if (n < 0 && errno != EINTR)
            return false;
        if (n > 0)
            done += (size_t)n;
    }
    buf_clear(b);
    return true;
}

static void headers(struct buf *b, const struct blueprint *bp)
{
    unsigned major = 4, minor = 0;

    sscanf(bp->xen, "%u.%u", &major, &minor);
    buf_put(b, "LibxlFmt", 8);
    be32(b, 2); /* version */
    be32(b, 0); /* little-endian */
    buf_u32(b, XL_RECORD_CONTEXT);
    buf_u32(b, 0);

    buf_u64(b, UINT64_MAX); /* marker */
    be32(b, 0x58454e46);    /* "XENF" */
    be32(b, 3);             /* version */
    buf_u64(b, 0);          /* options: little-endian; reserved */
    buf_u32(b, DOMAIN_X86_HVM);
    buf_u16(b, 12); /* page shift */
    buf_u16(b, 0);
    buf_u32(b, major);
    buf_u32(b, minor);
}

/* Frames gfn to gfn + n as one record. */
static void pages_put(struct buf *b, uint64_t gfn, uint32_t n)
{
    size_t at = record_begin(b, RECORD_PAGE_DATA);

    buf_u32(b, n);
    buf_u32(b, 0);
    for (uint32_t i = 0; i < n; i++)
        buf_u64(b, XALLOC | (gfn + i));
    record_end(b, at);
}

static bool all_pages(int fd, struct buf *b, const struct blueprint *bp)
{
    struct reader runs = bp->runs;
    uint64_t end = 0, gfn, count;

    while (blueprint_run(&runs, &end, &gfn, &count))
        for (; count; gfn += PAGES_A_RECORD) {
            uint64_t n = count < PAGES_A_RECORD ? count : PAGES_A_RECORD;
            pages_put(b, gfn, (uint32_t)n);
            count -= n;
            if (!flush(fd, b))
                return false;
        }
    return true;
}

bool stream_write(int fd, const struct blueprint *bp)
{
    struct buf b = {0};
    bool ok;

    headers(&b, bp);
    if (bp->cpuid_len)
        record_put(&b, RECORD_CPUID_POLICY, bp->cpuid, bp->cpuid_len);
    if (bp->msrs_len)
        record_put(&b, RECORD_MSR_POLICY, bp->msrs, bp->msrs_len);
    record_put(&b, RECORD_STATIC_DATA_END, NULL, 0);
    ok = flush(fd, &b) && all_pages(fd, &b, bp);
    buf_put(&b, bp->state, bp->state_len); /* framed and checked already */
    record_put(&b, RECORD_END, NULL, 0);
    buf_u32(&b, XL_RECORD_END);
    buf_u32(&b, 0);
    ok = ok && flush(fd, &b);
    buf_free(&b);
    close(fd);
    return ok;
}
