package highlander

import (
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// MaxIDLen is the length of the longest id, in bytes.
const MaxIDLen = 255

// ValidateID reports what is wrong with an id, in one line that matches
// ErrInvalidID; nil if nothing is. Engines call it first in Acquire and Lookup.
func ValidateID(id string) error {
	switch {
	case id == "":
		return fmt.Errorf("%w: it is empty; 1 to %d bytes of UTF-8 are allowed", ErrInvalidID, MaxIDLen)
	case len(id) > MaxIDLen:
		return fmt.Errorf("%w %.20q...: it has %d bytes; at most %d are allowed", ErrInvalidID, id, len(id), MaxIDLen)
	}
	if err := checkText(id); err != nil {
		return fmt.Errorf("%w %q: %w", ErrInvalidID, id, err)
	}
	return nil
}

// MaxMetaLen is the length of the longest ChildSpec.Meta, in bytes of UTF-8
// without control characters.
const MaxMetaLen = 512

// validateMeta reports what is wrong with a Meta, in one line; nil if nothing is.
func validateMeta(meta string) error {
	if len(meta) > MaxMetaLen {
		return fmt.Errorf("it has %d bytes; at most %d are allowed", len(meta), MaxMetaLen)
	}
	if err := checkText(meta); err != nil {
		return fmt.Errorf("%.60q: %w", meta, err)
	}
	return nil
}

// checkText returns an error for what servers refuse to store and what would
// break a line of a log or a table.
func checkText(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("it is not UTF-8")
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return fmt.Errorf("control character %U is not allowed", r)
		}
	}
	return nil
}
