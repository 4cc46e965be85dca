//go:build e2e

package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Exit statuses of sg3_utils (sg3_utils(8)).
const (
	exitNotReady   = 2
	exitIllegal    = 5
	exitAttention  = 6
	exitMiscompare = 14
	exitRange      = 22 // LBA out of range
	exitConflict   = 24
)

// toolStep is a shell command in the VM: see vm/guest/tools.sh.
type toolStep struct {
	name    string
	command string
	status  int      // what it must exit with
	want    []string // what must be in its output: regular expressions in which ^ and $ are the ends of a line
}

// toolSteps are run in this order over two logical units of 64 MiB, the second of which is LUN 1.
func toolSteps() []toolStep {
	return slices.Concat(toolsIdentity(), toolsPages(), toolsReservations(), toolsBlocks(), toolsSanitize())
}

// toolsIdentity ask what the logical unit is.
func toolsIdentity() []toolStep {
	return []toolStep{
		{name: "sg_turs", command: `sg_turs -n 100 $a`, want: []string{`Completed 100 Test Unit Ready commands with 0 errors$`}},
		{name: "sg_requests", command: `sg_requests $a`, want: []string{`Sense key: No Sense$`, `No additional sense information`}},
		{name: "sg_luns", command: `sg_luns -d $a`, want: []string{
			`Lun list length = 16 `, `^ +0000000000000000$`, `^ +0001000000000000$`, `Peripheral device addressing: lun=1$`,
		}},
		{name: "sg_inq", command: `sg_inq -d $a`, want: []string{
			`PQual=0  PDT=0  RMB=0 .* version=0x06  \[SPC-4\]`, `HiSUP=1  Resp_data_format=2`, `TPGS=1  3PC=1  Protect=0`, `CmdQue=1`,
			`length=96 \(0x60\)   Peripheral device type: disk`, `Vendor identification: ASHLAR  $`,
			`Product identification: [0-9A-F]{8} VOL    $`, `Unit serial number: [0-9a-f]{16}$`,
			`^ +SAM-5 `, `^ +iSCSI `, `^ +SPC-4 `, `^ +SBC-3 `,
		}},
		{name: "sg_readcap(10)", command: `sg_readcap --brief $a; sg_readcap $a`, want: []string{
			`^0x20000 0x200$`, `Last LBA=131071 \(0x1ffff\)`, `Logical block length=512 bytes`,
		}},
		{name: "sg_readcap(16)", command: `sg_readcap --16 $a`, want: []string{
			`prot_en=0`, `lbpme=1, lbprz=1$`, `Number of logical blocks=131072$`, `physical block length=4096 bytes`,
			`Lowest aligned LBA=0$`, `Device size: 67108864 bytes`,
		}},
		{name: "sg_rtpg", command: `sg_rtpg -d $a`, want: []string{
			`^  target port group id : 0x1 , Pref=0`, `asymmetric access state : 0x00 \(active/optimized\)$`, `T_SUP : 0, O_SUP : 0, LBD_SUP : 0, U_SUP : 1, `,
			`AN_SUP : 1, AO_SUP : 1$`, `Relative target port ids:\n +0x01$`,
		}},
		{name: "sg_rtpg, extended", command: `sg_rtpg -d -e $a`, want: []string{`Implicit transition time: 10$`, `target port group id : 0x1 `}},
		{name: "sg_stpg", command: `sg_stpg --active $a`, want: []string{`Set Target Port Groups: Illegal request, Invalid opcode`}},
		{name: "sg_opcodes", command: `sg_opcodes -c $a`, want: []string{
			`^ 00 +Test Unit Ready$`, `^ 42 +Unmap$`, `^ 48,2 +Sanitize, block erase$`, `^ 5f,4 +Persistent reserve out, preempt$`,
			`^ 83,0 +Extended copy\(LID1\)$`, `^ 89 +Compare and write$`, `^ 93 +Write same\(16\)$`, `^ 9c +Write atomic\(16\)$`,
			`^ 9e,12 +Get LBA status\(16\)$`, `^ a3,c +Report supported operation codes$`,
		}},
		{name: "sg_opcodes of one", command: `sg_opcodes -o 0x89 $a`, want: []string{
			`Command is supported \[conforming to SCSI standard\]`,
			`Usage data: 89 18 ff ff ff ff ff ff ff ff 00 00 00 ff 3f 00 $`,
		}},
		{name: "sg_opcodes of one that is not there", command: `sg_opcodes -o 0x04 $a`, want: []string{`Command is NOT supported$`}},
		{name: "sg_opcodes, task management", command: `sg_opcodes -t $a`, want: []string{
			`^ +Abort task$`, `^ +Abort task set$`, `^ +Clear task set$`, `^ +Logical unit reset$`,
		}},
	}
}

