// SPDX-License-Identifier: Apache-2.0
/* TLS as docs/protocol.md section 3 wants it, and its errors as sentences.
 * Called by sessions, on the loop's thread. */
#include "link/session_priv.h"
#include "link/key_priv.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if !defined(__x86_64__) && !defined(__i386__)
#include <sys/auxv.h>
#endif

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

#define AES128 "TLS_AES_128_GCM_SHA256"
#define AES256 "TLS_AES_256_GCM_SHA384"
#define CHACHA "TLS_CHACHA20_POLY1305_SHA256"

/* Certificates of the peer, in bytes: ours have some 400. */
#define CERT_LIST_MAX 8192
/* Several TLS records a system call; OpenSSL moves what is left over in this
 * buffer at each record, so more is not better. */
#define READ_AHEAD (64 << 10)

static bool processor_has_aes(void)
{
#if defined(__x86_64__) || defined(__i386__)
    return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#elif defined(__aarch64__)
    return getauxval(AT_HWCAP) & (1 << 3); /* HWCAP_AES */
#else
    return true;
#endif
}

int tls_set_ciphers(struct link_tls *tls, bool has_aes)
{
    return SSL_CTX_set_ciphersuites(tls->ctx,
                                    has_aes ? AES128 ":" CHACHA ":" AES256
                                            : CHACHA ":" AES128 ":" AES256) == 1
               ? 0
               : -1;
}

/* The peer's key is not what we want: note why, for tls_explain(). */
static int verify_refuse(struct link_session *s, const uint8_t pin[PIN_BYTES])
{
    char got[PIN_TEXT], who[400];

    pin_format(pin, got);
    session_who(s, who, sizeof who);
    if (s->server) {
        err_kind(&s->why, ERR_REFUSED, "%s presented an unknown key %s", who,
                 got);
        if (s->kind == WIRE_ARBITER)
            err_hint(&s->why,
                     "if that is a host of yours: understudy-witness pin add "
                     "NAME %s",
                     got);
        err_hint(&s->why,
                 "if that is the host you mean: understudy peer add NAME "
                 "--address ADDRESS --pin %s",
                 got);
        return 0;
    }
    char want[PIN_TEXT];
    pin_format(s->peer_pin, want);
    err_kind(&s->why, ERR_REFUSED, "%s presented the key %s, not %s", who, got,
             want);
    if (s->kind == WIRE_ARBITER)
        err_hint(&s->why, "if that is your witness: `understudy arbiter set` "
                          "with the pin that `understudy-witness key` shows "
                          "there");
    err_hint(&s->why,
             "if %s was installed anew: understudy peer remove %s, then "
             "understudy peer add root@%s",
             s->peer_name, s->peer_name, s->peer_name);
    return 0;
}

/* Replaces OpenSSL's chain checks: the key is all that counts. The handshake's
 * own signature shows that the peer has the private key. */
static int verify(X509_STORE_CTX *ctx, void *arg)
{
    SSL *ssl =
        X509_STORE_CTX_get_ex_data(ctx, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct link_session *s = SSL_get_app_data(ssl);
    X509 *cert = X509_STORE_CTX_get0_cert(ctx);
    uint8_t pin[PIN_BYTES];
    bool ok = false;

    (void)arg;
    if (!cert || pin_of_certificate(cert, pin)) {
        err_kind(&s->why, ERR_REFUSED, "the peer's certificate is unreadable");
    } else if (s->server) {
        ok = s->lookup(s->lookup_arg, pin, s->peer_name);
        s->peer_name[sizeof s->peer_name - 1] = '\0';
        if (!ok)
            s->peer_name[0] = '\0';
    } else {
        ok = pin_equal(pin, s->peer_pin);
    }
    if (!ok && !s->why.kind)
        verify_refuse(s, pin);
    if (ok)
        memcpy(s->peer_pin, pin, sizeof pin);
    /* The second becomes the alert unknown_ca. */
    X509_STORE_CTX_set_error(ctx, ok ? X509_V_OK
                                     : X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT);
    return ok;
}

static bool context_set_up(struct link_tls *tls, const struct link_key *key)
{
    SSL_CTX *ctx = tls->ctx;

    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_NO_RENEGOTIATION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE |
                                 SSL_OP_PRIORITIZE_CHACHA);
    /* An end without close_notify has to stay an error. */
    SSL_CTX_clear_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_clear_mode(ctx, SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_max_cert_list(ctx, CERT_LIST_MAX);
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_default_read_buffer_len(ctx, READ_AHEAD);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                       NULL);
    SSL_CTX_set_cert_verify_callback(ctx, verify, NULL);
    return SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1 &&
           SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) == 1 &&
           SSL_CTX_set_num_tickets(ctx, 0) == 1 &&
           SSL_CTX_set1_groups_list(ctx, "X25519:P-256") == 1 &&
           SSL_CTX_set1_sigalgs_list(ctx, "ECDSA+SHA256") == 1 &&
           tls_set_ciphers(tls, processor_has_aes()) == 0 &&
           SSL_CTX_use_certificate(ctx, key->cert) == 1 &&
           SSL_CTX_use_PrivateKey(ctx, key->pkey) == 1;
}

