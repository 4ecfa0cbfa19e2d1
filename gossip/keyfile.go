package gossip

import (
	"bufio"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
)

// maxKeyFile is the size of the largest key file, in bytes.
const maxKeyFile = 64 << 10

var errNoKey = errors.New("there is no key in it; one per line is needed, 16, 24 or 32 bytes in base64 or hex")

// readKeyFile returns the keys in a file, at least one.
func readKeyFile(path string) ([][]byte, error) {
	keys, err := readKeys(path)
	if detail := new(fs.PathError); errors.As(err, &detail) {
		err = detail.Err // whoever asked knows the path
	}
	return keys, err
}

func readKeys(path string) ([][]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // opening a pipe would block
		return nil, errors.New("it is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := checkPrivate(f); err != nil {
		return nil, err
	}
	return parseKeys(io.LimitReader(f, maxKeyFile))
}

// checkPrivate refuses a file that others than its owner can get at, where the
// mode tells.
func checkPrivate(f *os.File) error {
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case info.Size() > maxKeyFile:
		return fmt.Errorf("it has %d bytes; at most %d are allowed", info.Size(), maxKeyFile)
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("its mode is %04o, others can get at the keys; run: chmod 600 %s", info.Mode().Perm(), f.Name())
	}
	return nil
}

func parseKeys(r io.Reader) ([][]byte, error) {
	var keys [][]byte
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, err := parseKey(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		keys = append(keys, key)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, errNoKey
	}
	return keys, nil
}

// parseKey takes what can be hex for hex: 32 digits could be base64 as well,
// but a random key in base64 never looks like that.
func parseKey(line string) ([]byte, error) {
	key, err := hex.DecodeString(line)
	if err != nil {
		key, err = base64.StdEncoding.DecodeString(line)
	}
	switch {
	case err != nil: // which would show a part of the key
		return nil, errors.New("it is neither base64 nor hex")
	case len(key) != 16 && len(key) != 24 && len(key) != 32:
		return nil, fmt.Errorf("the key has %d bytes; 16, 24 and 32 are allowed", len(key))
	}
	return key, nil
}
