// SPDX-License-Identifier: Apache-2.0
/* NBD's client for tests; see nbd_client.h. */
#include "tests/lib/nbd_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <cmocka.h>

static bool send_bytes(int fd, const void *p, size_t len)
{
    const char *from = p;

    while (len > 0) {
        ssize_t r = send(fd, from, len, MSG_NOSIGNAL);
        if (r <= 0)
            return false;
        from += r;
        len -= (size_t)r;
    }
    return true;
}

bool client_data(int fd, void *p, size_t len)
{
    return !len || recv(fd, p, len, MSG_WAITALL) == (ssize_t)len;
}

bool client_send(int fd, const struct nbd_header *h, const void *data)
{
    uint8_t head[NBD_REQUEST_BYTES];

    nbd_request_put(head, h);
    return send_bytes(fd, head, sizeof head) &&
           (h->command != NBD_WRITE || send_bytes(fd, data, h->length));
}

bool client_answer(int fd, uint64_t *handle, int *error)
{
    uint8_t p[NBD_REPLY_BYTES];

    if (!client_data(fd, p, sizeof p))
        return false;
    assert_true(nbd_reply_get(p, handle, error));
    return true;
}

int client_do(int fd, uint16_t command, uint16_t flags, uint64_t offset,
              uint32_t length, void *data)
{
    static uint64_t handle;
    struct nbd_header h = {flags, command, ++handle, offset, length};
    uint64_t answered;
    int error;

    assert_true(client_send(fd, &h, data));
    assert_true(client_answer(fd, &answered, &error));
    assert_int_equal(answered, h.handle);
    if (command == NBD_READ && !error)
        assert_true(client_data(fd, data, length));
    return error;
}
