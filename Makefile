# SPDX-License-Identifier: Apache-2.0
# Understudy. `make help` says what there is; HACKING.md says how it is built.
PREFIX  ?= /usr
DESTDIR ?=
XENSCRIPTS ?= /etc/xen/scripts
BUILD   ?= build$(if $(SAN),-san)
CC      ?= gcc

VERSION := 0.1
LIBS    := common link heartbeat hypervisor checkpoint net-buffer disk-replicate
PKGS    := libnl-route-3.0 libnl-genl-3.0 libnl-3.0 libzstd openssl jansson libxxhash libcurl
XENPKGS := xencontrol xenguest xencall xenforeignmemory xenevtchn \
           xendevicemodel xenstore
pkg      = $(shell pkg-config $(1) $(2) 2>/dev/null)

WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
           -Wpointer-arith -Wcast-qual -Wvla -Wformat=2 -Werror
,       := ,
OPT     := $(if $(SAN),-O1 -fsanitize=address$(,)undefined \
           -fno-omit-frame-pointer,-O2)
CFLAGS  ?= -g
override CFLAGS += $(OPT) -std=gnu11 $(WARN) -I. -D_GNU_SOURCE -pthread \
           -DUNDERSTUDY_VERSION='"$(VERSION)"' -DPREFIX='"$(PREFIX)"' \
           $(call pkg,--cflags,$(PKGS) $(XENPKGS))
LDLIBS  := $(call pkg,--libs,$(PKGS) $(XENPKGS)) -lxlutil -lev -pthread
XLLIBS  := $(call pkg,--libs,xenlight xencontrol xenstore jansson) -lxlutil

