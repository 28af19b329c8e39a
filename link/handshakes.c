// SPDX-License-Identifier: Apache-2.0
/* Handshakes with those who connect to us: bounded in number, and strangers
 * never keep a peer away. An address is a friend's when a key that we know was
 * shown there once, in either direction. When there is no room the oldest
 * stranger goes. Loop thread only. */
#include "link/session_priv.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

void address_text(int fd, char out[INET6_ADDRSTRLEN])
{
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    char text[INET6_ADDRSTRLEN] = "";

    out[0] = '\0';
    if (getpeername(fd, (struct sockaddr *)&a, &n))
        return;
    memcpy(&v4, &a, sizeof v4);
    memcpy(&v6, &a, sizeof v6);
    if (a.ss_family == AF_INET)
        inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
    else if (a.ss_family == AF_INET6)
        inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
    snprintf(out, INET6_ADDRSTRLEN, "%s",
             strncmp(text, "::ffff:", 7) ? text : text + 7);
}

static bool is_friend(const struct link_tls *tls, const char *address)
{
    for (unsigned i = 0; address[0] && i < FRIENDS_MAX; i++) {
        if (!strcmp(tls->friends[i], address))
            return true;
    }
    return false;
}

static void friend_add(struct link_session *s)
{
    struct link_tls *tls = s->tls;
    char address[INET6_ADDRSTRLEN];

    address_text(s->fd, address);
    if (is_friend(tls, address))
        return;
    memcpy(tls->friends[tls->friend_next], address, sizeof address);
    tls->friend_next = (tls->friend_next + 1) % FRIENDS_MAX;
}

/* Who has to go for `s`; NULL: s itself. */
static struct link_session *victim(const struct link_session *s)
{
    struct link_session *v = s->tls->oldest;

    while (v && v->known_address)
        v = v->younger;
    return v || !s->known_address ? v : s->tls->oldest;
}

int handshake_begin(struct link_session *s, struct err *e)
{
    struct link_tls *tls = s->tls;
    struct link_session **p = &tls->oldest;
    struct err why = ERR_INIT;
    char address[INET6_ADDRSTRLEN];

    address_text(s->fd, address);
    s->known_address = is_friend(tls, address);
    if (tls->handshakes >= HANDSHAKES_MAX) {
        struct link_session *v = victim(s);
        if (!v)
            return err_kind(e, ERR_REFUSED,
                            "%u handshakes are under way already",
                            tls->handshakes);
        err_kind(&why, ERR_REFUSED,
                 "%s had not finished its handshake when %u others came",
                 v->where, HANDSHAKES_MAX);
        handshake_over(v, false);
        session_end(v, &why);
    }
    while (*p)
        p = &(*p)->younger;
    *p = s;
    s->counted = true;
    tls->handshakes++;
    return 0;
}

void handshake_over(struct link_session *s, bool proven)
{
    if (proven)
        friend_add(s);
    if (!s->counted)
        return;
    for (struct link_session **p = &s->tls->oldest; *p; p = &(*p)->younger) {
        if (*p == s) {
            *p = s->younger;
            break;
        }
    }
    s->younger = NULL;
    s->counted = false;
    s->tls->handshakes--;
}
