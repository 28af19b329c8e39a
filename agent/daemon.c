// SPDX-License-Identifier: Apache-2.0
/* What the daemon's parts share; see daemon.h. */
#include "agent/daemon.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

void daemon_event(struct daemon *d, const char *name, const char *vm,
                  const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (vm[0])
        log_info("dom=%s event=%s %s", vm, name, text);
    else
        log_info("event=%s %s", name, text);
    json_t *j = json_pack("{ss ss so}", "event", name, "vm", vm, "text",
                          text_json(text));
    events_add(&d->events, j);
    json_decref(j);
}

int daemon_hv_open(struct hv **hv, struct err *e)
{
    const char *which = getenv("UNDERSTUDY_HV");

    if (!which || !which[0])
        return hv_xen_open(hv, e);
    if (!strncmp(which, "fake:", 5))
        return hv_fake_open(which + 5, hv, e);
    return err_kind(e, ERR_USAGE, "UNDERSTUDY_HV is not fake:DIRECTORY: %s",
                    which);
}