// toolsPages ask for each page of vital product data, mode and log.
func toolsPages() []toolStep {
	return []toolStep{
		{name: "sg_vpd -a", command: `sg_vpd -a $a`, want: []string{
			`^Supported VPD pages VPD page:$`, `^Unit serial number VPD page:$`, `^Device Identification VPD page:$`,
			`^extended INQUIRY data VPD page:$`, `^Third party copy VPD page:$`, `^Block limits VPD page \(SBC\):$`,
			`^Block device characteristics VPD page \(SBC\):$`, `^Logical block provisioning VPD page \(SBC\):$`,
		}},
		{name: "sg_vpd 80h, 83h", command: `sg_vpd -p sn $a; sg_vpd -p di $a; sg_vpd -p di_lu -q $a >1; sg_vpd -p di_lu -q $a2 >2; cmp 1 2`, want: []string{
			`Unit serial number: [0-9a-f]{16}$`, `^ +0x6[0-9a-f]{31}$`, `vendor id: ASHLAR`, `Relative target port: 0x1$`,
			`Target port group: 0x1$`, `^ +iqn.*,t,0x0001$`,
		}},
		{name: "sg_vpd 86h", command: `sg_vpd -p ei $a`, want: []string{
			`HEADSUP=1 ORDSUP=1 SIMPSUP=1$`, `WU_SUP=0 .* NV_SUP=0 V_SUP=0$`, `GRD_CHK=0 APP_CHK=0 REF_CHK=0$`,
		}},
		{name: "sg_vpd 8Fh", command: `sg_vpd -p tpc $a`, want: []string{
			`^ +Extended copy\(LID1\)$`, `^ +Populate token$`, `^ +Write using token$`, `CSCD: Identification Descriptor \[0xe4\]`,
			`Maximum CSCD descriptor count: 16$`, `ROD type: block device zero`,
		}},
		{name: "sg_vpd B0h", command: `sg_vpd -p bl $a`, want: []string{
			`\(WSNZ\): 1$`, `Maximum compare and write length: 1 blocks$`, `Maximum transfer length: 16384 blocks$`,
			`Maximum unmap LBA count: 524288$`, `Maximum unmap block descriptor count: 256$`, `Optimal unmap granularity: 8 blocks$`,
			`Unmap granularity alignment valid: true$`, `Maximum write same length: 0x8000 blocks$`, `Maximum atomic transfer length: 256 blocks$`,
		}},
		{name: "sg_vpd B1h, B2h", command: `sg_vpd -p bdc $a; sg_vpd -p lbpv $a`, want: []string{
			`Non-rotating medium`, `VBULS=1$`, `\(LBPU\): 1$`, `\(LBPWS\): 1$`, `\(LBPWS10\): 1$`, `\(LBPRZ\): 1$`,
			`Threshold exponent: 15$`, `Provisioning type: 2 `,
		}},
		{name: "sg_modes -a", command: `sg_modes -a $a`, want: []string{
			`MODE SENSE\(10\)`, `WP=0, DpoFua=1, longlba=0$`, `>> Caching, page_control: current\n 00 +08 12 00 `,
			`>> Control, page_control: current\n 00 +8a 0a 20 10 `, `>> Power condition, page_control: current$`,
			`>> Informational exceptions control, page_control: current$`,
		}},
		{name: "sg_modes(6) with subpages", command: `sg_modes -6 -aa $a`, want: []string{`MODE SENSE\(6\)`, `>> Control extension, .*\n 00 +4a 01 00 1c `}},
		{name: "sg_modes, changeable", command: `sg_modes -p 0xa -c 1 $a`, want: []string{`>> Control, page_control: changeable\n 00 +8a 0a 04 00 08 `}},
		{name: "sg_logs -a", command: `sg_logs -a $a`, want: []string{
			`^Supported log pages`, `^Logical block provisioning page`, `Used LBA mapping threshold resource count: \d+\n +Scope: dedicated to lu`,
			`^Temperature page`, `^Informational Exceptions page`, `IE asc = 0x0, ascq = 0x0$`,
		}},
	}
}