obj      = $(patsubst %.c,$(BUILD)/%.o,$(wildcard $(1)))
ARCHIVES := $(foreach l,$(LIBS),$(BUILD)/$(l).a)
TOPS    := $(BUILD)/agent.a $(BUILD)/cli.a $(BUILD)/tests/lib.a
TESTS   := $(patsubst tests/unit/%_test.c,$(BUILD)/unit/%,\
           $(wildcard tests/unit/*_test.c))
PROGS   := $(addprefix $(BUILD)/,understudyd understudy understudy-xl \
           understudy-witness understudy-disk)
SOURCES := $(shell git ls-files '*.c' '*.h' ':!guest/*' 2>/dev/null)

.PHONY: all deps labdeps test test-all sim lint demo lab labprogs fakeprogs install clean \
        help unit format
all: $(PROGS)
help:
	@echo 'make all | deps | test | test-all T=PATTERN | sim | lint | demo | lab |'
	@echo '     install [DESTDIR= PREFIX=] | clean;  SAN=1: ASan and UBSan'

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	@echo '  CC      $<'
	@$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<
.PRECIOUS: $(BUILD)/%.o
.SECONDEXPANSION:
$(TOPS) $(ARCHIVES): $(BUILD)/%.a: $$(call obj,$$*/*.c)
	@rm -f $@
	@$(AR) rcs $@ $^
# Archives name each other only downwards, but agent code may use all of them.
# agent.a and cli.a hold their main() too: a program names its own object, and
# a unit test has a main() of its own, so the archive's is never taken.
$(BUILD)/understudyd: $(BUILD)/agent/understudyd.o $(BUILD)/agent.a $(ARCHIVES)
	@echo '  LD      $@'
	@$(CC) $(CFLAGS) -o $@ $< -Wl,--start-group \
	    $(BUILD)/agent.a $(ARCHIVES) -Wl,--end-group $(LDLIBS)
$(BUILD)/understudy: $(BUILD)/cli/understudy.o $(BUILD)/cli.a $(BUILD)/common.a
	@echo '  LD      $@'
	@$(CC) $(CFLAGS) -o $@ $^ $(call pkg,--libs,jansson)
$(BUILD)/understudy-witness: $(BUILD)/heartbeat/understudy-witness.o \
  $(addprefix $(BUILD)/,heartbeat.a link.a common.a)
	@echo '  LD      $@'
	@$(CC) $(CFLAGS) -o $@ $^ $(call pkg,--libs,openssl libxxhash jansson) -lev
$(BUILD)/understudy-disk: $(BUILD)/disk-replicate/understudy-disk.o \
  $(BUILD)/disk-replicate.a $(BUILD)/common.a
	@echo '  LD      $@'
	@$(CC) $(CFLAGS) -o $@ $^ $(call pkg,--libs,libnl-genl-3.0 libnl-3.0 libxxhash)
$(BUILD)/understudy-xl: $(call obj,hypervisor/xl/*.c) \
  $(call obj,hypervisor/blueprint.c hypervisor/records.c) $(BUILD)/common.a
	@echo '  LD      $@'
	@$(CC) $(CFLAGS) -o $@ $^ $(XLLIBS)
$(BUILD)/unit/%: $(BUILD)/tests/unit/%_test.o $(TOPS) $(ARCHIVES)
	@mkdir -p $(@D)
	@echo '  LD      $@'
	@$(CC) $(CFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(TOPS) \
	    $(ARCHIVES) -Wl,--end-group $(LDLIBS) $(UNITLIBS) -lcmocka
$(BUILD)/unit/xl_check: $(addprefix $(BUILD)/hypervisor/xl/,check.o files.o)
$(BUILD)/unit/xl_check: UNITLIBS := $(XLLIBS)
unit: $(TESTS)
# Programs that run in the lab's dom0, and beside daemons over the fake.
define test_programs
$(BUILD)/$(1)/%: $(BUILD)/tests/$(1)/%.o $(BUILD)/agent.a $(ARCHIVES)
	@mkdir -p $$(@D)
	@echo '  LD      $$@'
	@$(CC) $(CFLAGS) -o $$@ $$< -Wl,--start-group $(BUILD)/agent.a \
	    $(ARCHIVES) -Wl,--end-group $(LDLIBS)
endef
$(foreach d,lab fake,$(eval $(call test_programs,$(d))))
LABPROGS := $(patsubst tests/lab/%.c,$(BUILD)/lab/%,\
            $(wildcard tests/lab/*-test.c tests/lab/*-hold.c))
labprogs: $(LABPROGS)
fakeprogs: $(addprefix $(BUILD)/,fake/guest fake/hostile fake/proxy sim)
$(BUILD)/sim: $(call obj,tests/sim/*.c) $(BUILD)/heartbeat.a $(BUILD)/common.a
	@echo '  LD      $@'
	@$(CC) $(CFLAGS) -o $@ $^
sim: $(BUILD)/sim
	@$(BUILD)/sim $(or $(SEEDS),--epochs 1000000)

# What is missing is installed first, and only a new make sees it.
SELF    := $(MAKE) --no-print-directory
deps:
	@sh tests/deps.sh
labdeps: deps
	@lab/deps
test: labdeps
	@$(SELF) all unit fakeprogs
	@tests/run --one
test-all: labdeps
	@$(SELF) all unit fakeprogs
	@tests/run --all '$(T)'
lint:
	@tests/lint $(SOURCES)
format:
	@clang-format -i $(SOURCES)
demo: labdeps
	@$(SELF) all
	@bash tests/demo.sh
lab: labdeps
	@$(SELF) all
	@bash tests/lab-prepare

install: all
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,sbin bin libexec/understudy \
	    share/man/man1 share/man/man8 share/bash-completion/completions \
	    lib/systemd/system) $(DESTDIR)$(XENSCRIPTS)
	install -m 755 $(addprefix $(BUILD)/,understudyd understudy-witness \
	    understudy-disk) $(DESTDIR)$(PREFIX)/sbin/
	sed 's|@PREFIX@|$(PREFIX)|' disk-replicate/block-understudy \
	    >$(DESTDIR)$(XENSCRIPTS)/block-understudy
	chmod 755 $(DESTDIR)$(XENSCRIPTS)/block-understudy
	install -m 755 $(BUILD)/understudy $(DESTDIR)$(PREFIX)/bin/
	install -m 755 $(BUILD)/understudy-xl \
	    $(DESTDIR)$(PREFIX)/libexec/understudy/
	pod2man -s 1 -c Understudy -r $(VERSION) docs/understudy.pod \
	    $(DESTDIR)$(PREFIX)/share/man/man1/understudy.1
	for p in understudyd understudy-witness understudy-disk; do \
	    pod2man -s 8 -c Understudy -r $(VERSION) docs/$$p.pod \
	    $(DESTDIR)$(PREFIX)/share/man/man8/$$p.8 || exit 1; done
	install -m 644 cli/completion/* \
	    $(DESTDIR)$(PREFIX)/share/bash-completion/completions/
	for p in agent/systemd/understudyd heartbeat/systemd/understudy-witness; do \
	    sed 's|@PREFIX@|$(PREFIX)|' $$p.service \
	    >$(DESTDIR)$(PREFIX)/lib/systemd/system/$${p##*/}.service; done
clean:
	rm -rf build build-san
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
