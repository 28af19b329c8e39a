// SPDX-License-Identifier: Apache-2.0
/* What the verbs of `understudy` share. The program speaks to understudyd on
 * this host over its control socket (the protocol is in agent/control.h) and
 * waits for answers in the plain blocking way; one thread. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>

#include "common/err.h"

/* Exit statuses. */
enum cli_exit { EXIT_FINE = 0, EXIT_ERROR = 1, EXIT_USAGE = 2, EXIT_WORSE = 3 };

struct verb {
    const char *name;
    const char *args;    /* as in "VM PEER --arbiter A [--no-wait]" */
    const char *summary; /* for the list of verbs; NULL: not listed */
    const char *help;    /* the rest of `understudy VERB --help` */
    /* argv[0] is the verb. Returns an exit status. */
    int (*run)(int argc, char **argv);
};

extern const struct verb verb_protect, verb_unprotect, verb_status, verb_events,
    verb_wait, verb_takeover, verb_disk, verb_peer, verb_arbiter, verb_key,
    verb_version, verb_names;

/* Print how a verb is used; to stderr, with EXIT_USAGE, unless `asked`. */
int verb_usage(const struct verb *v, bool asked);
/* Options of a verb that has none but --json; false: another was given. The
 * operands are at optind. */
bool cli_only_json(int argc, char **argv, bool *as_json);
/* "understudy: TEXT", "  what to do: HINT"; returns the exit status. */
int cli_error(const struct err *e);

/* --- The daemon (client.c) ---------------------------------------------- */

struct client;
/* ERR_GONE with a hint when understudyd does not run. */
int client_open(struct client **c, struct err *e);
void client_close(struct client *c);
/* Ask and wait for the answer, which the caller owns; NULL and *e else. The
 * request is stolen. `progress` (may be NULL) gets the status objects on the
 * way. timeout_ms: for each message, -1 for ever. */
json_t *client_ask(struct client *c, json_t *request, int timeout_ms,
                   void (*progress)(void *arg, const json_t *status), void *arg,
                   struct err *e);
/* The next event that is followed; the caller owns it. */
json_t *client_follow(struct client *c, struct err *e);
/* Open, ask, close. */
json_t *cli_ask(json_t *request, int timeout_ms, struct err *e);

/* The members of answers. */
const char *cli_text(const json_t *o, const char *key, const char *otherwise);
long long cli_number(const json_t *o, const char *key, long long otherwise);

/* Milliseconds from "200", "200ms", "1.5s"; -1 when it is neither. */
long long cli_duration_ms(const char *text);

#endif
