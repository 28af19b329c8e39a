// SPDX-License-Identifier: Apache-2.0
/* Two real daemons with their agents on loopback over the fake hypervisor,
 * driven by the real CLI: what an operator types and what comes of it. Every
 * process is a descendant of the test (a subreaper) and is killed by its id at
 * the end of each test. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "hypervisor/fake.h"

#define UUID "77000000-0000-0000-0000-000000000001"

struct host {
    const char *name;
    char root[128], hv[160];
    int port;
    pid_t daemon;
};

static char build[512], top[64], output[65536];
static struct host alder = {.name = "alder"}, birch = {.name = "birch"};
static struct fake_guest *guest;
static uint32_t guest_id;

/* --- Processes ---------------------------------------------------------- */

static void environment(const struct host *h)
{
    char hv[200];

    snprintf(hv, sizeof hv, "fake:%s", h->hv);
    setenv("UNDERSTUDY_ROOT", h->root, 1);
    setenv("UNDERSTUDY_NAME", h->name, 1);
    setenv("UNDERSTUDY_HV", hv, 1);
}

/* Run the CLI on a host; its output and errors are in `output`. */
__attribute__((format(printf, 2, 3))) static int cli(const struct host *h,
                                                     const char *fmt, ...)
{
    char args[512], command[1200];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(args, sizeof args, fmt, ap);
    va_end(ap);
    environment(h);
    snprintf(command, sizeof command, "timeout 60 %s/understudy %s 2>&1", build,
             args);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(output, 1, sizeof output - 1, f);
    output[n] = '\0';
    int status = pclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void log_print(const struct host *h)
{
    char command[300];

    snprintf(command, sizeof command, "tail -n 40 %s/log >&2", h->root);
    if (system(command))
        return;
}

/* The status and a piece of the output are as expected. */
#define assert_cli(status, text, ...)                                          \
    do {                                                                       \
        int got_ = cli(__VA_ARGS__);                                           \
        if (got_ != (status) || !strstr(output, (text))) {                     \
            log_print(&alder);                                                 \
            log_print(&birch);                                                 \
            fail_msg("status %d, not %d, or lacks \"%s\":\n%s", got_,          \
                     (status), (text), output);                                \
        }                                                                      \
    } while (0)

static bool pause_ms(unsigned ms)
{
    usleep(ms * 1000);
    return true;
}

static void daemon_start(struct host *h)
{
    char program[600], log[200];

    environment(h);
    snprintf(program, sizeof program, "%s/understudyd", build);
    snprintf(log, sizeof log, "%s/log", h->root);
    h->daemon = fork();
    assert_int_not_equal(h->daemon, -1);
    if (!h->daemon) {
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(fd, 2);
        execl(program, "understudyd", "-f", NULL);
        _exit(127);
    }
    for (int i = 0; cli(h, "version") && i < 500; i++)
        pause_ms(20);
    assert_cli(0, "understudyd", h, "version");
}

static void process_end(pid_t pid, int signal)
{
    kill(pid, signal);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

static json_t *status_of(const struct host *h)
{
    cli(h, "status --json");
    json_t *list = json_loads(output, 0, NULL);
    json_t *vm = json_incref(json_array_get(list, 0));

    json_decref(list);
    return vm;
}

static long long number_of(const struct host *h, const char *key)
{
    json_t *vm = status_of(h);
    long long v = json_integer_value(json_object_get(vm, key));

    json_decref(vm);
    return v;
}

/* --- A pair of hosts ---------------------------------------------------- */

static int port_free(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static void host_make(struct host *h)
{
    char command[600];

    snprintf(h->root, sizeof h->root, "%s/%s", top, h->name);
    snprintf(h->hv, sizeof h->hv, "%s/hv", h->root);
    h->port = port_free();
    snprintf(command, sizeof command,
             "mkdir -p %s %s/etc/understudy && printf "
             "'port=%d\\nlisten=\"127.0.0.1\"\\nlog=\"debug\"\\n' "
             ">%s/etc/understudy/understudyd.conf",
             h->hv, h->root, h->port, h->root);
    assert_int_equal(system(command), 0);
    daemon_start(h);
}

static void peer_add(const struct host *here, const struct host *there)
{
    char pin[80];

    assert_cli(0, "", there, "key show");
    snprintf(pin, sizeof pin, "%.64s", output);
    assert_cli(0, there->name, here,
               "peer add %s --address 127.0.0.1:%d "
               "--pin %s",
               there->name, there->port, pin);
}

static int hosts_make(void **state)
{
    (void)state;
    snprintf(top, sizeof top, "/tmp/understudy-pair.XXXXXX");
    if (!mkdtemp(top))
        return -1;
    host_make(&alder);
    host_make(&birch);
    return 0;
}

static int pair_make(void **state)
{
    struct fake_spec spec = {.name = "web",
                             .uuid = {0x77, [15] = 1},
                             .seed = 7,
                             .ram_pages = 3000,
                             .writers = 2,
                             .step_us = 1000};

    if (hosts_make(state) || fake_create(alder.hv, &spec, &guest_id, NULL) ||
        fake_guest_start(&guest, alder.hv, guest_id, NULL))
        return -1;
    peer_add(&alder, &birch);
    peer_add(&birch, &alder);
    return 0;
}

/* All children, and theirs when they become ours. */
static void children_end(void)
{
    for (;;) {
        char path[64], line[4096] = "";
        snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
        FILE *f = fopen(path, "r");
        if (!f || !fgets(line, sizeof line, f))
            line[0] = '\0';
        if (f)
            fclose(f);
        if (!line[0])
            return;
        for (char *p = strtok(line, " "); p; p = strtok(NULL, " ")) {
            if (atoi(p) > 1)
                process_end(atoi(p), SIGKILL);
        }
    }
}

static int pair_end(void **state)
{
    char command[100];

    (void)state;
    if (guest)
        fake_guest_stop(guest);
    guest = NULL;
    children_end();
    snprintf(command, sizeof command, "rm -rf %s", top);
    return system(command);
}

static bool files_in(const struct host *h, const char *dir)
{
    char path[300];
    int n = 0;

    snprintf(path, sizeof path, "%s/%s", h->root, dir);
    DIR *d = opendir(path);
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n > 2;
}

static void assert_nothing_left(const struct host *h)
{
    /* The record goes first; that its agent ended is seen a moment later. */
    for (int i = 0; i < 100; i++) {
        cli(h, "status --json");
        if (!strcmp(output, "[]\n"))
            break;
        pause_ms(20);
    }
    assert_false(files_in(h, "var/lib/understudy/vms"));
    assert_false(files_in(h, "run/understudy/vm"));
    cli(h, "status --json");
    assert_string_equal(output, "[]\n");
}

static void protect(void)
{
    assert_cli(0, "web is Protected, birch is its backup", &alder,
               "protect web birch --arbiter none");
}

/* --- Tests -------------------------------------------------------------- */

static void protect_and_unprotect_leave_nothing(void **state)
{
    (void)state;
    assert_cli(0, "warning: with --arbiter none", &alder,
               "protect web birch --arbiter none");
    assert_cli(0, "Protected   primary birch", &alder, "status");
    assert_cli(0, "Protected   backup  alder", &birch, "status");
    assert_cli(0, "Domain:", &alder, "status web");
    assert_cli(0, "not protected any more", &alder, "unprotect web");
    assert_nothing_left(&alder);
    assert_cli(0, "", &birch, "wait web --state Unprotected --timeout 10");
    assert_nothing_left(&birch);
    uint64_t steps = fake_steps(alder.hv, guest_id);
    for (int i = 0; fake_steps(alder.hv, guest_id) == steps && i < 500; i++)
        pause_ms(10);
    assert_true(fake_steps(alder.hv, guest_id) > steps);
}

static void refusals_say_why_and_change_nothing(void **state)
{
    (void)state;
    assert_cli(2, "--arbiter", &alder, "protect web birch");
    assert_cli(2, "usage", &alder, "protect web --arbiter none");
    assert_cli(2, "oracle is no arbiter", &alder,
               "protect web birch --arbiter oracle");
    assert_cli(1, "cedar is no peer", &alder,
               "protect web cedar --arbiter none");
    assert_cli(1, "no domain", &alder, "protect nobody birch --arbiter none");
    assert_cli(1, "is not protected", &alder, "unprotect web");
    assert_cli(1, "is not protected", &alder, "status web");
    assert_cli(2, "is no state", &alder, "wait web --state Happy");
    assert_nothing_left(&alder);
    assert_nothing_left(&birch);
    protect();
    assert_cli(1, "is protected already", &alder,
               "protect web birch --arbiter none");
    assert_cli(1, "only its backup", &birch, "unprotect web");
    assert_cli(1, "nothing to take over", &alder, "takeover web");
    assert_cli(1, "is the peer of the VM web", &alder, "peer remove birch");
    assert_cli(1, "is not Degraded yet", &alder,
               "wait web --state Degraded --timeout 1");
}

static void an_unreachable_peer_is_the_reason(void **state)
{
    (void)state;
    process_end(birch.daemon, SIGTERM);
    assert_cli(1, "Connection refused", &alder,
               "protect web birch --arbiter none");
    assert_nothing_left(&alder);
    assert_cli(0, "down", &alder, "peer list");
}

static void a_peer_with_another_key_is_the_reason(void **state)
{
    char command[300];

    (void)state;
    process_end(birch.daemon, SIGTERM);
    snprintf(command, sizeof command, "rm %s/etc/understudy/*.pem", birch.root);
    assert_int_equal(system(command), 0);
    daemon_start(&birch);
    assert_cli(1, "key", &alder, "protect web birch --arbiter none");
    assert_nothing_left(&alder);
}

static void a_new_daemon_adopts_the_agent(void **state)
{
    (void)state;
    protect();
    long long pid = number_of(&alder, "pid");
    long long epochs = number_of(&alder, "epoch");
    process_end(alder.daemon, SIGKILL);
    assert_cli(1, "does not run", &alder, "status");
    daemon_start(&alder);
    assert_cli(0, "", &alder, "wait web --state Protected --timeout 10");
    assert_int_equal(number_of(&alder, "pid"), pid);
    for (int i = 0; number_of(&alder, "epoch") <= epochs && i < 500; i++)
        pause_ms(10);
    assert_true(number_of(&alder, "epoch") > epochs);
    process_end(birch.daemon, SIGKILL);
    daemon_start(&birch);
    assert_cli(0, "not protected any more", &alder, "unprotect web");
    assert_nothing_left(&alder);
}

static void a_killed_agent_is_started_again(void **state)
{
    (void)state;
    protect();
    long long pid = number_of(&alder, "pid");
    kill((pid_t)pid, SIGKILL);
    const char *died = NULL;
    for (int i = 0; i < 1000; i++) {
        cli(&alder, "events");
        died = strstr(output, "agent-died");
        if (died && strstr(died, "Protected (was"))
            break;
        pause_ms(10);
    }
    assert_cli(0, "signal 9", &alder, "events");
    died = strstr(output, "agent-died");
    assert_non_null(strstr(died, "Protected (was"));
    assert_int_not_equal(number_of(&alder, "pid"), pid);
    assert_cli(0, "Protected", &alder, "status");
}

static void a_lost_host_is_replaced_and_gives_way(void **state)
{
    struct err e = ERR_INIT;

    (void)state;
    protect();
    long long pid = number_of(&alder, "pid");
    process_end(alder.daemon, SIGKILL);
    process_end((pid_t)pid, SIGKILL);
    fake_guest_stop(guest);
    guest = NULL;
    assert_cli(0, "", &birch, "wait web --state TakenOver --timeout 15");
    assert_cli(0, "Takeover:", &birch, "status web");
    uint32_t id = (uint32_t)number_of(&birch, "domid");
    if (fake_guest_start(&guest, birch.hv, id, &e))
        fail_msg("%s", e.text);
    uint64_t steps = fake_steps(birch.hv, id);
    for (int i = 0; fake_steps(birch.hv, id) == steps && i < 500; i++)
        pause_ms(10);
    assert_true(fake_steps(birch.hv, id) > steps);
    daemon_start(&alder);
    assert_cli(0, "", &alder, "wait web --state Fenced --timeout 15");
    assert_cli(3, "Fenced", &alder, "status");
    assert_cli(0, "TakenOver", &birch, "status");
}

static void a_damaged_record_is_named_and_left_alone(void **state)
{
    char path[300];

    (void)state;
    process_end(alder.daemon, SIGTERM);
    snprintf(path, sizeof path, "%s/var/lib/understudy/vms/%s.json", alder.root,
             UUID);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("{\"version\":1}", f);
    fclose(f);
    daemon_start(&alder);
    assert_cli(3, "Failed", &alder, "status");
    assert_cli(0, UUID ".json", &alder, "events");
    assert_cli(1, "damaged record", &alder, "unprotect " UUID);
    assert_false(files_in(&alder, "run/understudy/vm"));
    assert_int_equal(access(path, F_OK), 0);
}

static void there_is_one_daemon(void **state)
{
    char command[700];

    (void)state;
    environment(&alder);
    snprintf(command, sizeof command, "%s/understudyd -f 2>&1", build);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(output, 1, sizeof output - 1, f);
    output[n] = '\0';
    assert_int_equal(WEXITSTATUS(pclose(f)), 1);
    assert_non_null(strstr(output, "runs already"));
    assert_cli(0, "understudyd", &alder, "version");
}

/* ssh is a script that runs the command as birch. */
static void ssh_make(const char *before)
{
    char path[100];

    snprintf(path, sizeof path, "%s/ssh", top);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f,
            "#!/bin/sh\nexport UNDERSTUDY_ROOT=%s PATH=%s:$PATH\n%s\n"
            "exec sh -c \"$2\"\n",
            birch.root, build, before);
    fclose(f);
    assert_int_equal(chmod(path, 0755), 0);
    setenv("UNDERSTUDY_SSH", path, 1);
}

static void peer_add_over_ssh_pins_both_or_none(void **state)
{
    (void)state;
    ssh_make("case $2 in *peer*add*) exit 255;; esac");
    assert_cli(1, "ssh", &alder, "peer add root@127.0.0.1");
    assert_int_equal(cli(&alder, "peer list --json"), 0);
    assert_string_equal(output, "[]\n");
    ssh_make("");
    assert_cli(0, "know each other now", &alder, "peer add root@127.0.0.1");
    assert_cli(0, "birch", &alder, "peer list");
    assert_cli(0, "alder", &birch, "peer list");
    assert_cli(0, "know each other now", &alder, "peer add root@127.0.0.1");
    unsetenv("UNDERSTUDY_SSH");
}

#define HOSTS(f) cmocka_unit_test_setup_teardown(f, hosts_make, pair_end)
#define PAIR(f)  cmocka_unit_test_setup_teardown(f, pair_make, pair_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PAIR(protect_and_unprotect_leave_nothing),
        PAIR(refusals_say_why_and_change_nothing),
        PAIR(an_unreachable_peer_is_the_reason),
        PAIR(a_peer_with_another_key_is_the_reason),
        PAIR(a_new_daemon_adopts_the_agent),
        PAIR(a_killed_agent_is_started_again),
        PAIR(a_lost_host_is_replaced_and_gives_way),
        HOSTS(a_damaged_record_is_named_and_left_alone),
        HOSTS(there_is_one_daemon),
        HOSTS(peer_add_over_ssh_pins_both_or_none),
    };
    ssize_t n = readlink("/proc/self/exe", build, sizeof build - 1);

    if (n < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1))
        return 1;
    for (int i = 0; i < 2; i++) /* build/unit/daemon is the program */
        *strrchr(build, '/') = '\0';
    return cmocka_run_group_tests(tests, NULL, NULL);
}
