// SPDX-License-Identifier: Apache-2.0
/* understudy arbiter: set, show. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/format.h"

static int set(const char *line)
{
    struct err e = ERR_INIT;
    json_t *reply = cli_ask(
        json_pack("{ss ss*}", "op", "arbiter-set", "arbiter", line), 10000, &e);

    if (!reply)
        return cli_error(&e);
    long long others = cli_number(reply, "others", 0);
    const char *now = cli_text(reply, "arbiter", "");
    if (now[0])
        printf("the arbiter is %s; set the same on the other host, and look at "
               "it with `understudy arbiter show`\n",
               now);
    else
        printf("no arbiter is set any more\n");
    if (others > 0)
        printf("%lld VMs keep the arbiter that they were protected with\n",
               others);
    json_decref(reply);
    return EXIT_FINE;
}

static int show(bool as_json)
{
    struct err e = ERR_INIT;
    json_t *reply = cli_ask(json_pack("{ss}", "op", "arbiter-show"), 10000, &e);

    if (!reply)
        return cli_error(&e);
    bool up = json_is_true(json_object_get(reply, "up"));
    bool worse = cli_text(reply, "arbiter", "")[0] && !up;
    if (as_json) {
        json_object_del(reply, "id");
        json_object_del(reply, "ok");
        json_dumpf(reply, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        format_arbiter(stdout, reply);
    }
    json_decref(reply);
    return worse ? EXIT_WORSE : EXIT_FINE;
}

static int run(int argc, char **argv)
{
    bool as_json = argc == 3 && !strcmp(argv[2], "--json");

    if (argc == 3 && !strcmp(argv[1], "set") && argv[2][0] != '-')
        return set(argv[2]);
    if ((argc == 2 || as_json) && !strcmp(argv[1], "show"))
        return show(as_json);
    return verb_usage(&verb_arbiter, false);
}

const struct verb verb_arbiter = {
    .name = "arbiter",
    .args = "set \"witness:HOST:PORT pin=PIN\" | \"etcd:URL,URL,URL ...\" | "
            "none\n"
            "       understudy arbiter show [--json]",
    .summary = "who decides which host runs a VM",
    .help =
        "`set` names the arbiter that VMs which are protected from now on are\n"
        "registered with; both hosts have to name the same. PIN is what\n"
        "`understudy-witness key` prints there, see understudy-witness(8). "
        "For\n"
        "an etcd see understudyd(8).\n"
        "`none` names none: `protect` then wants --arbiter none.\n\n"
        "Exit status 3 of `show`: the arbiter can't be asked now.\n",
    .run = run,
};
