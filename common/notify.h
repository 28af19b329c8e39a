// SPDX-License-Identifier: Apache-2.0
/* sd_notify(3) without its library: tell systemd how a service stands
 * ("READY=1"). Nothing happens where nobody asked for it. Any thread. */
#ifndef COMMON_NOTIFY_H
#define COMMON_NOTIFY_H

void notify(const char *text);

#endif
