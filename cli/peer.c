// SPDX-License-Identifier: Apache-2.0
/* understudy peer: add, list, remove. Adding over ssh pins both hosts' keys
 * with each other, or none. */
#include "cli/peer_ssh.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/format.h"

static int peer_add_here(const char *name, const char *address, const char *pin,
                         bool *known, struct err *e)
{
    json_t *reply =
        cli_ask(json_pack("{ss ss* ss* ss*}", "op", "peer-add", "name", name,
                          "address", address, "pin", pin),
                10000, e);

    if (!reply)
        return -1;
    *known = json_is_true(json_object_get(reply, "known"));
    json_decref(reply);
    return 0;
}

static int peer_remove_here(const char *name, struct err *e)
{
    json_t *reply = cli_ask(
        json_pack("{ss ss*}", "op", "peer-remove", "name", name), 10000, e);

    json_decref(reply);
    return reply ? 0 : -1;
}

/* First here, then there: what was done here can be undone. */
static int both_add(const char *target, const struct ssh_peer *them,
                    const struct ssh_peer *us, struct err *e)
{
    struct err undo = ERR_INIT;
    bool known;

    if (peer_add_here(them->name, them->address, them->pin, &known, e))
        return -1;
    if (!ssh_peer_add(target, us, e))
        return 0;
    if (!known && peer_remove_here(them->name, &undo))
        fprintf(stderr, "understudy: could not undo: %s\n", undo.text);
    return -1;
}

struct add_args {
    const char *target, *address, *my_address, *pin;
};

static int add_over_ssh(const struct add_args *args)
{
    struct ssh_peer them = {0}, us = {0};
    struct err e = ERR_INIT;
    json_t *key = cli_ask(json_pack("{ss}", "op", "key"), 10000, &e);

    if (!key)
        return cli_error(&e);
    int rc = ssh_peer_of(&us, key, "this host", &e);
    json_decref(key);
    if (rc || ssh_key_show(args->target, &them, &e) ||
        ssh_addresses(args->target, args->address, args->my_address, &them, &us,
                      &e) ||
        both_add(args->target, &them, &us, &e))
        return cli_error(&e);
    printf("%s (%s) and this host (%s, %s) know each other now\n", them.name,
           them.address, us.name, us.address);
    return EXIT_FINE;
}

static int add_by_hand(const struct add_args *args)
{
    struct err e = ERR_INIT;
    bool known;

    if (peer_add_here(args->target, args->address, args->pin, &known, &e))
        return cli_error(&e);
    printf("%s %s\n", args->target,
           known ? "was known already"
                 : "is known now; it has to know this host, too");
    return EXIT_FINE;
}

static int add_run(int argc, char **argv)
{
    static const struct option options[] = {
        {"address", required_argument, NULL, 'a'},
        {"my-address", required_argument, NULL, 'm'},
        {"pin", required_argument, NULL, 'p'},
        {NULL, 0, NULL, 0},
    };
    struct add_args args = {0};
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'a')
            args.address = optarg;
        else if (c == 'm')
            args.my_address = optarg;
        else if (c == 'p')
            args.pin = optarg;
        else
            return verb_usage(&verb_peer, false);
    }
    if (argc - optind != 1)
        return verb_usage(&verb_peer, false);
    args.target = argv[optind];
    if (strchr(args.target, '@') && !args.pin)
        return add_over_ssh(&args);
    if (!args.address || !args.pin || args.my_address)
        return verb_usage(&verb_peer, false);
    return add_by_hand(&args);
}

static int list_run(int argc, char **argv)
{
    struct err e = ERR_INIT;
    bool as_json;

    if (!cli_only_json(argc, argv, &as_json) || optind != argc)
        return verb_usage(&verb_peer, false);
    json_t *reply = cli_ask(json_pack("{ss}", "op", "peer-list"), 10000, &e);
    if (!reply)
        return cli_error(&e);
    const json_t *list = json_object_get(reply, "peers");
    if (as_json) {
        json_dumpf(list, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        format_peers(stdout, list);
    }
    json_decref(reply);
    return EXIT_FINE;
}

static int remove_run(int argc, char **argv)
{
    struct err e = ERR_INIT;

    if (argc != 2 || argv[1][0] == '-')
        return verb_usage(&verb_peer, false);
    if (peer_remove_here(argv[1], &e))
        return cli_error(&e);
    printf("%s is forgotten here\n", argv[1]);
    return EXIT_FINE;
}

static int path_run(int argc, char **argv)
{
    bool add = argc == 4 && !strcmp(argv[1], "add");
    struct err e = ERR_INIT;

    if (argc != 4 || (!add && strcmp(argv[1], "remove") != 0) ||
        argv[2][0] == '-')
        return verb_usage(&verb_peer, false);
    json_t *reply =
        cli_ask(json_pack("{ss ss* ss*}", "op",
                          add ? "peer-path-add" : "peer-path-remove", "name",
                          argv[2], "address", argv[3]),
                10000, &e);
    if (!reply)
        return cli_error(&e);
    json_decref(reply);
    printf(add ? "%s is listened to at %s, too; %s has to be told a path to "
                 "this host, too\n"
               : "%s is not listened to at %s any more\n",
           argv[2], argv[3], argv[2]);
    return EXIT_FINE;
}

static int run(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "add"))
        return add_run(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "list"))
        return list_run(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "remove"))
        return remove_run(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "path"))
        return path_run(argc - 1, argv + 1);
    return verb_usage(&verb_peer, false);
}

const struct verb verb_peer = {
    .name = "peer",
    .args = "add root@HOST [--address A] [--my-address A]\n"
            "       understudy peer add NAME --address A[:PORT] --pin PIN\n"
            "       understudy peer list [--json]\n"
            "       understudy peer remove NAME\n"
            "       understudy peer path add|remove NAME ADDRESS[:PORT]",
    .summary = "the hosts that this host trusts",
    .help =
        "`add root@HOST` fetches HOST's key over ssh and leaves this host's\n"
        "there: both know each other, or, when something fails, neither does.\n"
        "understudy has to be installed and understudyd to run on both.\n\n"
        "  --address A     where HOST's understudyd listens, if not at the\n"
        "                  address that HOST resolves to\n"
        "  --my-address A  where HOST reaches this host\n\n"
        "`add NAME` does this host's half by hand; PIN is what `understudy "
        "key\nshow` prints on NAME.\n\n"
        "`path add` names one more address of NAME, for heartbeats: a host "
        "lives while it\nis heard on any path. Type it on both hosts.\n",
    .run = run,
};
