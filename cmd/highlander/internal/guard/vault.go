//go:build unix

package guard

import (
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// vault keeps connections of highlander open until nothing of the command is
// left. They lie in the queue of a socket that highlander, guard and keeper have
// open and nobody reads from: the kernel closes them when the last of the three
// is gone.
type vault struct {
	mu     sync.Mutex
	in     *os.File
	out    *os.File    // the helpers have it too
	held   map[int]int // what is to lie in the queue, descriptors of this process
	next   int
	inside bool // something lies in the queue
}

func newVault() (*vault, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		return nil, fmt.Errorf("make a vault for connections: %w", err)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return &vault{in: os.NewFile(uintptr(fds[0]), "vault in"), out: os.NewFile(uintptr(fds[1]), "vault"), held: map[int]int{}}, nil
}

func (v *vault) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.in.Close()
	v.out.Close()
	for _, fd := range v.held {
		unix.Close(fd)
	}
	v.held = nil
}

// put lays a connection into the vault.
func (v *vault) put(c net.Conn) (take func(), err error) {
	fd, err := descriptor(c)
	if err != nil {
		return nil, fmt.Errorf("lay a connection into the vault: %w", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.held == nil {
		unix.Close(fd)
		return nil, ErrClosed
	}
	n := v.next
	v.next++
	v.held[n] = fd
	if err := v.fill(); err != nil {
		delete(v.held, n)
		unix.Close(fd)
		return nil, fmt.Errorf("lay a connection into the vault: %w", err)
	}
	return func() { v.take(n) }, nil
}

func (v *vault) take(n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	fd, ok := v.held[n]
	if !ok {
		return
	}
	delete(v.held, n)
	unix.Close(fd)
	_ = v.fill() // else its peer hears of its end later, with ours
}

// fill puts all that is held into the queue, and then takes out what was there
// before: at every moment all is inside. The caller has the lock.
func (v *vault) fill() error {
	if len(v.held) > 0 {
		rights := unix.UnixRights(slices.Collect(maps.Values(v.held))...)
		if err := unix.Sendmsg(int(v.in.Fd()), []byte{0}, rights, nil, 0); err != nil {
			return err
		}
	}
	if v.inside {
		v.drop()
	}
	v.inside = len(v.held) > 0
	return nil
}

// drop takes the oldest message out of the queue, which closes what is in it.
func (v *vault) drop() {
	oob := make([]byte, unix.CmsgSpace(4*maxHeld))
	_, n, _, _, err := unix.Recvmsg(int(v.out.Fd()), make([]byte, 1), oob, unix.MSG_DONTWAIT)
	if err != nil {
		return
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		for i := range fds {
			if err == nil {
				unix.Close(fds[i])
			}
		}
	}
}

// maxHeld is how many descriptors the kernel sends at once.
const maxHeld = 253

// descriptor returns a copy of the descriptor of c.
func descriptor(c net.Conn) (fd int, err error) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return 0, fmt.Errorf("%T has no descriptor", c)
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlErr := raw.Control(func(original uintptr) {
		fd, err = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0)
	})
	if controlErr != nil {
		return 0, controlErr
	}
	return fd, err
}
