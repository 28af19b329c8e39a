// SPDX-License-Identifier: Apache-2.0
/* understudy status. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/format.h"

/* 3 when a VM is worse off than its operator wanted. */
static int verdict(const json_t *list)
{
    size_t i;
    json_t *o;

    json_array_foreach(list, i, o)
    {
        const char *state = cli_text(o, "state", "");
        if (!strcmp(state, "Degraded") || !strcmp(state, "Failed") ||
            !strcmp(state, "Fenced") || format_agent_ill(o) ||
            format_copy_old(o))
            return EXIT_WORSE;
    }
    return EXIT_FINE;
}

static int print(const char *vm, bool as_json)
{
    json_t *request = json_pack("{ss}", "op", "status");
    struct err e = ERR_INIT;

    if (vm)
        json_object_set_new(request, "vm", json_string(vm));
    json_t *reply = cli_ask(request, 10000, &e);
    if (!reply)
        return cli_error(&e);
    const json_t *list = json_object_get(reply, "status");
    if (as_json) {
        json_dumpf(list, stdout, JSON_INDENT(2));
        putchar('\n');
    } else if (vm) {
        format_status(stdout, json_array_get(list, 0));
    } else {
        format_status_table(stdout, list);
    }
    int status = verdict(list);
    json_decref(reply);
    fflush(stdout);
    return status;
}

static int run(int argc, char **argv)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'},
        {"watch", no_argument, NULL, 'w'},
        {NULL, 0, NULL, 0},
    };
    bool as_json = false, watch = false;
    int c, status;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'j')
            as_json = true;
        else if (c == 'w')
            watch = true;
        else
            return verb_usage(&verb_status, false);
    }
    if (argc - optind > 1)
        return verb_usage(&verb_status, false);
    for (;;) {
        if (watch && isatty(STDOUT_FILENO))
            fputs("\033[H\033[2J", stdout);
        status = print(argv[optind], as_json);
        if (!watch || status == EXIT_ERROR)
            return status;
        sleep(1);
    }
}

const struct verb verb_status = {
    .name = "status",
    .args = "[VM] [--json] [--watch]",
    .summary = "what protects which VM, and how well",
    .help = "Without VM a line for each protected VM of this host; with VM all "
            "that is\nknown of it.\n\n"
            "  --json   an array of objects, see understudy(1)\n"
            "  --watch  again every second\n\n"
            "Exit status 3: a VM that was shown is Degraded, Fenced or "
            "Failed, its agent does\nnot answer or ends again and again, or no "
            "epoch came for two timeouts.\n",
    .run = run,
};
