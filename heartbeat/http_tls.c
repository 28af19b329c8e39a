// SPDX-License-Identifier: Apache-2.0
/* The files of a TLS client, read and looked at once; see http.h. A wrong one
 * is an error where it is named, not later when the other side is needed. */
#include "heartbeat/http.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <unistd.h>

#include "common/cleanup.h"

#define FILE_MAX (1 << 20)

static int file_read(const char *path, struct buf *out, struct err *e)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n;

    if (fd < 0)
        return err_sys(e, "open %s", path);
    do {
        buf_reserve(out, 4096);
        n = read(fd, out->data + out->len, 4096);
        if (n < 0)
            return err_sys(e, "read %s", path);
        out->len += (size_t)n;
    } while (n > 0 && out->len <= FILE_MAX);
    return n ? err_set(e, "%s is too large to be a PEM file", path) : 0;
}

/* No terminal is asked. */
static int no_password(char *out, int size, int writing, void *arg)
{
    (void)out, (void)size, (void)writing, (void)arg;
    return 0;
}

static X509 *certificate_of(const struct buf *b)
{
    BIO *bio = BIO_new_mem_buf(b->data, (int)b->len);
    X509 *cert = PEM_read_bio_X509(bio, NULL, no_password, NULL);

    BIO_free(bio);
    return cert;
}

static EVP_PKEY *key_of(const struct buf *b)
{
    BIO *bio = BIO_new_mem_buf(b->data, (int)b->len);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);

    BIO_free(bio);
    return key;
}

static int certificate_load(const char *path, struct buf *out, X509 **cert,
                            struct err *e)
{
    if (file_read(path, out, e))
        return -1;
    *cert = certificate_of(out);
    return *cert ? 0 : err_set(e, "%s is no certificate in PEM", path);
}

static int pair_load(const char *cert_path, const char *key_path,
                     struct http_tls *out, struct err *e)
{
    X509 *cert = NULL;
    EVP_PKEY *key = NULL;
    int rc = certificate_load(cert_path, &out->cert, &cert, e);

    if (!rc)
        rc = file_read(key_path, &out->key, e);
    if (!rc && !(key = key_of(&out->key)))
        rc = err_set(e, "%s is no key in PEM without a password", key_path);
    if (!rc && X509_check_private_key(cert, key) != 1)
        rc = err_set(e, "the key %s is not the one of the certificate %s",
                     key_path, cert_path);
    X509_free(cert);
    EVP_PKEY_free(key);
    return rc;
}

int http_tls_load(const char *ca, const char *cert, const char *key,
                  struct http_tls *out, struct err *e)
{
    X509 *authority = NULL;
    int rc = 0;

    *out = (struct http_tls){0};
    if (ca[0])
        rc = certificate_load(ca, &out->ca, &authority, e);
    X509_free(authority);
    if (!rc && cert[0])
        rc = pair_load(cert, key, out, e);
    ERR_clear_error();
    return rc;
}

void http_tls_free(struct http_tls *t)
{
    buf_free(&t->ca);
    buf_free(&t->cert);
    if (t->key.data)
        OPENSSL_cleanse(t->key.data, t->key.len);
    buf_free(&t->key);
}
