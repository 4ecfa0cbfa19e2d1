//go:build unix

package guard

import (
	"bytes"
	"encoding/gob"
	"reflect"
	"syscall"
	"testing"
	"time"
)

// FuzzMessages: what comes from a pipe is messages, or its end; a process at the
// other end that was killed in the middle of one, or went mad, takes nobody along.
func FuzzMessages(f *testing.F) {
	encoded := func(messages ...message) []byte {
		var b bytes.Buffer
		enc := gob.NewEncoder(&b)
		for _, m := range messages {
			if err := enc.Encode(m); err != nil {
				f.Fatal(err)
			}
		}
		return b.Bytes()
	}
	all := encoded(
		message{Kind: msgStart, Run: 1, Path: "/bin/sh", Args: []string{"sh", "-c", "exit 3"}, Env: []string{"A=b"}, Dir: "/", Shutdown: time.Second},
		message{Kind: msgDeadline, Deadline: 1 << 40},
		message{Kind: msgSignal, Run: 1, Signal: syscall.SIGTERM},
		message{Kind: msgExited, Run: 1, Code: 3, Others: true},
		message{Kind: msgCertificate, Certificate: Certificate{Frame: []byte("frame"), Peers: []string{"127.0.0.1:7946"}}},
	)
	f.Add(all)
	f.Add(all[:len(all)/2])
	f.Add([]byte{})
	f.Add([]byte{0xf8, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}) // a message of 2^63 bytes
	f.Fuzz(func(t *testing.T, data []byte) {
		var got []message
		for m := range receive(bytes.NewReader(data)) {
			got = append(got, m)
			var b bytes.Buffer
			var again message
			if err := gob.NewEncoder(&b).Encode(m); err != nil {
				t.Fatalf("%+v cannot be passed on: %v", m, err)
			}
			if err := gob.NewDecoder(&b).Decode(&again); err != nil || !reflect.DeepEqual(m, again) {
				t.Fatalf("%+v comes out as %+v, %v", m, again, err)
			}
		}
		if bytes.Equal(data, all) && len(got) != 5 {
			t.Errorf("of 5 messages %d came", len(got))
		}
	})
}
