// SPDX-License-Identifier: Apache-2.0
/* What an operator may tell a witness, whether it serves or not: one table of
 * verbs; see witness_service.h. */
#include "heartbeat/witness_service.h"
#include "common/text.h"

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void say(struct buf *out, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static void say(struct buf *out, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    buf_put(out, text, n < (int)sizeof text ? (size_t)n : sizeof text - 1);
}

static void say_json(struct buf *out, json_t *j)
{
    char *text = json_dumps(j, JSON_INDENT(2));

    if (!text)
        abort();
    buf_put(out, text, strlen(text));
    buf_put(out, "\n", 1);
    free(text);
    json_decref(j);
}

static bool wants_json(int argc, char **argv)
{
    return argc > 1 && !strcmp(argv[argc - 1], "--json");
}

/* --- Looking ------------------------------------------------------------- */

static void key_say(const struct witness_service *s, struct buf *out)
{
    char pin[PIN_TEXT];

    pin_format(link_key_pin(s->key), pin);
    say(out, "%s\n", pin);
}

static int verb_key(struct witness_service *s, int argc, char **argv,
                    struct buf *out, struct err *e)
{
    (void)argc, (void)argv, (void)e;
    key_say(s, out);
    return 0;
}

static int verb_status(struct witness_service *s, int argc, char **argv,
                       struct buf *out, struct err *e)
{
    (void)e;
    if (wants_json(argc, argv)) {
        char pin[PIN_TEXT];
        pin_format(link_key_pin(s->key), pin);
        say_json(out, json_pack("{sb ss sI sI sI sb ss}", "sealed", s->w.sealed,
                                "why", s->w.why, "vms", (json_int_t)s->w.count,
                                "hosts", (json_int_t)s->hosts.count, "sessions",
                                (json_int_t)s->client_count, "serves",
                                s->loop != NULL, "pin", pin));
        return 0;
    }
    if (s->w.sealed)
        say(out, "sealed, it grants nothing: %s\n", s->w.why);
    else
        say(out, "%s\n", s->loop ? "serves" : "does not run");
    say(out, "%zu VMs, %zu hosts, %u sessions\nkey ", s->w.count,
        s->hosts.count, s->client_count);
    key_say(s, out);
    return 0;
}

/* A host's name, or the beginning of its pin. */
static void host_text(const struct witness_service *s,
                      const uint8_t pin[WITNESS_PIN], char out[64])
{
    const struct link_peer *host = peers_by_pin(&s->hosts, pin);
    char text[PIN_TEXT];

    pin_format(pin, text);
    snprintf(out, 64, "%.63s", host ? host->name : text);
    if (!host)
        out[12] = '\0';
}

static void record_say(const struct witness_service *s,
                       const struct witness_record *r, json_t *list,
                       struct buf *out)
{
    char vm[37], host[2][64];
    const char *holder = r->holder < 2 ? host[r->holder] : "nobody";

    uuid_format(r->vm, vm);
    host_text(s, r->member[0], host[0]);
    host_text(s, r->member[1], host[1]);
    if (list)
        json_array_append_new(
            list, json_pack("{ss sI ss sb s[ss]}", "vm", vm, "generation",
                            (json_int_t)r->generation, "holder", holder,
                            "running", r->running, "hosts", host[0], host[1]));
    else
        say(out, "%s  %10llu  %-12s %-8s %s, %s\n", vm,
            (unsigned long long)r->generation, holder,
            r->holder > 1 ? "-"
            : r->running  ? "yes"
                          : "not yet",
            host[0], host[1]);
}

static int verb_list(struct witness_service *s, int argc, char **argv,
                     struct buf *out, struct err *e)
{
    json_t *list = wants_json(argc, argv) ? json_array() : NULL;

    (void)e;
    if (!list)
        say(out, "%-36s  %10s  %-12s %-8s %s\n", "VM", "GENERATION", "HOLDER",
            "RUNNING", "HOSTS");
    for (size_t i = 0; i < s->w.count; i++)
        record_say(s, &s->w.list[i], list, out);
    if (list)
        say_json(out, list);
    return 0;
}

/* --- Hosts --------------------------------------------------------------- */

static int hosts_save(struct witness_service *s, struct err *e)
{
    char path[300];

    snprintf(path, sizeof path, "%s/hosts", s->path);
    if (peers_save(&s->hosts, path, e))
        return -1;
    witness_server_follow(s);
    return 0;
}

static int pin_add(struct witness_service *s, const char *name, const char *pin,
                   struct err *e)
{
    struct link_peer host;

    if (peer_parse(&host, name, "any", pin, e) ||
        peers_add(&s->hosts, &host, e))
        return -1;
    return hosts_save(s, e);
}

static int verb_pin(struct witness_service *s, int argc, char **argv,
                    struct buf *out, struct err *e)
{
    const char *what = argc > 1 ? argv[1] : "";
    char pin[PIN_TEXT];

    if (!strcmp(what, "add") && argc == 4)
        return pin_add(s, argv[2], argv[3], e);
    if (!strcmp(what, "remove") && argc == 3)
        return peers_remove(&s->hosts, argv[2], e) || hosts_save(s, e) ? -1 : 0;
    if (strcmp(what, "list") || argc != 2)
        return err_kind(e, ERR_USAGE,
                        "pin list | pin add NAME PIN | pin remove NAME");
    for (size_t i = 0; i < s->hosts.count; i++) {
        pin_format(s->hosts.list[i].pin, pin);
        say(out, "%-20s %s\n", s->hosts.list[i].name, pin);
    }
    return 0;
}

/* --- The seal ------------------------------------------------------------ */

static int verb_seal(struct witness_service *s, int argc, char **argv,
                     struct buf *out, struct err *e)
{
    char why[200] = "an operator sealed it";
    size_t n = 0;

    (void)out;
    for (int i = 1; i < argc && n < sizeof why; i++)
        n += (size_t)snprintf(why + n, sizeof why - n, "%s%s", i > 1 ? " " : "",
                              argv[i]);
    for (char *p = why; *p; p++)
        *p = (char)(isprint((unsigned char)*p) ? *p : '?');
    if (witness_seal(&s->w, why, e))
        return -1;
    witness_server_follow(s);
    return 0;
}

static int verb_unseal(struct witness_service *s, int argc, char **argv,
                       struct buf *out, struct err *e)
{
    (void)argc, (void)argv;
    if (witness_unseal(&s->w, e))
        return -1;
    witness_server_follow(s);
    say(out, "it grants again, with what it remembers of %zu VMs\n",
        s->w.count);
    return 0;
}

static int digit(char c)
{
    return isdigit((unsigned char)c) ? c - '0' : tolower(c) - 'a' + 10;
}

static int uuid_read(const char *text, uint8_t out[16], struct err *e)
{
    size_t n = 0;

    for (const char *p = text; *p; p++) {
        if (*p == '-')
            continue;
        if (!isxdigit((unsigned char)*p) || n == 32)
            return err_kind(e, ERR_USAGE, "%.64s is no uuid", text);
        out[n / 2] = (uint8_t)(n % 2 ? out[n / 2] << 4 | digit(*p) : digit(*p));
        n++;
    }
    return n == 32 ? 0 : err_kind(e, ERR_USAGE, "%.64s is no uuid", text);
}

static int verb_forget(struct witness_service *s, int argc, char **argv,
                       struct buf *out, struct err *e)
{
    uint8_t vm[16];

    (void)out;
    if (argc != 2)
        return err_kind(e, ERR_USAGE, "forget UUID");
    if (uuid_read(argv[1], vm, e))
        return -1;
    return witness_forget(&s->w, vm, e);
}

/* --- The table ----------------------------------------------------------- */

static const struct {
    const char *name;
    int max; /* words */
    int (*run)(struct witness_service *s, int argc, char **argv,
               struct buf *out, struct err *e);
} verbs[] = {
    {"key", 1, verb_key},       {"status", 2, verb_status},
    {"list", 2, verb_list},     {"pin", 4, verb_pin},
    {"seal", 40, verb_seal},    {"unseal", 1, verb_unseal},
    {"forget", 2, verb_forget},
};
#define VERBS (sizeof verbs / sizeof *verbs)

bool witness_verb_known(const char *name)
{
    for (size_t i = 0; i < VERBS; i++) {
        if (!strcmp(verbs[i].name, name))
            return true;
    }
    return false;
}

int witness_verb(struct witness_service *s, int argc, char **argv,
                 struct buf *out, struct err *e)
{
    for (size_t i = 0; i < VERBS; i++) {
        if (argc < 1 || strcmp(verbs[i].name, argv[0]))
            continue;
        if (argc > verbs[i].max)
            return err_kind(e, ERR_USAGE, "too many words for %s", argv[0]);
        return verbs[i].run(s, argc, argv, out, e);
    }
    return err_kind(e, ERR_USAGE, "%.40s is nothing that a witness does",
                    argc > 0 ? argv[0] : "");
}
