// SPDX-License-Identifier: Apache-2.0
/* NBD requests and replies; see nbd.h. No state. */
#include "disk-replicate/nbd.h"

#include <errno.h>

#define REQUEST_MAGIC 0x25609513u
#define REPLY_MAGIC   0x67446698u

static uint64_t get_be(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;

    while (bytes-- > 0)
        v = v << 8 | *p++;
    return v;
}

static void put_be(uint8_t *p, unsigned bytes, uint64_t v)
{
    while (bytes-- > 0) {
        p[bytes] = (uint8_t)v;
        v >>= 8;
    }
}

bool nbd_request_get(const uint8_t p[NBD_REQUEST_BYTES], struct nbd_header *out)
{
    out->flags = (uint16_t)get_be(p + 4, 2);
    out->command = (uint16_t)get_be(p + 6, 2);
    out->handle = get_be(p + 8, 8);
    out->offset = get_be(p + 16, 8);
    out->length = (uint32_t)get_be(p + 24, 4);
    return get_be(p, 4) == REQUEST_MAGIC;
}

void nbd_request_put(uint8_t p[NBD_REQUEST_BYTES], const struct nbd_header *r)
{
    put_be(p, 4, REQUEST_MAGIC);
    put_be(p + 4, 2, r->flags);
    put_be(p + 6, 2, r->command);
    put_be(p + 8, 8, r->handle);
    put_be(p + 16, 8, r->offset);
    put_be(p + 24, 4, r->length);
}

/* The protocol's numbers are Linux's, but only these. */
static uint32_t error_number(int error)
{
    switch (error) {
    case 0:
    case EPERM:
    case ENOMEM:
    case EINVAL:
    case ENOSPC:
    case ESHUTDOWN:
        return (uint32_t)error;
    case EROFS:
        return EPERM;
    case EDQUOT:
    case EFBIG:
        return ENOSPC;
    default:
        return EIO;
    }
}

void nbd_reply_put(uint8_t p[NBD_REPLY_BYTES], uint64_t handle, int error)
{
    put_be(p, 4, REPLY_MAGIC);
    put_be(p + 4, 4, error_number(error));
    put_be(p + 8, 8, handle);
}

bool nbd_reply_get(const uint8_t p[NBD_REPLY_BYTES], uint64_t *handle,
                   int *error)
{
    *error = (int)get_be(p + 4, 4);
    *handle = get_be(p + 8, 8);
    return get_be(p, 4) == REPLY_MAGIC;
}

static uint16_t flags_of(uint16_t command)
{
    switch (command) {
    case NBD_WRITE:
    case NBD_TRIM:
        return NBD_FUA;
    case NBD_WRITE_ZEROES:
        return NBD_FUA | NBD_NO_HOLE;
    case NBD_READ: /* means nothing there, and is allowed */
        return NBD_FUA;
    default:
        return 0;
    }
}

int nbd_request_check(const struct nbd_header *r, uint64_t bytes,
                      bool read_only)
{
    bool reads = r->command == NBD_READ;
    bool moves = reads || r->command == NBD_WRITE;

    if (r->flags & ~flags_of(r->command))
        return EINVAL;
    if (r->command == NBD_FLUSH)
        return 0;
    if (!moves && r->command != NBD_TRIM && r->command != NBD_WRITE_ZEROES)
        return EINVAL;
    if (moves && r->length > NBD_LENGTH_MAX)
        return EINVAL;
    if (r->offset > bytes || r->length > bytes - r->offset)
        return reads ? EINVAL : ENOSPC;
    return read_only && !reads ? EPERM : 0;
}
