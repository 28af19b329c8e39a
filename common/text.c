// SPDX-License-Identifier: Apache-2.0
/* Text; see text.h. */
#include "common/text.h"

void text_printable(char *s)
{
    for (; *s; s++) {
        if (*s < ' ' || *s > '~')
            *s = '?';
    }
}