int link_tls_new(const struct link_key *key, struct link_tls **tls,
                 struct err *e)
{
    struct link_tls *t = calloc(1, sizeof *t);

    *tls = NULL;
    if (!t)
        abort();
    ERR_clear_error();
    t->ctx = SSL_CTX_new(TLS_method());
    if (!t->ctx || !context_set_up(t, key)) {
        ssl_err(e, "set up TLS");
        link_tls_free(t);
        return -1;
    }
    memcpy(t->pin, key->pin, PIN_BYTES);
    t->rekey_bytes = TLS_REKEY_BYTES;
    signal(SIGPIPE, SIG_IGN);
    *tls = t;
    return 0;
}

void link_tls_free(struct link_tls *tls)
{
    if (!tls)
        return;
    SSL_CTX_free(tls->ctx);
    free(tls);
}

SSL *tls_start(struct link_session *s)
{
    SSL *ssl = SSL_new(s->tls->ctx);

    if (!ssl)
        return NULL;
    if (SSL_set_fd(ssl, s->fd) != 1) {
        SSL_free(ssl);
        return NULL;
    }
    SSL_set_app_data(ssl, s);
    if (s->server)
        SSL_set_accept_state(ssl);
    else
        SSL_set_connect_state(ssl);
    return ssl;
}

/* --- Sentences --------------------------------------------------------------
 */

static void explain_not_tls(const char *who, struct err *e)
{
    err_set(e, "%s does not speak TLS as Understudy does", who);
    err_hint(e, "is it understudyd that uses this port there?");
}

static void explain_our_key(struct link_session *s, const char *who,
                            struct err *e)
{
    char pin[PIN_TEXT];

    pin_format(s->tls->pin, pin);
    err_kind(e, ERR_REFUSED, "%s does not know this host's key", who);
    if (s->kind == WIRE_ARBITER && s->server)
        err_hint(e, "there: understudy arbiter set, with pin=%s", pin);
    else if (s->kind == WIRE_ARBITER)
        err_hint(e, "there: understudy-witness pin add NAME %s", pin);
    err_hint(
        e, "on that host: understudy peer add NAME --address ADDRESS --pin %s",
        pin);
}

static void explain_protocol(struct link_session *s, const char *who,
                             unsigned long code, struct err *e)
{
    const char *reason = ERR_reason_error_string(code);

    switch (ERR_GET_REASON(code)) {
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
        explain_our_key(s, who, e);
        return;
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        err_kind(e, ERR_REFUSED, "%s presented no key", who);
        return;
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
        err_kind(e, ERR_REFUSED, "%s does not speak TLS 1.3", who);
        return;
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_UNEXPECTED_MESSAGE:
    case SSL_R_BAD_RECORD_TYPE:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
    case SSL_R_RECORD_LENGTH_MISMATCH:
        if (s->state == S_HANDSHAKE) {
            explain_not_tls(who, e);
            return;
        }
        break;
    }
    err_set(e, "TLS with %s failed: %s", who, reason ? reason : "no reason");
}

static void explain_loss(struct link_session *s, const char *who, int error,
                         struct err *e)
{
    if (s->state == S_HANDSHAKE && (error == 0 || error == ECONNRESET)) {
        err_kind(e, ERR_GONE, "%s closed the connection without an answer",
                 who);
        if (!s->server && s->kind == WIRE_ARBITER)
            err_hint(e, "is it understudy-witness that uses this port there?");
        if (!s->server && s->kind == WIRE_VM)
            err_hint(e, "no agent there is the backup of this VM");
        return;
    }
    if (error)
        err_kind(e, ERR_GONE, "the connection to %s is lost: %s", who,
                 strerror(error));
    else
        err_kind(e, ERR_GONE,
                 "the connection to %s is lost: it ended without a goodbye",
                 who);
}

void tls_explain(struct link_session *s, int r, int saved_errno, struct err *e)
{
    int what = SSL_get_error(s->ssl, r);
    unsigned long code = ERR_peek_error();
    char who[400];

    session_who(s, who, sizeof who);
    ERR_clear_error();
    if (s->why.kind)
        *e = s->why; /* verify() knew better */
    else if (what == SSL_ERROR_ZERO_RETURN)
        err_kind(e, ERR_GONE, "%s closed the session", who);
    else if (what == SSL_ERROR_SYSCALL)
        explain_loss(s, who, saved_errno, e);
    else if (ERR_GET_LIB(code) == ERR_LIB_SSL &&
             ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
        explain_loss(s, who, 0, e);
    else
        explain_protocol(s, who, code, e);
}
