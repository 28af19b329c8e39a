// SPDX-License-Identifier: Apache-2.0
/* What the verbs share: usage, errors, durations; see cli.h. */
#include "cli/cli.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int verb_usage(const struct verb *v, bool asked)
{
    FILE *f = asked ? stdout : stderr;

    fprintf(f, "usage: understudy %s %s\n", v->name, v->args);
    if (asked && v->help)
        fprintf(f, "\n%s", v->help);
    else if (!asked)
        fprintf(f, "`understudy %s --help` explains it\n", v->name);
    return asked ? EXIT_FINE : EXIT_USAGE;
}

bool cli_only_json(int argc, char **argv, bool *as_json)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                            {NULL, 0, NULL, 0}};
    int c;

    *as_json = false;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c != 'j')
            return false;
        *as_json = true;
    }
    return true;
}

int cli_error(const struct err *e)
{
    fprintf(stderr, "understudy: %s\n", e->text);
    if (e->hint[0])
        fprintf(stderr, "  what to do: %s\n", e->hint);
    return e->kind == ERR_USAGE ? EXIT_USAGE : EXIT_ERROR;
}

long long cli_duration_ms(const char *text)
{
    char *end;
    double v = strtod(text, &end);

    if (end == text || !(v >= 0 && v < 1e9))
        return -1;
    if (!strcmp(end, "s"))
        v *= 1000;
    else if (*end && strcmp(end, "ms"))
        return -1;
    return (long long)(v + 0.5);
}
