//go:build linux

package lab

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// crashMode makes the test binary a lab that waits to be killed.
const crashMode = "__lab-crash"

// stubborn is a child that does not go by itself.
var stubborn = Child{Deaf: true, Forks: 1, DeafFork: true, Sessions: true}

func TestNothingSurvivesALab(t *testing.T) {
	l := newLab(t, Config{Nodes: 2, Shutdown: time.Second})
	for _, n := range l.Nodes {
		must(t, n.Start(stubborn))
	}
	one, err := l.AwaitOne(within(t))
	must(t, err)
	_, err = l.Node(one).Freeze(Highlander, Guard, Keeper)
	must(t, err)
	if len(l.marked()) < 4 { // highlander, guard, keeper, child
		t.Fatalf("the lab consists of %v", l.marked())
	}
	l.Close()
	if left := l.marked(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestTheNextLabSweepsUpAfterACrash(t *testing.T) {
	needLab(t)
	cmd := exec.Command(os.Args[0], crashMode, binary(t), t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	said, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the lab that is to crash: %v", err)
	}
	mark := strings.TrimSpace(said)
	isIts := func(found string) bool { return found == mark }
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // killed
	if len(marked(isIts)) == 0 {
		t.Fatal("the crash left nothing behind, and this test shows nothing")
	}
	for len(marked(isIts)) > 0 {
		sweepStale() // what it kills is gone a moment later
	}
}

// crashMain builds a lab of which something survives its crash: a frozen guard
// and keeper, whose child is on its own when highlander is killed.
func crashMain() {
	if len(os.Args) != 4 || os.Args[1] != crashMode {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), safetyNet)
	defer cancel()
	l, err := New(Config{Nodes: 1, Shutdown: time.Second, Binary: os.Args[2], Dir: os.Args[3]})
	if err == nil {
		err = l.Nodes[0].Start(stubborn)
	}
	if err == nil {
		err = l.Await(ctx, "a child", func(running []Line) bool { return len(running) == 1 })
	}
	if err == nil {
		_, err = l.Nodes[0].Freeze(Guard, Keeper)
	}
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Stdout.WriteString(l.mark + "\n")
	unix.Pause()
}
