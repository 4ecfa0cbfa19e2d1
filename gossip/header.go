package gossip

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/hashicorp/go-msgpack/v2/codec"
)

// The beginning of memberlist's streams: labelByte, the label behind its length,
// and the type of the message. memberlist makes room for as much as a message
// promises, 20 MB or a million nodes, before it has read any of it. So the promise
// is read here first.
const (
	labelByte = 244

	typePing      = 0
	typePushPull  = 6
	typeUser      = 8
	typeEncrypted = 10

	// encryptionVersion is how the members of a cluster with a key encrypt. The byte
	// that says so is not authenticated. For the only other version, 0, memberlist takes
	// padding off that is not there, and panics: so one byte of a recorded message,
	// turned over, would end every node that it is sent to.
	encryptionVersion = 1

	maxHeader = 1 << 10 // bytes of it, behind the type
	readAhead = 512     // bytes that are read at once
	maxNodes  = 4096    // in an exchange of lists
	nodeSize  = 200     // bytes that memberlist takes for one of them
)

// headerRules is how the streams of members begin.
type headerRules struct {
	label     string
	encrypted bool
}

// read reads a header whose first byte was read already. It returns all that it
// has read, some of which may come after the header, and how many bytes memberlist
// makes room for at once.
func (h headerRules) read(first byte, r io.Reader) (head []byte, size int, err error) {
	read := bytes.NewBuffer([]byte{first})
	size, err = h.check(first, bufio.NewReaderSize(io.TeeReader(r, read), readAhead))
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return read.Bytes(), size, err
}

func (h headerRules) check(first byte, r io.Reader) (size int, err error) {
	if first != labelByte {
		return 0, errors.New("a stream without a label")
	}
	length, err := readBytes(r, 1)
	if err != nil {
		return 0, fmt.Errorf("the label of a stream: %w", err)
	}
	label, err := readBytes(r, int(length[0]))
	if err != nil {
		return 0, fmt.Errorf("the label of a stream: %w", err)
	}
	if string(label) != h.label {
		return 0, fmt.Errorf("a stream with label %q, this is %q", label, h.label)
	}
	kind, err := readBytes(r, 1)
	if err != nil {
		return 0, fmt.Errorf("the type of a stream: %w", err)
	}
	switch {
	case kind[0] == typeEncrypted && h.encrypted:
		return 0, checkEncrypted(r)
	case kind[0] == typeEncrypted:
		return 0, errors.New("a stream is encrypted, and there is no key")
	case h.encrypted:
		return 0, errors.New("a stream is not encrypted")
	}
	return promised(kind[0], r)
}

// checkEncrypted checks the length of an encrypted message. memberlist makes room
// for it while it reads.
func checkEncrypted(r io.Reader) error {
	length, err := readBytes(r, 4)
	if err != nil {
		return fmt.Errorf("the length of a stream: %w", err)
	}
	if n := binary.BigEndian.Uint32(length); n > maxStream {
		return fmt.Errorf("a stream of %d bytes; at most %d are allowed", n, maxStream)
	}
	version, err := readBytes(r, 1)
	if err != nil {
		return fmt.Errorf("the encryption of a stream: %w", err)
	}
	return checkEncryption("stream", version[0])
}

func checkEncryption(what string, version byte) error {
	if version != encryptionVersion {
		return fmt.Errorf("a %s with encryption %d; %d is allowed", what, version, encryptionVersion)
	}
	return nil
}

// checkPacket says whether memberlist may have a packet. All else it looks at
// itself.
func (h headerRules) checkPacket(packet []byte) error {
	message, labelled := bytes.CutPrefix(packet, append([]byte{labelByte, byte(len(h.label))}, h.label...))
	if !h.encrypted || !labelled || len(message) == 0 {
		return nil
	}
	return checkEncryption("packet", message[0])
}

// answerConn is a stream that memberlist has dialed. It answers an encrypted
// message by one, without a label.
type answerConn struct {
	net.Conn
	head    []byte // read already, to be read again
	checked bool
}

func (c *answerConn) Read(b []byte) (int, error) {
	if !c.checked {
		if err := c.check(); err != nil {
			return 0, err
		}
		c.checked = true
	}
	if len(c.head) > 0 {
		n := copy(b, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

func (c *answerConn) check() error {
	head, err := readBytes(c.Conn, 6) // type, length, version
	switch {
	case err != nil:
		return err
	case head[0] != typeEncrypted:
		return errors.New("an answer is not encrypted")
	}
	c.head = head
	return checkEncrypted(bytes.NewReader(head[1:]))
}

// What memberlist reads at the beginning of a message, in its types: it takes
// fields by name or by their order.
type (
	userHeader     struct{ UserMsgLen int }
	pushPullHeader struct {
		Nodes        int
		UserStateLen int
		Join         bool
	}
)

// promised returns the bytes that a message says it has.
func promised(kind byte, r io.Reader) (int, error) {
	dec := codec.NewDecoder(io.LimitReader(r, maxHeader), &codec.MsgpackHandle{})
	var user userHeader
	var pushPull pushPullHeader
	var err error
	switch kind {
	case typePing:
		return 0, nil
	case typeUser:
		err = dec.Decode(&user)
	case typePushPull:
		err = dec.Decode(&pushPull)
	default:
		err = fmt.Errorf("type %d", kind)
	}
	switch n := user.UserMsgLen + pushPull.UserStateLen; { // one of them is zero
	case err != nil:
		return 0, fmt.Errorf("the header of a stream: %w", err)
	case n < 0 || n > maxStream:
		return 0, fmt.Errorf("a stream of %d bytes; 0 to %d are allowed", n, maxStream)
	case pushPull.Nodes < 0 || pushPull.Nodes > maxNodes:
		return 0, fmt.Errorf("a list of %d nodes; 0 to %d are allowed", pushPull.Nodes, maxNodes)
	default:
		return n + pushPull.Nodes*nodeSize, nil
	}
}

func readBytes(r io.Reader, n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}
