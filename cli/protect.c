// SPDX-License-Identifier: Apache-2.0
/* understudy protect: ask, and show the first copy until it is whole. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/format.h"

struct show {
    bool terminal, shown;
    char state[32];
    time_t last;
};

/* On a terminal one line that changes; else a line a change of state, and one
 * every five seconds. */
static void on_progress(void *arg, const json_t *status)
{
    struct show *s = arg;
    const char *state = cli_text(status, "state", "?");
    time_t now = time(NULL);

    if (s->terminal) {
        fputs("\r\033[K", stderr);
        format_progress(stderr, status);
        fflush(stderr);
    } else if (strcmp(state, s->state) || now - s->last >= 5) {
        format_progress(stderr, status);
        fputc('\n', stderr);
        s->last = now;
    }
    s->shown = true;
    snprintf(s->state, sizeof s->state, "%s", state);
}

static int protect(json_t *request, const char *peer, bool wait)
{
    struct show show = {.terminal = isatty(STDERR_FILENO)};
    struct err e = ERR_INIT;
    struct client *c = NULL;

    if (client_open(&c, &e)) {
        json_decref(request);
        return cli_error(&e);
    }
    json_t *reply = client_ask(c, request, -1, on_progress, &show, &e);
    client_close(c);
    if (show.terminal && show.shown)
        fputs("\r\033[K", stderr);
    if (!reply)
        return cli_error(&e);
    if (wait)
        printf("%s is Protected, %s is its backup\n",
               cli_text(reply, "name", "?"), peer);
    else
        printf("%s: the copy to %s has begun, see `understudy status %s`\n",
               cli_text(reply, "name", "?"), peer, cli_text(reply, "name", ""));
    json_decref(reply);
    return EXIT_FINE;
}

static int duration_put(json_t *request, const char *key, const char *text)
{
    long long ms = cli_duration_ms(text);

    if (ms < 1) {
        fprintf(stderr, "understudy: %s is no duration; say 200ms or 1.5s\n",
                text);
        return -1;
    }
    json_object_set_new(request, key, json_integer(ms));
    return 0;
}

static int run(int argc, char **argv)
{
    static const struct option options[] = {
        {"arbiter", required_argument, NULL, 'a'},
        {"interval", required_argument, NULL, 'i'},
        {"timeout", required_argument, NULL, 't'},
        {"no-wait", no_argument, NULL, 'n'},
        {NULL, 0, NULL, 0},
    };
    json_t *request = json_pack("{ss}", "op", "protect");
    const char *arbiter = NULL;
    bool wait = true;
    int c, bad = 0;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'a')
            arbiter = optarg;
        else if (c == 'i')
            bad |= duration_put(request, "interval_ms", optarg);
        else if (c == 't')
            bad |= duration_put(request, "timeout_ms", optarg);
        else if (c == 'n')
            wait = false;
        else
            bad = -1;
    }
    if (bad || argc - optind != 2) {
        json_decref(request);
        return verb_usage(&verb_protect, false);
    }
    if (arbiter && !strcmp(arbiter, "none"))
        fputs("understudy: warning: with --arbiter none a cut link between "
              "the hosts runs the VM twice\n",
              stderr);
    json_object_set_new(request, "vm", json_string(argv[optind]));
    json_object_set_new(request, "peer", json_string(argv[optind + 1]));
    if (arbiter)
        json_object_set_new(request, "arbiter", json_string(arbiter));
    json_object_set_new(request, "wait", json_boolean(wait));
    return protect(request, argv[optind + 1], wait);
}

const struct verb verb_protect = {
    .name = "protect",
    .args = "VM PEER [--arbiter none] [--interval TIME] [--timeout TIME] "
            "[--no-wait]",
    .summary = "keep a replica of a VM on another host, always up to date",
    .help =
        "VM (a name or domain id) survives the loss of this host: PEER takes\n"
        "it over, with its TCP connections. PEER is a name from `understudy\n"
        "peer list`.\n\n"
        "Who decides which host runs the VM when they lose sight of each\n"
        "other is the arbiter that `understudy arbiter set` named.\n\n"
        "  --arbiter none   nobody does; a cut link between the hosts then\n"
        "                   runs the VM twice\n"
        "  --interval TIME  from one epoch to the next (200ms)\n"
        "  --timeout TIME   silence after which the peer is taken for dead\n"
        "                   (1s)\n"
        "  --no-wait        return when the copy has begun\n\n"
        "When it fails before the VM is Protected, nothing was changed. "
        "Interrupted\n(Ctrl-C), it only stops showing: the protection goes on, "
        "`understudy unprotect`\nends it.\n"
        "After a takeover PEER is the host that the VM was taken over from.\n",
    .run = run,
};
