// SPDX-License-Identifier: Apache-2.0
/* The line of the arbiter etcd; see etcd_line.h. */
#include "heartbeat/etcd_line.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "heartbeat/arbiter.h"

#define KIND "etcd:"

static int usage(struct err *e, const char *why, const char *what)
{
    err_kind(e, ERR_USAGE, "%s: \"%.80s\"", why, what);
    return err_hint(e, "\"etcd:https://A:2379,https://B:2379,https://C:2379 "
                       "prefix=/understudy/ ca=FILE cert=FILE key=FILE\"; see "
                       "understudyd(8)");
}

/* --- Endpoints ------------------------------------------------------------ */

static bool is_loopback(const char *host)
{
    unsigned a, b, c, d;
    char end;

    return !strcmp(host, "localhost") || !strcmp(host, "[::1]") ||
           (sscanf(host, "%u.%u.%u.%u%c", &a, &b, &c, &d, &end) == 4 &&
            a == 127);
}

static bool is_host(const char *host)
{
    size_t n = strlen(host);
    bool six = host[0] == '[';

    if (n < 1 || n > 128 || (six && (n < 4 || host[n - 1] != ']')))
        return false;
    for (size_t i = six; i < n - six; i++) {
        unsigned char c = (unsigned char)host[i];
        if (six ? !isxdigit(c) && c != ':' && c != '.'
                : !isalnum(c) && c != '.' && c != '-')
            return false;
    }
    return six || isalnum((unsigned char)host[0]);
}

static bool port_get(const char *text, unsigned *out)
{
    char *end;
    unsigned long v;

    if (!isdigit((unsigned char)text[0]) || strlen(text) > 5)
        return false;
    v = strtoul(text, &end, 10);
    *out = (unsigned)v;
    return !*end && v > 0 && v < 65536;
}

