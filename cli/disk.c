// SPDX-License-Identifier: Apache-2.0
/* understudy disk: list, create, verify. An image is made by this program
 * itself; how large, a peer says. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/format.h"
#include "common/cleanup.h"
#include "common/file.h"

/* --- list ------------------------------------------------------------------
 */

static int list_print(const json_t *list, bool as_json)
{
    int status = EXIT_FINE;
    size_t i;
    json_t *o;

    if (as_json) {
        json_dumpf(list, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        format_disks(stdout, list);
    }
    json_array_foreach(list, i, o)
    {
        if (format_disk_ill(o))
            status = EXIT_WORSE;
    }
    return status;
}

static int list(int argc, char **argv)
{
    struct err e = ERR_INIT;
    bool as_json;

    if (!cli_only_json(argc, argv, &as_json) || argc - optind > 1)
        return verb_usage(&verb_disk, false);
    json_t *reply =
        cli_ask(json_pack("{ss ss*}", "op", "disk-list", "vm", argv[optind]),
                10000, &e);
    if (!reply)
        return cli_error(&e);
    int status = list_print(json_object_get(reply, "disks"), as_json);
    json_decref(reply);
    return status;
}

/* --- create ----------------------------------------------------------------
 */

static int absolute(const char *path, char out[PATH_MAX], struct err *e)
{
    char here[PATH_MAX] = "";

    if (path[0] != '/' && !getcwd(here, sizeof here))
        return err_sys(e, "the current directory");
    int n = snprintf(out, PATH_MAX, "%s%s%s", here, path[0] != '/' ? "/" : "",
                     path);
    return n < 0 || n >= PATH_MAX
               ? err_kind(e, ERR_USAGE, "the path is too long")
               : 0;
}

/* What is there is left as it is. */
static int exists(const char *path, const char *peer, long long bytes,
                  struct err *e)
{
    struct stat st;

    err_kind(e, ERR_REFUSED, "%s is there already", path);
    if (stat(path, &st))
        return err_hint(e, "name a file that is not there");
    if (S_ISBLK(st.st_mode))
        return err_hint(e,
                        "nothing is to be made of a device; it has to have "
                        "%lld bytes",
                        bytes);
    if (S_ISREG(st.st_mode) && st.st_size == bytes)
        return err_hint(e,
                        "it has the size of %s's: leave it as it is, it is "
                        "overwritten when the VM is protected",
                        peer);
    return err_hint(e,
                    "%s's has %lld bytes: move it away, or name another "
                    "file",
                    peer, bytes);
}

/* All of it a hole; on the disk when this returns. */
static int image_make(const char *path, const char *peer, long long bytes,
                      struct err *e)
{
    CLEANUP_CLOSE int fd =
        open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0 && errno == EEXIST)
        return exists(path, peer, bytes, e);
    if (fd < 0) {
        bool missing = errno == ENOENT;
        err_sys(e, "make %s", path);
        return missing ? err_hint(e, "make its directory before") : -1;
    }
    if (!ftruncate(fd, (off_t)bytes) && !fsync(fd))
        return file_sync_dir(path, e);
    err_sys(e, "give %s %lld bytes", path, bytes);
    unlink(path);
    return -1;
}

/* It grows to what the VM has written. */
static void room_tell(const char *path, long long bytes)
{
    struct statvfs fs;
    char a[24], b[24];

    if (statvfs(path, &fs))
        return;
    double room = (double)fs.f_bavail * (double)fs.f_frsize;
    if (room >= (double)bytes)
        return;
    format_bytes(a, (long long)room);
    format_bytes(b, bytes);
    fprintf(stderr,
            "understudy: warning: %s are free there, and the image may need "
            "%s\n",
            a, b);
}

static int create_run(const char *file, const char *peer, const char *like,
                      struct err *e)
{
    char path[PATH_MAX], theirs[PATH_MAX], size[24];

    if (absolute(file, path, e) || absolute(like ? like : file, theirs, e))
        return -1;
    json_t *reply = cli_ask(json_pack("{ss ss ss}", "op", "disk-size", "peer",
                                      peer, "image", theirs),
                            10000, e);
    if (!reply)
        return -1;
    long long bytes = cli_number(reply, "bytes", 0);
    json_decref(reply);
    if (image_make(path, peer, bytes, e))
        return -1;
    room_tell(path, bytes);
    format_bytes(size, bytes);
    printf("%s is made, %s, as %s on %s\n", path, size, theirs, peer);
    return 0;
}

