package gossip

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/hashicorp/go-msgpack/v2/codec"

	"highlander/internal/claims"
	"highlander/internal/nodename"
)

// The decoders of what comes from others, or from the user; see also
// FuzzMeta, FuzzQuestion and FuzzReceive, and those of internal/claims. To look for
// more: go test ./gossip -run '^$' -fuzz '^FuzzHeader$' -fuzztime 2000000x (with a
// time in place of a number, Go may report its own deadline as a failure).

// FuzzWord: a word has one encoding only.
func FuzzWord(f *testing.F) {
	for _, kind := range []byte{wordGoodbye, wordDeparted, wordQuestion, wordAnswer} {
		f.Add(word{kind, 1, 2, 3, 4}.append(nil))
	}
	f.Add([]byte{wordGoodbye})
	f.Add([]byte("?abc"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 {
			return // NotifyMsg has looked
		}
		w, err := parseWord(data)
		if err == nil && !bytes.Equal(w.append(nil), data) {
			t.Errorf("%x is read as %+v", data, w)
		}
	})
}

// FuzzNodeName: a node has one name only, and nothing in it that a log or a
// terminal would stumble over.
func FuzzNodeName(f *testing.F) {
	f.Add("n#0123456789abcdef")
	f.Add("n#0123456789ABCDEF")
	f.Add("#0000000000000000")
	f.Add("a#b#0123456789abcdef")
	f.Add("n#+123456789abcdef")
	f.Add("a\x1b[2J#0123456789abcdef")
	f.Add(strings.Repeat("x", nodename.MaxLen+1) + "#0123456789abcdef")
	f.Fuzz(func(t *testing.T, full string) {
		name, incarnation, err := nodename.Split(full)
		if err != nil {
			return
		}
		if nodename.Join(name, incarnation) != full {
			t.Errorf("%q is taken for %q", full, nodename.Join(name, incarnation))
		}
		if err := (Config{Name: name}).checkNames(urlNames); err != nil {
			t.Error(err)
		}
	})
}

// FuzzHeader: what is let through is what memberlist would read, and it does not
// make room for more than is allowed.
func FuzzHeader(f *testing.F) {
	start := "\xf4\x0ahighlander"
	for _, rest := range []string{
		"", "\x00", "\x08\x81\xaaUserMsgLen\x05hello", "\x08\x81\xaaUserMsgLen\xce\x00\x3f\x00\x00", "\x08\x81\xaaUserMsgLen\xd3\xff\xff\xff\xff\xff\xff\xff\xff",
		"\x06\x83\xa5Nodes\xcd\x0f\xff\xacUserStateLen\x10\xa4Join\xc3", "\x06\x83\xa5Nodes\xff\xacUserStateLen\xff\xa4Join\xc3",
		"\x06\x83\xa5Nodes\xce\x7f\xff\xff\xff\xacUserStateLen\x00\xa4Join\xc3", "\x08\x91\x93\xc0\xc0\xc0", "\x0a\x00\x00\x00\x40\x01bc", "\x0a\x00\x00\x00\x40\x00bc", "\x0a\xff\xff\xff\xff", "\x09\x82",
	} {
		f.Add([]byte(start+rest), false)
		f.Add([]byte(start+rest), true)
	}
	f.Add([]byte("\xf4\x05greenabc"), false)
	f.Add([]byte("GET / HTTP/1.1\r\n"), false)
	f.Fuzz(func(t *testing.T, data []byte, encrypted bool) {
		if len(data) == 0 {
			return // dispatch waits for the first byte
		}
		rules := headerRules{label: DefaultLabel, encrypted: encrypted}
		head, size, err := rules.read(data[0], bytes.NewReader(data[1:]))
		if !bytes.HasPrefix(data, head) || len(head) > 2+255+1+maxHeader+readAhead {
			t.Fatalf("of %x it has read %x", data, head)
		}
		if err != nil {
			return
		}
		body, ok := bytes.CutPrefix(data, []byte(start))
		if !ok || (body[0] == typeEncrypted) != encrypted || size < 0 || size > 2*maxStream+maxNodes*nodeSize {
			t.Fatalf("%x is let through, size %d", data, size)
		}
		if encrypted && body[5] != encryptionVersion {
			t.Fatalf("%x is let through, which memberlist panics at", data)
		}
		if want := promisedToMemberlist(body); size != want {
			t.Errorf("%x: size %d, memberlist takes %d", data, size, want)
		}
	})
}

