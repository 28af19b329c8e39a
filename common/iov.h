// SPDX-License-Identifier: Apache-2.0
/* What sendmsg() has left over. Pure. */
#ifndef COMMON_IOV_H
#define COMMON_IOV_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* The first n bytes that m names were sent: it names the rest. False: there is
 * none. The iovecs change. */
static inline bool iov_sent(struct msghdr *m, size_t n)
{
    while (m->msg_iovlen > 0 && n >= m->msg_iov->iov_len) {
        n -= m->msg_iov->iov_len;
        m->msg_iov++;
        m->msg_iovlen--;
    }
    if (!m->msg_iovlen)
        return false;
    m->msg_iov->iov_base = (char *)m->msg_iov->iov_base + n;
    m->msg_iov->iov_len -= n;
    return true;
}

#endif
