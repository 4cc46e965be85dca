package namespace

import (
	"regexp"
	"strings"

	"github.com/ashlar-storage/ashlar/metaserver/internal/refuse"
	"github.com/ashlar-storage/ashlar/storage/iscsiname"
)

// AnyInitiator is the name in an access list that stands for every initiator.
const AnyInitiator = "*"

// The three types of iSCSI names, after folding to lower case (RFC 7143 sections 4.2.7.3 to 4.2.7.5).
var (
	iqnForm = regexp.MustCompile(`^iqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[a-z0-9]([a-z0-9.\-]*[a-z0-9])?(:[a-z0-9.:\-]+)?$`)
	euiForm = regexp.MustCompile(`^eui\.[0-9a-f]{16}$`)
	naaForm = regexp.MustCompile(`^naa\.([0-9a-f]{16}|[0-9a-f]{32})$`)
)

var volumeForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._\-]*$`)

func checkVolumeName(name string) error {
	switch {
	case name == "":
		return refuse.As(refuse.Invalid, "a volume has a name")
	case len(name) > nameMax:
		return refuse.As(refuse.Invalid, "the name of a volume has at most %d bytes, this one has %d", nameMax, len(name))
	case !volumeForm.MatchString(name):
		return refuse.As(refuse.Invalid, "%q can not be the name of a volume: it begins with a letter or digit, then come letters, "+
			"digits, '.', '_' and '-'", name)
	}
	return nil
}

// TargetName checks an iSCSI name and folds it to lower case, as RFC 7143 section 4.2.7.2 asks for names that are typed in.
// Characters beyond ASCII, which the RFC permits after stringprep, are refused.
func TargetName(name string) (string, error) {
	low := strings.ToLower(name)
	switch {
	case name == "":
		return "", refuse.As(refuse.Invalid, "the target's name is missing")
	case len(name) > iscsiname.Max:
		return "", refuse.As(refuse.Invalid, "an iSCSI name has at most %d bytes, this one has %d", iscsiname.Max, len(name))
	case strings.HasPrefix(low, "eui."):
		if !euiForm.MatchString(low) {
			return "", refuse.As(refuse.Invalid, "%q is not an iSCSI name: after \"eui.\" come 16 hexadecimal digits", name)
		}
	case strings.HasPrefix(low, "naa."):
		if !naaForm.MatchString(low) {
			return "", refuse.As(refuse.Invalid, "%q is not an iSCSI name: after \"naa.\" come 16 or 32 hexadecimal digits", name)
		}
	case !iqnForm.MatchString(low):
		return "", refuse.As(refuse.Invalid, "%q is not an iSCSI name: it looks like iqn.2026-11.com.example:name "+
			"(year and month, reversed domain, colon, letters, digits, '.', '-', ':'), eui.… or naa.…", name)
	}
	return low, nil
}

// InitiatorName checks the name of an initiator and folds it to lower case. What a gateway lets in is taken here too (package
// iscsiname): hosts have names that no target should have.
func InitiatorName(name string) (string, error) {
	low, ok := iscsiname.Fold(name)
	switch {
	case name == "":
		return "", refuse.As(refuse.Invalid, "the initiator's name is missing")
	case len(name) > iscsiname.Max:
		return "", refuse.As(refuse.Invalid, "an iSCSI name has at most %d bytes, this one has %d", iscsiname.Max, len(name))
	case !ok:
		return "", refuse.As(refuse.Invalid, "%q is not an iSCSI name: it looks like iqn.2026-11.com.example:name, without spaces, "+
			"',' and '=', or like eui. and 16, or naa. and 16 or 32 hexadecimal digits", name)
	}
	return low, nil
}
