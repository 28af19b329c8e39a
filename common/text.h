// SPDX-License-Identifier: Apache-2.0
/* Small things done with text. Any thread. */
#ifndef COMMON_TEXT_H
#define COMMON_TEXT_H

/* What a peer says is shown on terminals and in logs: every byte that is not
 * a printable character of ASCII becomes '?'. */
void text_printable(char *s);

#endif