static int create(int argc, char **argv)
{
    static const struct option options[] = {
        {"like", required_argument, NULL, 'l'}, {NULL, 0, NULL, 0}};
    struct err e = ERR_INIT;
    const char *like = NULL;
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c != 'l')
            return verb_usage(&verb_disk, false);
        like = optarg;
    }
    if (argc - optind != 2)
        return verb_usage(&verb_disk, false);
    return create_run(argv[optind], argv[optind + 1], like, &e) ? cli_error(&e)
                                                                : EXIT_FINE;
}

/* --- verify ----------------------------------------------------------------
 */

#define LOOK_US 300000

struct show {
    bool terminal;
    time_t last;
};

static void show(struct show *s, const json_t *verify)
{
    time_t now = time(NULL);

    if (s->terminal) {
        fputs("\r\033[K", stderr);
        format_verify_progress(stderr, verify);
        fflush(stderr);
    } else if (now - s->last >= 5) {
        format_verify_progress(stderr, verify);
        fputc('\n', stderr);
        s->last = now;
    }
}

/* Until it is over; the daemon's last answer, or NULL. */
static json_t *verify_wait(const char *vm, struct err *e)
{
    struct show s = {.terminal = isatty(STDERR_FILENO), .last = time(NULL)};
    bool begin = true;

    for (;;) {
        json_t *reply = cli_ask(json_pack("{ss ss sb}", "op", "disk-verify",
                                          "vm", vm, "begin", begin),
                                10000, e);
        const json_t *verify = json_object_get(reply, "verify");
        if (!reply || strcmp(cli_text(verify, "state", ""), "running")) {
            if (s.terminal && !begin)
                fputs("\r\033[K", stderr);
            return reply;
        }
        show(&s, verify);
        json_decref(reply);
        begin = false;
        usleep(LOOK_US);
    }
}

static int verify_end(const char *vm, const json_t *reply, bool as_json)
{
    const json_t *verify = json_object_get(reply, "verify");
    bool differ = cli_number(verify, "differing_bytes", 0) > 0;
    const char *peer = cli_text(reply, "peer", "PEER");
    struct err e = ERR_INIT;

    if (strcmp(cli_text(verify, "state", ""), "done") != 0) {
        err_set(&e, "the disks of %s were not compared to the end: %s", vm,
                cli_text(verify, "error", "its agent was started again"));
        err_hint(&e, "understudy status %s, and again when it is Protected",
                 vm);
        return cli_error(&e);
    }
    if (as_json) {
        json_dumpf(verify, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        format_verify(stdout, vm, verify);
    }
    if (differ)
        fprintf(stderr,
                "  what to do: `understudy unprotect %s`, then `understudy "
                "protect %s %s` copies what differs\n",
                vm, vm, peer);
    return differ ? EXIT_WORSE : EXIT_FINE;
}

static int verify(int argc, char **argv)
{
    struct err e = ERR_INIT;
    bool as_json;

    if (!cli_only_json(argc, argv, &as_json) || argc - optind != 1)
        return verb_usage(&verb_disk, false);
    json_t *reply = verify_wait(argv[optind], &e);
    if (!reply)
        return cli_error(&e);
    int status = verify_end(argv[optind], reply, as_json);
    json_decref(reply);
    return status;
}

static int run(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "list"))
        return list(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "create"))
        return create(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "verify"))
        return verify(argc - 1, argv + 1);
    return verb_usage(&verb_disk, false);
}

const struct verb verb_disk = {
    .name = "disk",
    .args = "list [VM] [--json]\n"
            "       understudy disk create FILE PEER [--like FILE]\n"
            "       understudy disk verify VM [--json]",
    .summary = "the VMs' disks: list, compare, images for a backup",
    .help =
        "`list` shows the disks that understudy-disk serves on this host, or\n"
        "those of VM: how large, what this host is for it (primary, backup,\n"
        "none), its state, what was written and is not on the other host yet.\n"
        "States: in sync; syncing; plain (not protected); read-only; held (a\n"
        "replica of the last epoch, nobody feeds it); unusable (a copy that "
        "did\nnot come to its end); lost (writes are not known: it is copied "
        "anew);\nno server. Exit status 3: one is lost or has no server.\n\n"
        "`create`, on the backup before `protect`, makes FILE, a raw image of\n"
        "the size of the disk that PEER serves under the same path, or under\n"
        "that of --like. It takes no space yet. What is there is never "
        "changed.\n\n"
        "`verify`, where VM runs and is Protected, compares its disks with "
        "the\n"
        "backup's, while it runs and epochs go on, and names every range that\n"
        "differs. Exit status 3: some do.\n",
    .run = run,
};
