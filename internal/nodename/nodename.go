// Package nodename makes the names of nodes, NAME#INCARNATION: NAME is what the
// user calls the node, by default its host, and INCARNATION is random, so that two
// processes of one host differ, and a process from the one before it.
package nodename

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxLen is the length of the longest NAME, in bytes.
const MaxLen = 128

// Check returns what is wrong with a NAME; nil if nothing is. The error calls it
// by the field that the user wrote it in.
func Check(field, name string) error {
	switch {
	case len(name) > MaxLen:
		return fmt.Errorf("%s has %d bytes; at most %d are allowed", field, len(name), MaxLen)
	case strings.ContainsFunc(name, isForbidden):
		return fmt.Errorf("%s %q: '#', spaces and control characters are not allowed", field, name)
	case !utf8.ValidString(name):
		return fmt.Errorf("%s %q is not UTF-8", field, name)
	}
	return nil
}

func isForbidden(r rune) bool { return r == '#' || unicode.IsControl(r) || unicode.IsSpace(r) }

// OrHost returns the NAME that the user has given, or that of the host.
func OrHost(field, name string) (string, error) {
	if name != "" {
		return name, Check(field, name)
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("%s is empty and the host name is not known: %w", field, err)
	}
	return host, Check("the name of the host", host)
}

// NewIncarnation returns one.
func NewIncarnation() uint64 {
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // it does not fail
	return binary.BigEndian.Uint64(seed[:])
}

// Join returns NAME#INCARNATION.
func Join(name string, incarnation uint64) string { return fmt.Sprintf("%s#%016x", name, incarnation) }

// Split is the reverse of Join, for a NAME that Check allows.
func Split(full string) (name string, incarnation uint64, err error) {
	name, text, _ := strings.Cut(full, "#")
	incarnation, err = strconv.ParseUint(text, 16, 64)
	if err != nil || Join(name, incarnation) != full {
		return "", 0, fmt.Errorf("node name %q is not NAME#INCARNATION", full)
	}
	if err := Check("node name", name); err != nil {
		return "", 0, err
	}
	return name, incarnation, nil
}