// toolsReservations are persistent reservations of two I_T nexuses.
func toolsReservations() []toolStep {
	return []toolStep{
		{name: "sg_persist, capabilities", command: `sg_persist -n -c $a`, want: []string{
			`\(PTPL_C\): 1$`, `\(ATP_C\): 1$`, `\(SIP_C\): 1$`, `\(TMV\): 1$`, `Write Exclusive: 1$`, `Exclusive Access: 1$`,
			`Write Exclusive, registrants only: 1$`, `Exclusive Access, registrants only: 1$`, `Write Exclusive, all registrants: 1$`,
			`Exclusive Access, all registrants: 1$`,
		}},
		{name: "sg_persist, register", command: `head -c 4096 /dev/urandom >mine; dd if=mine of=$a bs=4k oflag=direct conv=notrunc status=none
			sg_persist -n -o -G -S a1 $a; sg_persist -n -o -G -S b2 $a2`},
		{name: "sg_persist, register with a wrong key", command: `sg_persist -n -o -G -K c3 -S d4 $a`, status: exitConflict},
		{name: "sg_persist, read keys", command: `sg_persist -n -k $a`, want: []string{
			`PR generation=0x2, 2 registered reservation keys follow:\n +0xa1\n +0xb2$`,
		}},
		{name: "sg_persist, reserve", command: `sg_persist -n -o -R -K a1 -T 1 $a`},
		{name: "sg_persist, read reservation", command: `sg_persist -n -r $a2`, want: []string{
			`PR generation=0x2, Reservation follows:\n +Key=0xa1\n +scope: LU_SCOPE,  type: Write Exclusive$`,
		}},
		{name: "sg_persist, read full status", command: `sg_persist -n -s $a2`, want: []string{
			`Key=0xa1\n(.*\n){2} +<< Reservation holder >>\n(.*\n){2} +iSCSI world wide unique port id: iqn.2026-11.dev.ashlar.test:vm,i,0x[0-9a-f]{12}$`,
			`Key=0xb2\n(.*\n){2} +not reservation holder\n(.*\n) +iSCSI world wide unique port id: iqn.2026-11.dev.ashlar.test:vm,i,0x[0-9a-f]{12}$`,
		}},
		{name: "sg_unmap against a reservation", command: `sg_unmap -l 0 -n 8 -f $a2`, status: exitConflict, want: []string{`Reservation conflict`}},
		{name: "read with a reservation for writes", command: `sg_verify -l 0 -c 8 $a2; dd if=$a2 bs=4k count=1 iflag=direct status=none | cmp - mine`},
		{name: "sg_persist, reserve what is reserved", command: `sg_persist -n -o -R -K b2 -T 1 $a2`, status: exitConflict},
		{name: "sg_persist, preempt", command: `sg_persist -n -o -P -K b2 -S a1 -T 3 $a2; sg_persist -n -r $a2; sg_persist -n -k $a2`, want: []string{
			`PR generation=0x3, Reservation follows:\n +Key=0xb2\n +scope: LU_SCOPE,  type: Exclusive Access$`,
			`PR generation=0x3, 1 registered reservation key follows:\n +0xb2$`,
		}},
		{name: "sg_turs of who was preempted", command: `sg_turs -vv $a`, status: exitAttention, want: []string{`Registrations preempted$`, ` 2a 05 00 00$`}},
		{name: "sg_verify against a reservation", command: `sg_verify -l 0 -c 8 $a`, status: exitConflict, want: []string{`Reservation conflict`}},
		{name: "sg_persist, release", command: `sg_persist -n -o -L -K b2 -T 3 $a2; sg_persist -n -r $a2; sg_verify -l 0 -c 8 $a`, want: []string{
			`PR generation=0x3, there is NO reservation held$`,
		}},
		{name: "sg_persist, clear", command: `sg_persist -n -o -I -S a3 $a; sg_persist -n -k $a; sg_persist -n -o -C -K a3 $a; sg_persist -n -k $a`, want: []string{
			`PR generation=0x4, 2 registered reservation keys follow:\n +0xa3\n +0xb2$`, `PR generation=0x5, there are NO registered reservation keys$`,
		}},
		{name: "sg_turs of who was cleared", command: `sg_turs -vv $a2`, status: exitAttention, want: []string{`Reservations preempted$`, ` 2a 03 00 00$`}},
		{
			name: "sg_persist, through power loss", command: `sg_persist -n -o -G -S a1 -Z $a; sg_persist -n -c $a; sg_persist -n -o -G -K a1 -S 0 $a; sg_persist -n -k $a`,
			want: []string{`\(PTPL_A\): 1$`, `there are NO registered reservation keys$`},
		},
	}
}

