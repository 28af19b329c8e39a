// SPDX-License-Identifier: Apache-2.0
/* The peers file; see peers.h. */
#include "link/peers.h"
#include "link/key_priv.h"
#include "link/wire.h"
#include "common/cleanup.h"
#include "common/file.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define PEERS_FILE_MAX (1u << 20)
#define SPACE          " \t\r"

void peers_free(struct link_peers *p)
{
    free(p->list);
    buf_free(&p->comments);
    memset(p, 0, sizeof *p);
}

const struct link_peer *peers_by_name(const struct link_peers *p,
                                      const char *name)
{
    for (size_t i = 0; i < p->count; i++)
        if (!strcmp(p->list[i].name, name))
            return &p->list[i];
    return NULL;
}

const struct link_peer *peers_by_pin(const struct link_peers *p,
                                     const uint8_t pin[PIN_BYTES])
{
    for (size_t i = 0; i < p->count; i++)
        if (pin_equal(p->list[i].pin, pin))
            return &p->list[i];
    return NULL;
}

int peers_add(struct link_peers *p, const struct link_peer *peer, struct err *e)
{
    const struct link_peer *same = peers_by_pin(p, peer->pin);

    if (peers_by_name(p, peer->name)) {
        err_kind(e, ERR_REFUSED, "there is a peer named %s already",
                 peer->name);
        return err_hint(e, "understudy peer remove %s", peer->name);
    }
    if (same)
        return err_kind(e, ERR_REFUSED, "the peer %s has this pin already",
                        same->name);
    if (p->count >= PEERS_MAX)
        return err_kind(e, ERR_REFUSED, "there are %d peers already",
                        PEERS_MAX);
    p->list = realloc(p->list, (p->count + 1) * sizeof *p->list);
    if (!p->list)
        abort();
    p->list[p->count++] = *peer;
    return 0;
}

int peers_remove(struct link_peers *p, const char *name, struct err *e)
{
    const struct link_peer *peer = peers_by_name(p, name);

    if (!peer)
        return err_kind(e, ERR_GONE, "there is no peer named %s", name);
    size_t i = (size_t)(peer - p->list);
    memmove(&p->list[i], &p->list[i + 1], (p->count - i - 1) * sizeof *p->list);
    p->count--;
    return 0;
}

/* --- The three fields ----------------------------------------------------- */

static int name_parse(struct link_peer *peer, const char *name, struct err *e)
{
    size_t n = strlen(name);
    bool ok = n > 0 && n < sizeof peer->name && isalnum((uint8_t)name[0]);

    for (size_t i = 0; ok && i < n; i++)
        ok = isalnum((uint8_t)name[i]) || strchr("._-", name[i]);
    if (!ok)
        return err_kind(e, ERR_USAGE,
                        "\"%.80s\" can't be a peer's name: 1 to 63 letters, "
                        "digits, dots, dashes and underscores, the first a "
                        "letter or digit",
                        name);
    memcpy(peer->name, name, n + 1);
    return 0;
}

static int port_parse(uint16_t *port, const char *text, struct err *e)
{
    unsigned value = 0;
    size_t n = strlen(text);

    for (size_t i = 0; i < n && i < 6 && isdigit((uint8_t)text[i]); i++)
        value = value * 10 + (unsigned)(text[i] - '0');
    if (n == 0 || n > 5 || strspn(text, "0123456789") != n || value == 0 ||
        value > 65535)
        return err_kind(e, ERR_USAGE, "\"%.20s\" is not a port (1 to 65535)",
                        text);
    *port = (uint16_t)value;
    return 0;
}

static bool address_chars(const char *p, size_t n, bool v6)
{
    for (size_t i = 0; i < n; i++) {
        bool ok = v6 ? isxdigit((uint8_t)p[i]) || strchr(":.", p[i])
                     : isalnum((uint8_t)p[i]) || strchr(".-_", p[i]);
        /* fe80::1%eth0: an interface name may follow */
        if (v6 && p[i] == '%' && i > 0 && i + 1 < n)
            return true;
        if (!p[i] || !ok)
            return false;
    }
    return n > 0;
}

int address_parse(struct link_address *a, const char *text, struct err *e)
{
    struct link_address out = {.port = WIRE_PORT};
    bool v6 = text[0] == '[';
    const char *from = v6 ? text + 1 : text;
    const char *end = strchr(from, v6 ? ']' : ':');
    const char *rest = end ? end + v6 : "";
    size_t n = end ? (size_t)(end - from) : strlen(from);

    if (!v6 && strchr(text, ':') != strrchr(text, ':')) {
        err_kind(e, ERR_USAGE, "\"%.80s\" has more than one colon", text);
        return err_hint(e, "write an IPv6 address in brackets: [%.80s]", text);
    }
    if ((v6 && !end) || n >= sizeof out.host || !address_chars(from, n, v6) ||
        (*rest && *rest != ':'))
        return err_kind(e, ERR_USAGE,
                        "\"%.80s\" is not an address: NAME, 10.0.0.1 or "
                        "[fd00::1], then perhaps :PORT",
                        text);
    if (*rest == ':' && port_parse(&out.port, rest + 1, e))
        return -1;
    memcpy(out.host, from, n);
    *a = out;
    return 0;
}

bool address_equal(const struct link_address *a, const struct link_address *b)
{
    return a->port == b->port && !strcmp(a->host, b->host);
}

