// SPDX-License-Identifier: Apache-2.0
/* main() of understudy-witness: options, the directory, and whether to serve it
 * or to speak with the process that does; see understudy-witness(8). */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "heartbeat/witness_service.h"

static const char usage[] =
    "usage: understudy-witness [-d DIR] [-l ADDRESS] [-p PORT] VERB\n"
    "  init               make DIR, a key and an empty memory\n"
    "  run                serve\n"
    "  pin add NAME PIN   let a host ask (its `understudy key show`)\n"
    "  pin remove NAME, pin list\n"
    "  key                this witness's pin\n"
    "  status [--json], list [--json]\n"
    "  seal [WHY], unseal, forget UUID\n"
    "  -d DIR, default /var/lib/understudy-witness; -p PORT, default 7789\n"
    "  -v, --verbose; -V, --version; -h, --help\n";

/* --- main ---------------------------------------------------------------- */

struct options {
    const char *dir, *address;
    uint16_t port;
};

static int say_error(const struct err *e)
{
    fprintf(stderr, "understudy-witness: %s\n", e->text);
    if (e->hint[0])
        fprintf(stderr, "what to do: %s\n", e->hint);
    return e->kind == ERR_USAGE ? 2 : 1;
}

static void init_say(const struct witness_service *s)
{
    char pin[PIN_TEXT];

    pin_format(link_key_pin(s->key), pin);
    printf("a new witness, with no memory of any VM, in %s. Next:\n"
           "  here, for each host:   understudy-witness pin add NAME PIN\n"
           "  (PIN: what `understudy key show` prints there)\n"
           "  then, on each of them: understudy arbiter set "
           "\"witness:HOST:%d pin=%s\"\n",
           s->path, WIRE_WITNESS_PORT, pin);
}

/* Without a process that serves we are the one that may. */
static int verb_here(struct witness_service *s, const struct options *o,
                     int argc, char **argv, struct err *e)
{
    struct buf out = {0};
    bool there;
    int rc = witness_control_ask(o->dir, argc, argv, &there, &out, e);

    if (!there) {
        err_clear(e);
        rc = witness_service_open(s, o->dir, e) ||
             witness_verb(s, argc, argv, &out, e);
        witness_service_close(s);
    }
    if (!rc)
        fwrite(out.data, 1, out.len, stdout);
    buf_free(&out);
    return rc;
}

static int verb_run(const struct options *o, int argc, char **argv)
{
    struct witness_service s = {.control = -1, .dir = {.dir = -1, .fd = -1}};
    struct err e = ERR_INIT;
    int rc;

    if (!strcmp(argv[0], "init") && argc == 1) {
        rc = witness_service_init(&s, o->dir, &e);
        if (!rc)
            init_say(&s);
        witness_service_close(&s);
    } else if (!strcmp(argv[0], "run") && argc == 1) {
        rc = witness_service_open(&s, o->dir, &e) ||
             witness_service_run(&s, o->address, o->port, &e);
        witness_service_close(&s);
    } else if (witness_verb_known(argv[0])) {
        rc = verb_here(&s, o, argc, argv, &e);
    } else {
        fputs(usage, stderr);
        return 2;
    }
    return rc ? say_error(&e) : 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"directory", required_argument, NULL, 'd'},
        {"listen", required_argument, NULL, 'l'},
        {"port", required_argument, NULL, 'p'},
        {"verbose", no_argument, NULL, 'v'},
        {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct options o = {"/var/lib/understudy-witness", NULL, WIRE_WITNESS_PORT};
    enum log_level level = LOG_INFO;
    int c;

    /* "+": options end where the verb begins. */
    while ((c = getopt_long(argc, argv, "+d:l:p:vVh", options, NULL)) != -1) {
        if (c == 'd') {
            o.dir = optarg;
        } else if (c == 'l') {
            o.address = optarg;
        } else if (c == 'p') {
            o.port = (uint16_t)strtoul(optarg, NULL, 10);
        } else if (c == 'v') {
            level = LOG_DEBUG;
        } else if (c == 'V') {
            printf("understudy-witness %s\n", UNDERSTUDY_VERSION);
            return 0;
        } else {
            fputs(usage, c == 'h' ? stdout : stderr);
            return c == 'h' ? 0 : 2;
        }
    }
    log_setup("understudy-witness", level);
    if (optind == argc || !o.port) {
        fputs(usage, stderr);
        return 2;
    }
    return verb_run(&o, argc - optind, argv + optind);
}
