// SPDX-License-Identifier: Apache-2.0
/* understudy unprotect, takeover, wait. */
#include <getopt.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/format.h"

static int unprotect_run(int argc, char **argv)
{
    static const struct option options[] = {{NULL, 0, NULL, 0}};
    struct err e = ERR_INIT;

    if (getopt_long(argc, argv, "", options, NULL) != -1 || argc - optind != 1)
        return verb_usage(&verb_unprotect, false);
    json_t *reply = cli_ask(
        json_pack("{ss ss*}", "op", "unprotect", "vm", argv[optind]), -1, &e);
    if (!reply)
        return cli_error(&e);
    json_decref(reply);
    printf("%s is not protected any more\n", argv[optind]);
    return EXIT_FINE;
}

const struct verb verb_unprotect = {
    .name = "unprotect",
    .args = "VM",
    .summary = "stop protecting a VM; it runs on, its replica is given up",
    .help = "Type it on the host where the VM runs. When the peer can't be\n"
            "reached, it takes effect after the timeout.\n",
    .run = unprotect_run,
};

static void takeover_said(const char *vm, const json_t *reply)
{
    long long age_ms = cli_number(reply, "age_ms", -1);

    printf("%s runs on this host now\n", vm);
    if (age_ms >= 0)
        printf("It was started from its disks as they were at epoch %lld, "
               "%lld s ago.\n"
               "Its memory, and what was written since, is lost.\n",
               cli_number(reply, "epoch", 0), age_ms / 1000);
}

static int takeover_run(int argc, char **argv)
{
    static const struct option options[] = {
        {"force", no_argument, NULL, 'f'},
        {"from-disk", no_argument, NULL, 'd'},
        {NULL, 0, NULL, 0},
    };
    struct err e = ERR_INIT;
    bool force = false, from_disk = false;
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'f')
            force = true;
        else if (c == 'd')
            from_disk = true;
        else
            return verb_usage(&verb_takeover, false);
    }
    if (argc - optind != 1)
        return verb_usage(&verb_takeover, false);
    json_t *reply =
        cli_ask(json_pack("{ss ss* sb sb}", "op", "takeover", "vm",
                          argv[optind], "force", force, "from_disk", from_disk),
                -1, &e);
    if (!reply)
        return cli_error(&e);
    takeover_said(argv[optind], reply);
    json_decref(reply);
    return EXIT_FINE;
}

const struct verb verb_takeover = {
    .name = "takeover",
    .args = "VM [--from-disk] [--force]",
    .summary = "run a VM here from its replica",
    .help =
        "Type it on the backup, when the other host is known to be dead.\n"
        "It is refused while the other host is heard.\n\n"
        "  --from-disk  the memory of the replica is lost: boot the VM from "
        "its\n"
        "               disks as they were at the last whole epoch that is "
        "here\n"
        "  --force      take over all the same. If the other host runs the VM\n"
        "               still, it then runs twice. With --from-disk: although\n"
        "               the other host went on alone; not while it is heard\n",
    .run = takeover_run,
};

static int wait_run(int argc, char **argv)
{
    static const struct option options[] = {
        {"state", required_argument, NULL, 's'},
        {"timeout", required_argument, NULL, 't'},
        {NULL, 0, NULL, 0},
    };
    const char *state = NULL;
    long long timeout_ms = 0;
    struct err e = ERR_INIT;
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 's') {
            state = optarg;
        } else if (c == 't') {
            char *text = optarg;
            size_t n = 0;
            while (text[n] >= '0' && text[n] <= '9')
                n++;
            timeout_ms = cli_duration_ms(text);
            if (!text[n] && timeout_ms > 0)
                timeout_ms *= 1000; /* a bare number is seconds, as in xl */
            if (timeout_ms < 1)
                return verb_usage(&verb_wait, false);
        } else {
            return verb_usage(&verb_wait, false);
        }
    }
    if (argc - optind != 1 || !state)
        return verb_usage(&verb_wait, false);
    json_t *reply =
        cli_ask(json_pack("{ss ss* ss* sI}", "op", "wait", "vm", argv[optind],
                          "state", state, "timeout_ms", (json_int_t)timeout_ms),
                -1, &e);
    if (!reply)
        return cli_error(&e);
    json_decref(reply);
    return EXIT_FINE;
}

const struct verb verb_wait = {
    .name = "wait",
    .args = "VM --state STATE [--timeout SECONDS]",
    .summary = "wait until a VM is in a state",
    .help = "STATE is one of Unprotected Syncing Protected Degraded Migrating\n"
            "TakenOver Fenced Failed. Exit status 1 when the timeout passes, "
            "or the VM\nis not protected any more.\n",
    .run = wait_run,
};
