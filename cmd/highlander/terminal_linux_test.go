package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal returns the two ends of a pseudo-terminal: what a person sits
// at, and what programs write to.
func openTerminal(t *testing.T, columns uint16) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { person.Close() })
	fd := int(person.Fd())
	must(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	must(t, err)
	must(t, unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}))
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { program.Close() })
	return person, program
}

// screen returns what a person sees of what was written to a terminal, line by
// line, trailing blanks left out.
func screen(t *testing.T, written string, columns int) []string {
	t.Helper()
	lines, x := [][]rune{nil}, 0
	for _, r := range written {
		last := len(lines) - 1
		switch {
		case r == '\r':
			x = 0
		case r == '\n':
			lines, x = append(lines, nil), 0
		case r < ' ':
			t.Fatalf("%q has a code that this terminal does not know", written)
		default:
			if x == columns {
				lines, x, last = append(lines, nil), 0, last+1
			}
			for len(lines[last]) <= x {
				lines[last] = append(lines[last], ' ')
			}
			lines[last][x] = r
			x++
		}
	}
	var seen []string
	for _, line := range lines {
		seen = append(seen, strings.TrimRight(string(line), " "))
	}
	return seen
}

// draw returns what is seen after show has written to a terminal.
func draw(t *testing.T, columns int, show func(*progress)) []string {
	t.Helper()
	person, program := openTerminal(t, uint16(columns))
	show(newProgress(program))
	fmt.Fprint(program, "END")
	var written strings.Builder
	for buffer := make([]byte, 4096); !strings.HasSuffix(written.String(), "END"); {
		n, err := person.Read(buffer)
		must(t, err)
		written.Write(buffer[:n])
	}
	return screen(t, written.String(), columns)
}

func TestProgressWritesOverItsLineInATerminal(t *testing.T) {
	for name, c := range map[string]struct {
		columns int
		show    func(*progress)
		want    string
	}{
		"a step":            {80, func(p *progress) { p.step("one ...") }, "one ...END"},
		"a shorter step":    {80, func(p *progress) { p.step("something long"); p.step("short") }, "shortEND"},
		"an update":         {80, func(p *progress) { p.step("one"); p.update("%d of 2", 1); p.update("2 of 2") }, "one: 2 of 2END"},
		"a line that stays": {80, func(p *progress) { p.step("one"); p.say("done with one"); p.step("two") }, "done with one\ntwoEND"},
		"the end":           {80, func(p *progress) { p.step("one"); p.update("x"); p.done() }, "END"},
		"the end twice":     {80, func(p *progress) { p.step("one"); p.done(); p.done() }, "END"},
		"a narrow terminal": {12, func(p *progress) { p.step("something that is long"); p.step("or longer than that"); p.done() }, "END"},
	} {
		t.Run(name, func(t *testing.T) {
			if seen := strings.Join(draw(t, c.columns, c.show), "\n"); seen != c.want {
				t.Errorf("one sees\n%s\nnot\n%s", seen, c.want)
			}
		})
	}
}

// As when its window is closed: nobody is left who could stop it.
func TestRunStopsWhenItsTerminalIsGone(t *testing.T) {
	t.Parallel()
	person, program := openTerminal(t, 80)
	pulse := newPulse(t)
	p := prepareNode(t, alone, foreverWithPulse, "--shutdown", "50ms")
	p.cmd.Env = append(p.cmd.Env, "PULSE="+pulse.path)
	p.cmd.Stdin = program
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	p.start()
	pulse.next("up")
	must(t, program.Close())
	must(t, person.Close())
	p.stderr.next("stopping at a signal", "hangup")
	pulse.stops()
	<-p.ended
}

// A SIGHUP alone is for the command, also in a terminal.
func TestRunPassesOnSIGHUPInATerminal(t *testing.T) {
	t.Parallel()
	_, program := openTerminal(t, 80)
	p := prepareNode(t, alone, "trap 'echo got HUP' HUP; echo up; while :; do sleep 1 & wait; done")
	p.cmd.Stdin = program
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	p.start()
	p.stdout.next("up")
	p.signal(syscall.SIGHUP)
	p.stdout.next("got HUP")
	p.signal(syscall.SIGTERM)
	p.exits(128 + 15)
	if strings.Contains(p.stderr.all(), "hangup") {
		t.Error("it took the signal for the end of its terminal")
	}
}
