package gossip

import (
	"bytes"
	"io"
	"net"
	"testing"

	"github.com/hashicorp/memberlist"
)

func TestPacketsThatMemberlistPanicsAt(t *testing.T) {
	const label = "\xf4\x05green"
	encrypted, plain := headerRules{label: "green", encrypted: true}, headerRules{label: "green"}
	for _, test := range []struct {
		rules  headerRules
		packet string
		passes bool
	}{
		{encrypted, label + "\x01abc", true},
		{encrypted, label + "\x00abc", false},
		{encrypted, label + "\x02abc", false},
		{encrypted, label, true},             // memberlist finds it too short
		{encrypted, "\xf4\x03red\x00", true}, // memberlist finds that it is not for this cluster
		{encrypted, "", true},
		{plain, label + "\x00abc", true}, // a ping
	} {
		if err := test.rules.checkPacket([]byte(test.packet)); (err == nil) != test.passes {
			t.Errorf("%+v, %q: %v", test.rules, test.packet, err)
		}
	}
}

func TestAnswersThatMemberlistPanicsAt(t *testing.T) {
	for answer, want := range map[string]string{
		"\x0a\x00\x00\x00\x03\x01ab": "\x0a\x00\x00\x00\x03\x01ab",
		"\x0a\x00\x00\x00\x03\x00ab": "",
		"\x0a\xff\x00\x00\x03\x01ab": "",
		"\x06\x83\xa5Nodes":          "",
		"\x0a\x00":                   "",
	} {
		here, there := net.Pipe()
		go func() {
			io.WriteString(there, answer)
			there.Close()
		}()
		got, err := io.ReadAll(&answerConn{Conn: here})
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%q is read as %q, %v", answer, got, err)
		}
		here.Close()
	}
}

// With a key, what memberlist dials is looked at, and what the tripwire dials is not.
func TestAnswersAreCheckedWhereThereIsAKey(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	inner, err := bindTo("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := newMuxTransport(inner, headerRules{label: "green", encrypted: true}, nil, nil, func(string) {})
	defer transport.Shutdown()
	dial := func(f func(memberlist.Address) (net.Conn, error)) (got []byte, err error) {
		served := make(chan struct{})
		go func() {
			defer close(served)
			if conn, err := listener.Accept(); err == nil {
				conn.Write([]byte("\x0a\x00\x00\x00\x03\x00ab"))
				conn.Close()
			}
		}()
		conn, err := f(memberlist.Address{Addr: listener.Addr().String()})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		got, err = io.ReadAll(conn)
		<-served
		return got, err
	}
	if got, err := dial(func(a memberlist.Address) (net.Conn, error) { return transport.DialAddressTimeout(a, sendTimeout) }); err == nil {
		t.Errorf("memberlist is given %q", got)
	}
	if got, err := dial(func(a memberlist.Address) (net.Conn, error) { return transport.dialStream(a, sendTimeout) }); err != nil || !bytes.HasSuffix(got, []byte("ab")) {
		t.Errorf("the tripwire is given %q, %v", got, err)
	}
}
