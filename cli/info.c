// SPDX-License-Identifier: Apache-2.0
/* understudy version, key, and the names that shell completion asks for. */
#include <getopt.h> /* optind */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static void answer_print(json_t *reply)
{
    json_object_del(reply, "id");
    json_object_del(reply, "ok");
    json_dumpf(reply, stdout, JSON_INDENT(2));
    putchar('\n');
}

static int version_run(int argc, char **argv)
{
    struct err e = ERR_INIT;
    bool as_json;

    if (!cli_only_json(argc, argv, &as_json) || optind != argc)
        return verb_usage(&verb_version, false);
    json_t *reply = cli_ask(json_pack("{ss}", "op", "version"), 10000, &e);
    if (!reply) {
        if (!as_json)
            printf("understudy %s\n", UNDERSTUDY_VERSION);
        return cli_error(&e);
    }
    if (as_json)
        answer_print(reply);
    else
        printf("understudy %s, understudyd %s on %s, protocol %lld\n",
               UNDERSTUDY_VERSION, cli_text(reply, "version", "?"),
               cli_text(reply, "name", "?"), cli_number(reply, "protocol", 0));
    json_decref(reply);
    return EXIT_FINE;
}

const struct verb verb_version = {
    .name = "version",
    .args = "[--json]",
    .summary = "versions of this program and of the daemon",
    .help = "Exit status 1 when understudyd does not run.\n",
    .run = version_run,
};

static int key_run(int argc, char **argv)
{
    struct err e = ERR_INIT;
    bool as_json;

    if (argc < 2 || strcmp(argv[1], "show") ||
        !cli_only_json(argc - 1, argv + 1, &as_json) || optind != argc - 1)
        return verb_usage(&verb_key, false);
    json_t *reply = cli_ask(json_pack("{ss}", "op", "key"), 10000, &e);
    if (!reply)
        return cli_error(&e);
    if (as_json)
        answer_print(reply);
    else
        printf("%s\n", cli_text(reply, "pin", "?"));
    json_decref(reply);
    return EXIT_FINE;
}

const struct verb verb_key = {
    .name = "key",
    .args = "show [--json]",
    .summary = "this host's public key, as other hosts pin it",
    .help = "The SHA-256 of the public key in hexadecimal.\n",
    .run = key_run,
};

static int names_run(int argc, char **argv)
{
    struct err e = ERR_INIT;
    size_t i;
    json_t *name;

    if (argc != 2)
        return verb_usage(&verb_names, false);
    json_t *reply = cli_ask(json_pack("{ss}", "op", "names"), 2000, &e);
    if (!reply)
        return EXIT_ERROR;
    json_array_foreach(json_object_get(reply, argv[1]), i, name)
    {
        puts(json_string_value(name));
    }
    json_decref(reply);
    return EXIT_FINE;
}

const struct verb verb_names = {
    .name = "names",
    .args = "vms|peers",
    .run = names_run,
};
