//go:build unix

package guard

import (
	"encoding/gob"
	"io"
	"os"
	"syscall"
	"time"
)

// Messages go down, from highlander to the guard and on to the keeper, and up,
// from the keeper to the guard and to highlander. A pipe that ends says that
// the process at its other end is gone.
type message struct {
	Kind kind
	Run  uint64 // counts the commands of one keeper

	// msgStart
	Path      string
	Args, Env []string
	Dir       string
	Shutdown  time.Duration

	Deadline instant        // msgDeadline: when to kill; zero for never
	Signal   syscall.Signal // msgSignal; msgExited: what killed it
	PID      int            // msgReady: the keeper; msgStarted: the command, and its group
	InCgroup bool           // msgStarted: the command has a cgroup of its own
	Errno    syscall.Errno  // msgFailed
	Code     int            // msgExited
	Expired  bool           // msgGone: killed at the deadline; msgFailed: too late to start
	Others   bool           // msgExited: processes it forked are still there

	Certificate Certificate // msgCertificate
}

type kind uint8

const (
	// Downwards.
	msgStart       kind = iota + 1 // start a command
	msgDeadline                    // until when the command may live, this and all later ones
	msgSignal                      // signal the command's group; SIGKILL ends all of it
	msgStop                        // SIGTERM, and after Shutdown SIGKILL
	msgCertificate                 // what the guard says when highlander is dead; not for the keeper

	// Upwards.
	msgReady   // the keeper is there
	msgStarted // the command runs
	msgFailed  // the command could not be started
	msgExited  // its main process ended
	msgGone    // nothing of it is left
)

// writeTimeout is how long a full pipe is waited for: whoever should read from
// it is frozen, and may as well be dead.
const writeTimeout = time.Second

// sender writes messages to a pipe; one goroutine at a time.
type sender struct {
	pipe *os.File
	enc  *gob.Encoder
}

func newSender(pipe *os.File) *sender { return &sender{pipe: pipe, enc: gob.NewEncoder(pipe)} }

func (s *sender) send(m message) error {
	// Not every pipe knows deadlines; those without block.
	_ = s.pipe.SetWriteDeadline(time.Now().Add(writeTimeout))
	return s.enc.Encode(m)
}

// receive returns the messages from r. The channel is closed when r ends, also
// in the middle of a message: the sender is gone then.
func receive(r io.Reader) <-chan message {
	messages := make(chan message)
	go func() {
		defer close(messages)
		dec := gob.NewDecoder(r)
		for {
			var m message
			if dec.Decode(&m) != nil {
				return
			}
			messages <- m
		}
	}()
	return messages
}

// exitOf puts what the operating system says into the terms of a shell.
func exitOf(code int, signal syscall.Signal) Exit {
	if signal != 0 {
		code = 128 + int(signal)
	}
	return Exit{Code: code, Signal: signal}
}