/* `url` is cut into pieces. */
static bool endpoint_get(char *url, char *out, size_t size, bool *tls,
                         bool *loopback)
{
    unsigned port = ETCD_PORT;
    char *host = strstr(url, "://"), *colon;

    if (!host)
        return false;
    *host = '\0';
    host += 3;
    *tls = !strcmp(url, "https");
    if (!*tls && strcmp(url, "http") != 0)
        return false;
    colon = strchr(host[0] == '[' ? host + strcspn(host, "]") : host, ':');
    if (colon) {
        *colon = '\0';
        if (!port_get(colon + 1, &port))
            return false;
    }
    for (char *p = host; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    if (!is_host(host))
        return false;
    *loopback = is_loopback(host);
    snprintf(out, size, "%s://%s:%u", url, host, port);
    return true;
}

static bool has_endpoint(const struct etcd_line *l, const char *endpoint)
{
    for (unsigned i = 0; i < l->count; i++) {
        if (!strcmp(l->endpoint[i], endpoint))
            return true;
    }
    return false;
}

/* Which of them is what, for the rules that need the whole line. */
struct urls {
    bool loopback; /* one of them at least */
    bool bare;     /* one is http, and not on this machine */
};

static int endpoints_get(char *urls, struct etcd_line *l, struct urls *u,
                         struct err *e)
{
    char *save = NULL;

    if (!*urls || *urls == ',' || urls[strlen(urls) - 1] == ',')
        return usage(e, "no endpoint", urls);
    for (char *url = strtok_r(urls, ",", &save); url;
         url = strtok_r(NULL, ",", &save)) {
        char one[160], was[80];
        bool tls, loopback;
        snprintf(was, sizeof was, "%s", url);
        if (!endpoint_get(url, one, sizeof one, &tls, &loopback))
            return usage(e, "that is no endpoint of an etcd", was);
        if (has_endpoint(l, one))
            return usage(e, "an endpoint is there twice", was);
        if (l->count && tls != l->tls)
            return usage(e, "http and https in one line", was);
        if (l->count == ETCD_ENDPOINTS_MAX)
            return usage(e, "more than 9 endpoints", was);
        l->tls = tls;
        u->loopback |= loopback;
        u->bare |= !tls && !loopback;
        snprintf(l->endpoint[l->count++], sizeof l->endpoint[0], "%s", one);
    }
    return 0;
}

/* --- Options -------------------------------------------------------------- */

static bool cluster_get(const char *text, uint64_t *out)
{
    char *end;

    if (!isdigit((unsigned char)text[0]))
        return false;
    errno = 0;
    *out = strtoull(text, &end, strncmp(text, "0x", 2) ? 10 : 16);
    return !errno && !*end && *out;
}

static bool prefix_get(const char *text, char *out, size_t size)
{
    size_t n = strlen(text);

    if (n < 1 || n >= size || text[0] != '/' || text[n - 1] != '/')
        return false;
    for (const char *p = text; *p; p++) {
        if (!isgraph((unsigned char)*p))
            return false;
    }
    snprintf(out, size, "%s", text);
    return true;
}

static bool file_get(const char *text, char *out, size_t size)
{
    return text[0] == '/' && !out[0] &&
           (size_t)snprintf(out, size, "%s", text) < size;
}

static bool option_get(const char *word, struct etcd_line *l, bool *plain)
{
    const char *value = strchr(word, '=');
    size_t n = value ? (size_t)(value++ - word) : strlen(word);

    if (!value)
        return !strcmp(word, "plain") && !*plain && (*plain = true);
    if (n == 6 && !strncmp(word, "prefix", n))
        return !l->prefix[0] && prefix_get(value, l->prefix, sizeof l->prefix);
    if (n == 7 && !strncmp(word, "cluster", n))
        return !l->cluster && cluster_get(value, &l->cluster);
    if (n == 2 && !strncmp(word, "ca", n))
        return file_get(value, l->ca, sizeof l->ca);
    if (n == 4 && !strncmp(word, "cert", n))
        return file_get(value, l->cert, sizeof l->cert);
    if (n == 3 && !strncmp(word, "key", n))
        return file_get(value, l->key, sizeof l->key);
    return false;
}

/* --- The line ------------------------------------------------------------- */

static int rules(const struct etcd_line *l, const struct urls *u, bool plain,
                 struct err *e)
{
    if (!l->cert[0] != !l->key[0])
        return usage(e, "cert= and key= go together",
                     l->cert[0] ? l->cert : l->key);
    if (!l->tls && (l->ca[0] || l->cert[0]))
        return usage(e, "certificates are for https", l->endpoint[0]);
    if (u->bare && !plain) {
        err_kind(e, ERR_USAGE,
                 "http to another machine: who can send it a packet decides "
                 "which host runs the VM");
        return err_hint(e, "use https, or add the word plain to the line when "
                           "you accept that");
    }
    if (u->loopback && !l->cluster) {
        err_kind(e, ERR_USAGE,
                 "a loopback address is another machine on each host");
        return err_hint(e, "name addresses that both hosts reach, or add "
                           "cluster=ID with the cluster's ID");
    }
    return 0;
}

int etcd_line_parse(const char *line, struct etcd_line *out, struct err *e)
{
    char text[ARBITER_LINE_MAX], *save = NULL, *word;
    struct urls urls = {false, false};
    bool plain = false;

    memset(out, 0, sizeof *out);
    if (strncmp(line, KIND, strlen(KIND)) || strlen(line) >= sizeof text)
        return usage(e, "that is no etcd", line);
    snprintf(text, sizeof text, "%s", line + strlen(KIND));
    if (!text[0] || isspace((unsigned char)text[0]))
        return usage(e, "no endpoint", line);
    word = strtok_r(text, " \t", &save);
    if (endpoints_get(word, out, &urls, e))
        return -1;
    while ((word = strtok_r(NULL, " \t", &save))) {
        if (!option_get(word, out, &plain))
            return usage(e, "that is no option of an etcd, or is there twice",
                         word);
    }
    if (!out->prefix[0])
        strcpy(out->prefix, "/understudy/");
    return rules(out, &urls, plain, e);
}

bool etcd_line_same(const struct etcd_line *a, const struct etcd_line *b)
{
    if (strcmp(a->prefix, b->prefix) != 0)
        return false;
    if (a->cluster && b->cluster)
        return a->cluster == b->cluster;
    for (unsigned i = 0; i < a->count; i++) {
        if (!has_endpoint(b, a->endpoint[i]))
            return false;
    }
    return a->count == b->count;
}
