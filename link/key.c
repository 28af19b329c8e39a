// SPDX-License-Identifier: Apache-2.0
/* The host's key and certificate; see key.h. Called once at the start of a
 * daemon or agent, before there are sessions. */
#include "link/key.h"
#include "link/key_priv.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/x509.h>

#define KEY_FILE_MAX 65536

int ssl_err(struct err *e, const char *what)
{
    unsigned long code = ERR_peek_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;

    ERR_clear_error();
    return err_set(e, "%s: %s", what,
                   reason ? reason : "unknown error of OpenSSL");
}

void pin_format(const uint8_t pin[PIN_BYTES], char out[PIN_TEXT])
{
    hex_format(pin, PIN_BYTES, out);
}

int pin_parse(const char *text, uint8_t pin[PIN_BYTES], struct err *e)
{
    uint8_t out[PIN_BYTES];

    if (strnlen(text, PIN_TEXT) != PIN_TEXT - 1)
        return err_kind(e, ERR_USAGE, "a pin has %d hex digits, not %zu",
                        PIN_TEXT - 1, strlen(text));
    if (!hex_parse(text, out, sizeof out))
        return err_kind(e, ERR_USAGE, "a pin has hex digits only");
    memcpy(pin, out, sizeof out);
    return 0;
}

bool pin_equal(const uint8_t a[PIN_BYTES], const uint8_t b[PIN_BYTES])
{
    return CRYPTO_memcmp(a, b, PIN_BYTES) == 0;
}

int pin_of_certificate(X509 *cert, uint8_t pin[PIN_BYTES])
{
    unsigned char *der = NULL;
    int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);

    if (n <= 0)
        return -1;
    SHA256(der, (size_t)n, pin);
    OPENSSL_free(der);
    return 0;
}

/* --- Files ---------------------------------------------------------------- */

static int key_check_file(int fd, const char *path, struct err *e)
{
    struct stat st;

    if (fstat(fd, &st))
        return err_sys(e, "stat %s", path);
    if (!S_ISREG(st.st_mode))
        return err_kind(e, ERR_REFUSED, "%s is not a regular file", path);
    if (st.st_uid != geteuid()) {
        err_kind(e, ERR_REFUSED, "%s belongs to uid %u, not to us (uid %u)",
                 path, st.st_uid, geteuid());
        return err_hint(e, "chown %u %s", geteuid(), path);
    }
    if (st.st_mode & 077) {
        err_kind(e, ERR_REFUSED,
                 "%s can be read or written by others than its owner "
                 "(mode %04o)",
                 path, st.st_mode & 07777);
        return err_hint(e,
                        "chmod 600 %s; when somebody may have read it, delete "
                        "it and pair the hosts again",
                        path);
    }
    return 0;
}

/* --- The key ----------------------------------------------------------------
 */

struct paths {
    char key[4096], cert[4096];
};

static int paths_make(struct paths *p, const char *dir, struct err *e)
{
    int a = snprintf(p->key, sizeof p->key, "%s/key.pem", dir);
    int b = snprintf(p->cert, sizeof p->cert, "%s/cert.pem", dir);

    if (a < 0 || b < 0 || (size_t)a >= sizeof p->key ||
        (size_t)b >= sizeof p->cert)
        return err_set(e, "path too long: %s", dir);
    return 0;
}

static int bio_save(BIO *bio, const char *path, struct err *e)
{
    char *data = NULL;
    long n = BIO_get_mem_data(bio, &data);

    return file_replace(path, data, (size_t)n, true, e);
}

static int key_make(const char *path, EVP_PKEY **pkey, struct err *e)
{
    *pkey = EVP_EC_gen("P-256");
    BIO *bio = BIO_new(BIO_s_secmem());
    int rc = -1;

    if (!*pkey || !bio ||
        !PEM_write_bio_PKCS8PrivateKey(bio, *pkey, NULL, NULL, 0, NULL, NULL))
        ssl_err(e, "make a key");
    else
        rc = bio_save(bio, path, e);
    BIO_free(bio);
    return rc;
}

static int key_read(const char *path, EVP_PKEY **pkey, struct err *e)
{
    CLEANUP_CLOSE int fd =
        open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct buf text = {0};

    if (fd < 0)
        return err_sys(e, "open %s", path);
    if (key_check_file(fd, path, e))
        return -1;
    int rc = file_read(fd, path, KEY_FILE_MAX, &text, e);
    BIO *bio = rc ? NULL : BIO_new_mem_buf(text.data, (int)text.len);
    char no_password[] = "";
    if (bio)
        *pkey = PEM_read_bio_PrivateKey(bio, NULL, NULL, no_password);
    if (!rc && !*pkey) {
        char what[4200];
        snprintf(what, sizeof what, "%s holds no usable private key", path);
        rc = ssl_err(e, what);
    }
    if (!rc && !EVP_PKEY_is_a(*pkey, "EC"))
        rc = err_set(e, "%s is not an ECDSA key", path);
    BIO_free(bio);
    OPENSSL_cleanse(text.data, text.len);
    buf_free(&text);
    return rc;
}

