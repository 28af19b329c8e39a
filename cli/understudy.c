// SPDX-License-Identifier: Apache-2.0
/* understudy(1): main(), the table of verbs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

static const struct verb *const verbs[] = {
    &verb_protect, &verb_unprotect, &verb_status,  &verb_events,
    &verb_wait,    &verb_takeover,  &verb_disk,    &verb_peer,
    &verb_arbiter, &verb_key,       &verb_version, &verb_names,
};
#define VERBS (sizeof verbs / sizeof *verbs)

static const struct verb *verb_find(const char *name)
{
    for (size_t i = 0; i < VERBS; i++) {
        if (!strcmp(name, verbs[i]->name))
            return verbs[i];
    }
    return NULL;
}

static int usage(FILE *f, int status)
{
    fputs("usage: understudy VERB [ARGUMENTS]\n\n", f);
    for (size_t i = 0; i < VERBS; i++) {
        if (verbs[i]->summary)
            fprintf(f, "  %-10s %s\n", verbs[i]->name, verbs[i]->summary);
    }
    fputs("\n`understudy VERB --help` explains a verb.\n", f);
    return status;
}

/* What is asked of the daemon is JSON. */
static int arguments_check(int argc, char **argv)
{
    struct err e = ERR_INIT;

    for (int i = 1; i < argc; i++) {
        json_t *j = json_string(argv[i]);
        if (!j) {
            err_kind(&e, ERR_USAGE, "argument %d is not UTF-8", i);
            err_hint(&e, "a VM can be named by its domain's number, too");
            return cli_error(&e);
        }
        json_decref(j);
    }
    return EXIT_FINE;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;

    if (!name)
        return usage(stderr, EXIT_USAGE);
    if (arguments_check(argc, argv))
        return EXIT_USAGE;
    if (!strcmp(name, "--help") || !strcmp(name, "-h"))
        return usage(stdout, EXIT_FINE);
    if (!strcmp(name, "help")) {
        const struct verb *v = argc > 2 ? verb_find(argv[2]) : NULL;
        return v ? verb_usage(v, true) : usage(stdout, EXIT_FINE);
    }
    if (!strcmp(name, "--version") || !strcmp(name, "-V")) {
        printf("understudy %s\n", UNDERSTUDY_VERSION);
        return EXIT_FINE;
    }
    const struct verb *v = verb_find(name);
    if (!v) {
        fprintf(stderr, "understudy: no verb %s\n", name);
        return usage(stderr, EXIT_USAGE);
    }
    for (int i = 2; i < argc && strcmp(argv[i], "--"); i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
            return verb_usage(v, true);
    }
    return v->run(argc - 1, argv + 1);
}
