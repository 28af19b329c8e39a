// SPDX-License-Identifier: Apache-2.0
/* Names of the banks and the redirect's cookie, see names.h. Called by the
 * device and by the netlink side on any thread; pure, but for what they say of
 * processes. */
#include "net-buffer/names.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/bytes.h"

static const char magic[4] = "USNB";

enum { VERSION = 1 };

bool netbuf_tag_valid(const char *tag)
{
    size_t n = strlen(tag);

    for (size_t i = 0; i < n; i++)
        if (!islower((unsigned char)tag[i]) && !isdigit((unsigned char)tag[i]))
            return false;
    return n >= 1 && n <= NETBUF_TAG_MAX;
}

void netbuf_bank_name(char out[NETBUF_NAME_MAX], const char *tag, int slot,
                      int bank)
{
    snprintf(out, NETBUF_NAME_MAX, "%.*s-%d%c", NETBUF_TAG_MAX, tag,
             slot % NETBUF_VIFS_MAX, bank ? 'b' : 'a');
}

bool netbuf_bank_parse(const char *name, char tag[NETBUF_TAG_MAX + 1],
                       int *slot, int *bank)
{
    char again[NETBUF_NAME_MAX], letter;
    const char *dash = strchr(name, '-');
    size_t n = dash ? (size_t)(dash - name) : 0;

    if (n < 1 || n > NETBUF_TAG_MAX ||
        sscanf(dash + 1, "%2d%c", slot, &letter) != 2)
        return false;
    memcpy(tag, name, n);
    tag[n] = 0;
    *bank = letter == 'b';
    if (!netbuf_tag_valid(tag) || *slot < 0 || *slot >= NETBUF_VIFS_MAX)
        return false;
    netbuf_bank_name(again, tag, *slot, *bank);
    return !strcmp(again, name);
}

void netbuf_check_tag(char tag[NETBUF_TAG_MAX + 1])
{
    snprintf(tag, NETBUF_TAG_MAX + 1, "c%x", (unsigned)getpid() & 0xffffff);
}

/* A VM's begins with another letter. */
bool netbuf_check_is_dead(const char *tag)
{
    char *end;

    if (tag[0] != 'c' || !tag[1])
        return false;
    long pid = strtol(tag + 1, &end, 16);
    return !*end && pid > 0 && kill((pid_t)pid, 0) && errno == ESRCH;
}

void netbuf_cookie_write(uint8_t out[NETBUF_COOKIE_SIZE],
                         const struct netbuf_cookie *c)
{
    memset(out, 0, NETBUF_COOKIE_SIZE);
    memcpy(out, magic, sizeof magic);
    out[4] = VERSION;
    out[5] = c->holding;
    put_le64(out + 8, c->epoch);
}

bool netbuf_cookie_read(const void *p, size_t n, struct netbuf_cookie *c)
{
    const uint8_t *b = p;

    if (n != NETBUF_COOKIE_SIZE || memcmp(b, magic, sizeof magic) ||
        b[4] != VERSION || b[5] > 1)
        return false;
    c->holding = b[5];
    c->epoch = get_le64(b + 8);
    return true;
}
