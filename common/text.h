// SPDX-License-Identifier: Apache-2.0
/* Small things done with text. Any thread. */
#ifndef COMMON_TEXT_H
#define COMMON_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 2 * n digits in lower case, and a zero byte. */
void hex_format(const uint8_t *in, size_t n, char *out);
/* 2 * n digits of either case from the start of `in`; false when one is not.
 * What follows them is not looked at. */
bool hex_parse(const char *in, uint8_t *out, size_t n);

#define UUID_TEXT 37 /* with the zero byte */
/* Text of a uuid, in lower case, and back; parse takes upper case too, and
 * nothing else than the dashed form. */
void uuid_format(const uint8_t uuid[16], char out[UUID_TEXT]);
bool uuid_parse(const char *text, uint8_t uuid[16]);

/* What a peer says is shown on terminals and in logs: every byte that is not
 * a printable character of ASCII becomes '?'. */
void text_printable(char *s);

#endif
