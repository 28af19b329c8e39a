// SPDX-License-Identifier: Apache-2.0
/* The transmission phase of the NBD protocol, as Linux's client speaks it
 * (drivers/block/nbd.c, Linux 6.1; the NBD project's doc/proto.md). Big-endian:
 *
 *     request  4 0x25609513  2 flags  2 command  8 handle  8 offset  4 length
 *              data of a write
 *     reply    4 0x67446698  4 error, 0: none  8 handle
 *              data of a read without an error
 *
 * Pure. */
#ifndef DISK_REPLICATE_NBD_H
#define DISK_REPLICATE_NBD_H

#include <stdbool.h>
#include <stdint.h>

#define NBD_REQUEST_BYTES 28u
#define NBD_REPLY_BYTES   16u
#define NBD_LENGTH_MAX    (32u << 20) /* of a read or write */

enum nbd_command {
    NBD_READ = 0,
    NBD_WRITE = 1,
    NBD_DISCONNECT_NOW = 2,
    NBD_FLUSH = 3,
    NBD_TRIM = 4,
    NBD_WRITE_ZEROES = 6,
};

enum nbd_flags {
    NBD_FUA = 1 << 0,
    NBD_NO_HOLE = 1 << 1, /* of WRITE_ZEROES */
};

struct nbd_header {
    uint16_t flags, command;
    uint64_t handle; /* opaque */
    uint64_t offset;
    uint32_t length;
};

/* False: no request begins here; nothing that follows can be trusted. */
bool nbd_request_get(const uint8_t p[NBD_REQUEST_BYTES],
                     struct nbd_header *out);
void nbd_request_put(uint8_t p[NBD_REQUEST_BYTES], const struct nbd_header *r);
/* `error` is an errno of ours; what the protocol has no number for becomes
 * EIO. */
void nbd_reply_put(uint8_t p[NBD_REPLY_BYTES], uint64_t handle, int error);
bool nbd_reply_get(const uint8_t p[NBD_REPLY_BYTES], uint64_t *handle,
                   int *error);

/* 0, or the errno that refuses this request of a disk of `bytes`. */
int nbd_request_check(const struct nbd_header *r, uint64_t bytes,
                      bool read_only);

#endif