// toolsBlocks are commands on the medium.
func toolsBlocks() []toolStep {
	return []toolStep{
		{name: "sg_dd", command: `head -c 4M /dev/urandom >data
			sg_dd if=data of=$a bs=512 bpt=512 cdbsz=16 oflag=fua blk_sgio=1; sg_dd if=$a of=back bs=512 bpt=333 count=8192 cdbsz=10 blk_sgio=1
			cmp data back; dd if=$a2 bs=1M count=4 iflag=direct status=none | cmp - data`, want: []string{`8192\+0 records out`}},
		{
			name: "sg_compare_and_write", command: `head -c 512 data >old; head -c 512 /dev/urandom >new; cat old new >both
			sg_compare_and_write -i both -l 0 -n 1 -x 1024 $a; dd if=$a bs=512 count=1 iflag=direct status=none | cmp - new; echo swapped`,
			want: []string{`^swapped$`},
		},
		{
			name: "sg_compare_and_write, other data", command: `sg_compare_and_write -i both -l 0 -n 1 -x 1024 $a`, status: exitMiscompare,
			want: []string{`Miscompare at byte offset: 0 `},
		},
		{name: "sg_compare_and_write wrote nothing", command: `dd if=$a bs=512 count=1 iflag=direct status=none | cmp - new`},
		{
			name: "sg_write_x, atomic", command: `head -c 128k /dev/urandom >atom; sg_write_x --atomic=0 -i atom -l 256 -n 256 $a
			dd if=$a bs=128k skip=1 count=1 iflag=direct status=none | cmp - atom; sg_write_x --atomic=0 -i atom -l 300 -n 256 $a`,
			status: exitIllegal,
		},
		{name: "sg_copy_results", command: `sg_copy_results --params $a`, want: []string{
			`Maximum target descriptor count: 16$`, `Maximum segment length: 16777216 bytes$`, `Segment descriptor 0x0a`, `Target descriptor 0xe4`,
		}},
		{name: "sg_xcopy", command: `dd if=/dev/urandom of=$a bs=1M count=8 oflag=direct conv=notrunc status=none
			for by in --on_src --on_dst; do
				dd if=/dev/zero of=$b bs=1M count=10 oflag=direct conv=notrunc status=none
				sg_xcopy $by if=$a of=$b bs=512 skip=8 seek=2048 count=16000
				blockdev --flushbufs $a $b; cmp -n 8192000 -i 4096:1048576 $a $b; cmp -n 1048576 $b /dev/zero; echo same
			done`, want: []string{`(?s)16000 blocks, 1 command\nsame\n.*16000 blocks, 1 command\nsame$`}},
		{
			name: "sg_unmap", command: `sg_unmap -l 4096 -n 4096 -f $a; dd if=$a bs=2M skip=1 count=1 iflag=direct status=none | cmp -n 2097152 - /dev/zero; echo zeroes`,
			want: []string{`^zeroes$`},
		},
		{name: "sg_get_lba_status", command: `sg_get_lba_status -l 0 -m 1024 $a`, want: []string{
			`LBA: 0x0000000000000000  blocks: +4096  mapped`, `LBA: 0x0000000000001000  blocks: +4096  deallocated$`,
			`LBA: 0x0000000000002000  blocks: +8192  mapped`, `LBA: 0x0000000000004000  blocks: +114688  deallocated$`,
		}},
		{
			name: "sg_write_same", command: `head -c 512 data >block; sg_write_same --10 -i block -l 4096 -n 16 $a
			dd if=$a bs=512 skip=4111 count=1 iflag=direct status=none | cmp - block; sg_write_same --16 --unmap -l 0 -n 4096 $a; sg_get_lba_status -m 1024 $a`,
			want: []string{`LBA: 0x0000000000000000  blocks: +4096  deallocated$`, `LBA: 0x0000000000001000  blocks: +16  mapped`},
		},
		{name: "sg_verify", command: `sg_verify --16 -l 4096 -c 1 -n 512 -i block $a; sg_verify --16 -l 131064 -c 8 $a`},
		{name: "sg_verify, other data", command: `sg_verify -l 0 -c 1 -n 512 -i block $a`, status: exitMiscompare, want: []string{`MISCOMPARE: started at LBA 0x0`}},
		{name: "sg_verify behind the end", command: `sg_verify --16 -l 131065 -c 8 $a`, status: exitRange, want: []string{`LBA out of range`}},
		{name: "sg_sync", command: `sg_sync $a; sg_sync --16 $a`},
		{name: "sg_reset", command: `sg_reset -d $a; sg_turs -vv $a2`, status: exitAttention, want: []string{
			`Bus device reset function occurred$`, ` 29 03 00 00$`,
		}},
		{name: "sg_turs after a reset", command: `sg_turs $a2; sg_turs $a || sg_turs $a`},
	}
}