// promisedToMemberlist is what memberlist finds in a header that was let through.
func promisedToMemberlist(body []byte) (bytesAndNodes int) {
	dec := codec.NewDecoder(bytes.NewReader(body[1:]), &codec.MsgpackHandle{})
	switch body[0] {
	case typeUser:
		var header userHeader
		dec.Decode(&header)
		return header.UserMsgLen
	case typePushPull:
		var header pushPullHeader
		dec.Decode(&header)
		return header.UserStateLen + nodeSize*header.Nodes
	}
	return 0
}

// FuzzMerge: the state that comes with a list of members is a clock, whatever
// else it is.
func FuzzMerge(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 16))
	f.Add(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, 2), 1<<61))
	f.Add(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, 2), 1<<63))
	c := &Cluster{}
	c.dropped = &dropLog{log: slog.New(slog.DiscardHandler)}
	f.Fuzz(func(t *testing.T, state []byte) {
		a := newAgent(c, claims.Config{Self: 1})
		a.MergeRemoteState(state, true)
		a.runPosted()
		if hlc := a.machine.HLC(); hlc > 1<<62 {
			t.Errorf("%x takes the clock to %x", state, hlc)
		}
	})
}

// FuzzKeyFile: what is a key is of an allowed length, and is the same when it is
// read again; what is not is not told.
func FuzzKeyFile(f *testing.F) {
	f.Add("")
	f.Add("# one\n00112233445566778899aabbccddeeff\n")
	f.Add("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n00112233445566778899aabbccddeeff")
	f.Add("AAAA")
	f.Add("secretsecretsecretsecretsecretsecret")
	f.Add(strings.Repeat("x", 70_000))
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := parseKeys(strings.NewReader(text))
		if err != nil {
			for line := range strings.Lines(text) {
				if line = strings.TrimSpace(line); len(line) > 20 && strings.Contains(err.Error(), line) && !strings.Contains(errNoKey.Error(), line) {
					t.Errorf("%q tells %q", err, line)
				}
			}
			return
		}
		if len(keys) == 0 {
			t.Errorf("there is no key in %q, and no error", text)
		}
		if err := (Config{Keys: keys}).checkKeys(urlNames); err != nil {
			t.Error(err)
		}
	})
}

// FuzzURL: a cluster URL is a Config that Join takes, or an error of one line,
// without the password that was in it.
func FuzzURL(f *testing.F) {
	for _, u := range []string{
		"", "gossip://", "gossip://127.0.0.1:7946?join=a,b:1&name=n&label=l&expect=3&advertise=10.0.0.1:7946&observer=true&insecure=true",
		"gossip://[::1]:7946", "gossip://u:hunter2@h", "gossip://0.0.0.0:1?quorum=2&ttl=3s&insecure=true", "gossip://?key-file=/dev/zero",
		"gossip:x", "gossip://h/path#f", "gossip://?join=%zz", "gossip://?a;b", "etcd://h", "gossip://?expect=-1",
	} {
		f.Add(u)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		cfg, err := ParseURL(raw)
		if err == nil {
			if err := cfg.check(urlNames); err != nil {
				t.Errorf("%q is taken, and refused later: %v", raw, err)
			}
			return
		}
		if strings.ContainsAny(err.Error(), "\n\r\x1b") {
			t.Errorf("%q: %q is more than a line", raw, err)
		}
		if u, parseErr := url.Parse(raw); parseErr == nil && u.User != nil {
			if secret, _ := u.User.Password(); len(secret) > 3 && strings.Contains(err.Error(), secret) && !strings.Contains(u.Scheme+u.Host+u.RawQuery, secret) && !strings.Contains("a user is not allowed; keys are given as key-file=FILE", secret) {
				t.Errorf("%q tells the password", err)
			}
		}
	})
}
