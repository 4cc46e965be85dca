// Package e2e holds the end-to-end tests: they start bin/ashlar as a user does and attach to it with the
// initiators that people have. All of them have the build tag e2e.
//
//	host_test.go        libiscsi's tools and QEMU's block layer on this host
//	vm_test.go          open-iscsi, ext4 and fio in a small Linux VM (vm/)
//	vm_tools_test.go    the commands of sg3_utils, one by one, in the VM
//	vm_multipath_test.go dm-multipath over two gateways, in the VM
//	fault_*_test.go     processes killed, stopped and restarted, and disks filled, damaged and taken away, under verified load
//	history_test.go     linearizability of shared blocks over two gateways (porcupine)
//	reset_test.go, modes_test.go, sanitize_test.go   LOGICAL UNIT RESET, mode pages and SANITIZE over two gateways
//	paths_test.go       what hosts are told of two gateways as their paths (ALUA)
//	checks_test.go      the protocol, rightly and wrongly, by an initiator of our own (initiator/checks, hostile)
//	selftest_test.go    ashlar selftest, for each kind of host
//	conformance_test.go libiscsi's iscsi-test-cu, test by test (make conformance)
//
// Environment:
//
//	E2E_BINARY                the binary under test (default bin/ashlar)
//	E2E_ORACLE=tgt            run the host and VM tests against Debian's tgtd instead
//	E2E_PORTAL, E2E_TARGET, E2E_LUN   run them against this logical unit; it is ERASED
//	E2E_ROUNDS                rounds of the repeated power cut (default 4)
//	CHECKS                    regular expression for suite/title of TestChecks
//	E2E_SECONDS               length of the load phases (default per test)
//	E2E_QUIET=1               nothing else runs on the machine: TestFaultBackground checks p99 too, with a larger volume
//	E2E_KEEP=1                keep the data directories
//
// With an oracle the tests that need ashlar's administration or processes skip themselves: what is left must
// pass there too, so that a test that asks too much of a target is found.
package e2e