// toolsSanitize erase a logical unit each, the first by a command that waits.
func toolsSanitize() []toolStep {
	return []toolStep{
		{name: "sg_sanitize, block erase", command: `dd if=/dev/urandom of=$a bs=1M count=2 seek=62 oflag=direct conv=notrunc status=none
			sg_sanitize --block --wait --quick $a; blockdev --flushbufs $a; cmp -n 67108864 $a /dev/zero; sg_get_lba_status -m 1024 $a`, want: []string{
			`LBA: 0x0000000000000000  blocks: +131072  deallocated$`,
		}},
		{
			name: "sg_sanitize, overwrite", command: `head -c 512 /dev/urandom >pattern; sg_sanitize --overwrite --pattern=pattern --early --quick $b; sg_turs -vv $b`,
			status: exitNotReady, want: []string{`sanitize in progress$`, `Progress indication: \d`, ` 04 1b `},
		},
		{name: "sg_requests, progress", command: `for _ in $(seq 200); do
				said=$(sg_requests -p $b)
				[[ $said = *Progress* ]] || break
				echo "$said"
				sleep .1
			done`, want: []string{`Progress indication: \d.*% done`}},
		{name: "sg_turs after a sanitize", command: `sg_turs $b`},
		{name: "what an overwrite left", command: `for _ in $(seq 11); do cat pattern pattern >two; mv two pattern; done
			for at in 0 31 63; do dd if=$b bs=1M skip=$at count=1 iflag=direct status=none | cmp - pattern; done; echo pattern`, want: []string{`^pattern$`}},
	}
}

var progressRE = regexp.MustCompile(`Progress indication: ([0-9.]+)% done`)

// TestVMTools goes through the commands of sg3_utils over the kernel's initiator, and looks at what each of them says.
func TestVMTools(t *testing.T) {
	skipForeign(t)
	u := newUnit(t, "64MiB")
	second := u.volume + "-2"
	admin(t, u.cl, "volume", "create", second, "--size", "64MiB")
	admin(t, u.cl, "target", "map", u.target, "--lun", "1", "--volume", second)
	steps := toolSteps()
	args := []string{u.portal, u.target}
	for _, s := range steps {
		args = append(args, s.command)
	}
	rest := guest(t, "tools.sh", args...)
	for i, s := range steps {
		text, after, found := strings.Cut(rest, fmt.Sprintf("\n@@@ %d ", i))
		status, after, ended := strings.Cut(after, "\n")
		if !found || !ended {
			t.Fatalf("%s: no end in\n%s", s.name, rest)
		}
		rest = after
		t.Run(s.name, func(t *testing.T) { s.judge(t, text, strings.TrimSpace(status)) })
	}
}

func (s toolStep) judge(t *testing.T, text, status string) {
	t.Logf("%s: status %s\n%s", s.command, status, text)
	if status != strconv.Itoa(s.status) {
		t.Errorf("status %s, want %d", status, s.status)
	}
	for _, w := range s.want {
		if !regexp.MustCompile("(?m)" + w).MatchString(text) {
			t.Errorf("no %q", w)
		}
	}
	last := 0.0
	for _, m := range progressRE.FindAllStringSubmatch(text, -1) {
		now, err := strconv.ParseFloat(m[1], 64)
		if err != nil || now < last || now > 100 {
			t.Errorf("progress of %s after %v", m[1], last)
		}
		last = now
	}
}
