// SPDX-License-Identifier: Apache-2.0
/* What the daemon says of disks, as text for people; see format.h. */
#include <string.h>

#include "cli/cli.h"
#include "cli/format.h"

static int widest(const json_t *list, const char *key, int least)
{
    size_t i;
    json_t *o;

    json_array_foreach(list, i, o)
    {
        int n = (int)strlen(cli_text(o, key, "-"));
        if (n > least)
            least = n;
    }
    return least;
}

/* "in sync", "syncing 42%" */
static void state_text(char out[32], const json_t *o)
{
    const char *state = cli_text(o, "state", "?");
    long long copied = cli_number(o, "copied_bytes", -1);
    long long bytes = cli_number(o, "bytes", 0);

    if (copied < 0 || bytes <= 0)
        snprintf(out, 32, "%.31s", state);
    else
        snprintf(out, 32, "%.20s %d%%", state,
                 copied >= bytes
                     ? 100
                     : (int)((double)copied * 100. / (double)bytes));
}

bool format_disk_ill(const json_t *o)
{
    const char *state = cli_text(o, "state", "");

    return !strcmp(state, "no server") || !strcmp(state, "lost");
}

void format_disks(FILE *f, const json_t *list)
{
    int vm = widest(list, "vm", 12), disk = widest(list, "disk", 5);
    size_t i;
    json_t *o;

    fprintf(f, "%-*s %-*s %8s %-7s %-12s %8s  %s\n", vm, "VM", disk, "Disk",
            "Size", "Role", "State", "Backlog", "Image");
    json_array_foreach(list, i, o)
    {
        char size[24], backlog[24] = "-", state[32];
        format_bytes(size, cli_number(o, "bytes", 0));
        if (cli_number(o, "backlog_bytes", -1) >= 0)
            format_bytes(backlog, cli_number(o, "backlog_bytes", 0));
        state_text(state, o);
        fprintf(f, "%-*s %-*s %8s %-7s %-12s %8s  %s\n", vm,
                cli_text(o, "vm", "-"), disk, cli_text(o, "disk", "-"), size,
                cli_text(o, "role", "?"), state, backlog,
                cli_text(o, "image", "?"));
    }
}
