// SPDX-License-Identifier: Apache-2.0
/* The names and the cookie by which net-buffer knows its own again. Pure. */
#ifndef NET_BUFFER_NAMES_H
#define NET_BUFFER_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net-buffer/netbuf.h"

#define NETBUF_COOKIE_SIZE 16 /* TC_COOKIE_MAX_SIZE */

/* 1 to NETBUF_TAG_MAX of [a-z0-9]. */
bool netbuf_tag_valid(const char *tag);

/* "TAG-SLOTa" or "TAG-SLOTb"; slot below NETBUF_VIFS_MAX, bank 0 or 1. */
void netbuf_bank_name(char out[NETBUF_NAME_MAX], const char *tag, int slot,
                      int bank);
/* The reverse; false when the name is not one of ours. */
bool netbuf_bank_parse(const char *name, char tag[NETBUF_TAG_MAX + 1],
                       int *slot, int *bank);

/* The tag under which this process checks the host. */
void netbuf_check_tag(char tag[NETBUF_TAG_MAX + 1]);
/* Whether it is one of a process that is no more. */
bool netbuf_check_is_dead(const char *tag);

/* What the redirect remembers when we are gone. */
struct netbuf_cookie {
    bool holding;
    uint64_t epoch;
};

void netbuf_cookie_write(uint8_t out[NETBUF_COOKIE_SIZE],
                         const struct netbuf_cookie *c);
/* False when it is not ours or of a version that we don't know. */
bool netbuf_cookie_read(const void *p, size_t n, struct netbuf_cookie *c);

#endif
