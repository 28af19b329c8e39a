// SPDX-License-Identifier: Apache-2.0
/* understudy events. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "cli/format.h"

static void print(const json_t *event, bool as_json)
{
    if (as_json) {
        json_dumpf(event, stdout, JSON_COMPACT);
        putchar('\n');
    } else {
        format_event(stdout, event);
    }
    fflush(stdout);
}

static int events(json_t *request, bool as_json, bool follow)
{
    struct client *c = NULL;
    struct err e = ERR_INIT;
    size_t i;
    json_t *event;

    if (client_open(&c, &e)) {
        json_decref(request);
        return cli_error(&e);
    }
    json_t *reply = client_ask(c, request, 10000, NULL, NULL, &e);
    if (!reply) {
        client_close(c);
        return cli_error(&e);
    }
    json_array_foreach(json_object_get(reply, "events"), i, event)
    {
        print(event, as_json);
    }
    json_decref(reply);
    while (follow && (event = client_follow(c, &e))) {
        print(event, as_json);
        json_decref(event);
    }
    client_close(c);
    return follow ? cli_error(&e) : EXIT_FINE;
}

static int run(int argc, char **argv)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'},
        {"follow", no_argument, NULL, 'f'},
        {"last", required_argument, NULL, 'n'},
        {NULL, 0, NULL, 0},
    };
    json_t *request = json_pack("{ss}", "op", "events");
    bool as_json = false, follow = false;
    int c, bad = 0;

    while ((c = getopt_long(argc, argv, "fn:", options, NULL)) != -1) {
        char *end = NULL;
        if (c == 'j') {
            as_json = true;
        } else if (c == 'f') {
            follow = true;
        } else if (c == 'n') {
            json_object_set_new(request, "count",
                                json_integer(strtol(optarg, &end, 10)));
            bad |= end == optarg || *end;
        } else {
            bad = 1;
        }
    }
    if (bad || argc - optind > 1) {
        json_decref(request);
        return verb_usage(&verb_events, false);
    }
    if (optind < argc)
        json_object_set_new(request, "vm", json_string(argv[optind]));
    json_object_set_new(request, "follow", json_boolean(follow));
    return events(request, as_json, follow);
}

const struct verb verb_events = {
    .name = "events",
    .args = "[VM] [--json] [--follow] [--last N]",
    .summary = "what happened: changes of state, errors, takeovers",
    .help = "The last 1000 events of this host since understudyd started.\n\n"
            "  --json       one object a line\n"
            "  --follow     go on with what happens from now on\n"
            "  --last N     only the last N\n",
    .run = run,
};
