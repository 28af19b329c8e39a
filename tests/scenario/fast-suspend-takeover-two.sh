# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# test-all only
# fast-suspend-takeover.sh with two CPUs in the guest.
# moments: capture.before capture.suspended capture.copied capture.marked capture.resumed engine.before_commit engine.acked replica.before_ack replica.after_ack replica.applying
VCPUS=2
. "$(dirname "$0")/fast-suspend-takeover.sh"