/* --- The certificate ------------------------------------------------------ */

static bool cert_fill(X509 *x, EVP_PKEY *pkey)
{
    unsigned char serial[16];
    X509_NAME *name = X509_get_subject_name(x);
    BIGNUM *bn = NULL;
    bool ok = RAND_bytes(serial, sizeof serial) == 1;

    serial[0] &= 0x7f;
    ok = ok && (bn = BN_bin2bn(serial, sizeof serial, NULL)) &&
         BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(x)) &&
         X509_set_version(x, X509_VERSION_3) &&
         ASN1_TIME_set_string(X509_getm_notBefore(x), "20000101000000Z") &&
         /* RFC 5280 4.1.2.5: no well-defined expiration date */
         ASN1_TIME_set_string(X509_getm_notAfter(x), "99991231235959Z") &&
         X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                    (const unsigned char *)"understudy", -1, -1,
                                    0) &&
         X509_set_issuer_name(x, name) && X509_set_pubkey(x, pkey) &&
         X509_sign(x, pkey, EVP_sha256()) > 0;
    BN_free(bn);
    return ok;
}

static int cert_make(const char *path, EVP_PKEY *pkey, X509 **cert,
                     struct err *e)
{
    BIO *bio = BIO_new(BIO_s_mem());
    int rc = -1;

    *cert = X509_new();
    if (!bio || !*cert || !cert_fill(*cert, pkey) ||
        !PEM_write_bio_X509(bio, *cert))
        ssl_err(e, "make a certificate");
    else
        rc = bio_save(bio, path, e);
    BIO_free(bio);
    return rc;
}

static int cert_read(const char *path, X509 **cert, struct err *e)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct buf text = {0};

    if (fd < 0)
        return err_sys(e, "open %s", path);
    int rc = file_read(fd, path, KEY_FILE_MAX, &text, e);
    BIO *bio = rc ? NULL : BIO_new_mem_buf(text.data, (int)text.len);
    if (bio)
        *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    if (!rc && !*cert) {
        char what[4200];
        snprintf(what, sizeof what, "%s holds no certificate", path);
        rc = ssl_err(e, what);
        err_hint(e, "delete it: it is made again from the key");
    }
    BIO_free(bio);
    buf_free(&text);
    return rc;
}

/* --- Both ----------------------------------------------------------------- */

static int key_fill(struct link_key *k, const struct paths *p, bool make,
                    struct err *e)
{
    bool have_key = !access(p->key, F_OK);
    bool have_cert = !access(p->cert, F_OK);

    if (!have_key && have_cert) {
        err_set(e, "%s is there, but its key %s is not", p->cert, p->key);
        return err_hint(e, "put the key back, or delete the certificate to get "
                           "a new identity");
    }
    if (!have_key && !make) {
        err_kind(e, ERR_GONE, "this host has no key yet: %s is missing",
                 p->key);
        return err_hint(e, "start understudyd once: it makes one");
    }
    if (have_key ? key_read(p->key, &k->pkey, e)
                 : key_make(p->key, &k->pkey, e))
        return -1;
    if (have_cert ? cert_read(p->cert, &k->cert, e)
                  : cert_make(p->cert, k->pkey, &k->cert, e))
        return -1;
    if (X509_check_private_key(k->cert, k->pkey) != 1) {
        ERR_clear_error();
        err_set(e, "%s is not the certificate of %s", p->cert, p->key);
        return err_hint(e, "delete the certificate: it is made again");
    }
    if (pin_of_certificate(k->cert, k->pin))
        return ssl_err(e, "encode the public key");
    return 0;
}

int link_key_load(const char *dir, bool make, struct link_key **key,
                  struct err *e)
{
    struct paths p;

    *key = NULL;
    if (paths_make(&p, dir, e))
        return -1;
    if (make && mkdir(dir, 0700) && errno != EEXIST)
        return err_sys(e, "create directory %s", dir);
    struct link_key *k = calloc(1, sizeof *k);
    if (!k)
        abort();
    ERR_clear_error();
    if (key_fill(k, &p, make, e)) {
        link_key_free(k);
        return err_add(e, "this host's key");
    }
    *key = k;
    return 0;
}

void link_key_free(struct link_key *key)
{
    if (!key)
        return;
    EVP_PKEY_free(key->pkey);
    X509_free(key->cert);
    free(key);
}

const uint8_t *link_key_pin(const struct link_key *key)
{
    return key->pin;
}