int peer_parse(struct link_peer *peer, const char *name, const char *address,
               const char *pin, struct err *e)
{
    struct link_peer out = {0};

    if (name_parse(&out, name, e) || address_parse(&out.at, address, e) ||
        pin_parse(pin, out.pin, e))
        return -1;
    *peer = out;
    return 0;
}

void address_format(const struct link_address *a, char out[ADDRESS_TEXT])
{
    bool v6 = strchr(a->host, ':') != NULL;

    snprintf(out, ADDRESS_TEXT, "%s%s%s:%u", v6 ? "[" : "", a->host,
             v6 ? "]" : "", a->port);
}

/* --- Further paths ----------------------------------------------------------
 */

int peer_path_add(struct link_peer *peer, const struct link_address *a,
                  struct err *e)
{
    char text[ADDRESS_TEXT];
    bool known = address_equal(&peer->at, a);

    for (unsigned i = 0; i < peer->more_count; i++)
        known |= address_equal(&peer->more[i], a);
    address_format(a, text);
    if (known)
        return err_kind(e, ERR_REFUSED, "%s is a path to %s already", text,
                        peer->name);
    if (peer->more_count == PEER_MORE_MAX)
        return err_kind(e, ERR_REFUSED, "%s has %d further paths already",
                        peer->name, PEER_MORE_MAX);
    peer->more[peer->more_count++] = *a;
    return 0;
}

int peer_path_remove(struct link_peer *peer, const struct link_address *a,
                     struct err *e)
{
    char text[ADDRESS_TEXT];

    address_format(a, text);
    if (address_equal(&peer->at, a)) {
        err_kind(e, ERR_REFUSED, "%s is where %s is replicated to or from",
                 text, peer->name);
        return err_hint(e, "understudy peer remove %s, then add it again",
                        peer->name);
    }
    for (unsigned i = 0; i < peer->more_count; i++) {
        if (!address_equal(&peer->more[i], a))
            continue;
        memmove(&peer->more[i], &peer->more[i + 1],
                (peer->more_count - i - 1) * sizeof *peer->more);
        peer->more_count--;
        return 0;
    }
    return err_kind(e, ERR_GONE, "%s is no path to %s", text, peer->name);
}

/* --- The file ------------------------------------------------------------- */

static int line_load(struct link_peers *p, char *line, struct err *e)
{
    char *save = NULL, *field[3 + PEER_MORE_MAX + 1] = {NULL};
    struct link_address path;
    struct link_peer peer;
    size_t n = 0;

    line += strspn(line, SPACE);
    if (*line == '#') {
        buf_put(&p->comments, line, strlen(line));
        buf_u8(&p->comments, '\n');
    }
    if (*line == '#' || !*line)
        return 0;
    for (char *t = strtok_r(line, SPACE, &save); t && n < 3 + PEER_MORE_MAX + 1;
         t = strtok_r(NULL, SPACE, &save))
        field[n++] = t;
    if (n < 3)
        return err_kind(e, ERR_USAGE,
                        "a line has three fields, and perhaps further "
                        "addresses: NAME ADDRESS[:PORT] PIN");
    if (peer_parse(&peer, field[0], field[1], field[2], e))
        return -1;
    for (size_t i = 3; i < n; i++) {
        if (address_parse(&path, field[i], e) || peer_path_add(&peer, &path, e))
            return -1;
    }
    return peers_add(p, &peer, e);
}

static int text_load(struct link_peers *p, char *text, const char *path,
                     struct err *e)
{
    unsigned number = 1;

    for (char *line = text, *next; line; line = next, number++) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        if (line_load(p, line, e))
            return err_add(e, "%s:%u", path, number);
    }
    return 0;
}

int peers_load(struct link_peers *p, const char *path, struct err *e)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct link_peers fresh = {0};
    struct buf text = {0};
    int rc = 0;

    if (fd < 0 && errno != ENOENT)
        return err_sys(e, "open %s", path);
    if (fd >= 0)
        rc = file_read(fd, path, PEERS_FILE_MAX, &text, e);
    if (!rc && text.len && memchr(text.data, 0, text.len))
        rc = err_set(e, "%s is not a text file", path);
    buf_u8(&text, 0);
    if (!rc)
        rc = text_load(&fresh, (char *)text.data, path, e);
    buf_free(&text);
    if (rc) {
        peers_free(&fresh);
        return rc;
    }
    peers_free(p);
    *p = fresh;
    return 0;
}

static void line_save(struct buf *text, const struct link_peer *peer)
{
    char address[ADDRESS_TEXT], pin[PIN_TEXT], line[512];

    address_format(&peer->at, address);
    pin_format(peer->pin, pin);
    int n = snprintf(line, sizeof line, "%s %s %s", peer->name, address, pin);
    buf_put(text, line, (size_t)n);
    for (unsigned i = 0; i < peer->more_count; i++) {
        address_format(&peer->more[i], address);
        buf_u8(text, ' ');
        buf_put(text, address, strlen(address));
    }
    buf_u8(text, '\n');
}

int peers_save(const struct link_peers *p, const char *path, struct err *e)
{
    struct buf text = {0};

    buf_put(&text, p->comments.data, p->comments.len);
    for (size_t i = 0; i < p->count; i++)
        line_save(&text, &p->list[i]);
    int rc = file_replace(path, text.data, text.len, true, e);
    buf_free(&text);
    return rc;
}
