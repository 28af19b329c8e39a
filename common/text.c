// SPDX-License-Identifier: Apache-2.0
/* Text; see text.h. */
#include "common/text.h"

#include <string.h>

void hex_format(const uint8_t *in, size_t n, char *out)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < n; i++) {
        *out++ = digits[in[i] >> 4];
        *out++ = digits[in[i] & 15];
    }
    *out = '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool hex_parse(const char *in, uint8_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int high = hex_digit(in[2 * i]);
        int low = high < 0 ? -1 : hex_digit(in[2 * i + 1]);
        if (low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* Bytes in each group of a uuid's text. */
static const uint8_t uuid_groups[] = {4, 2, 2, 2, 6};

void uuid_format(const uint8_t uuid[16], char out[UUID_TEXT])
{
    for (size_t g = 0; g < sizeof uuid_groups; g++) {
        if (g)
            *out++ = '-';
        hex_format(uuid, uuid_groups[g], out);
        uuid += uuid_groups[g];
        out += 2 * uuid_groups[g];
    }
}

bool uuid_parse(const char *text, uint8_t uuid[16])
{
    if (!text || strlen(text) != UUID_TEXT - 1)
        return false;
    for (size_t g = 0; g < sizeof uuid_groups; g++) {
        if (g && *text++ != '-')
            return false;
        if (!hex_parse(text, uuid, uuid_groups[g]))
            return false;
        uuid += uuid_groups[g];
        text += 2 * uuid_groups[g];
    }
    return true;
}

void text_printable(char *s)
{
    for (; *s; s++) {
        if (*s < ' ' || *s > '~')
            *s = '?';
    }
}
