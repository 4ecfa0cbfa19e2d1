package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// progress shows people what is going on: in a terminal one line that is
// written over, else plain lines.
type progress struct {
	w        io.Writer
	terminal bool
	current  string // the step
	width    int    // of what stands in the line, in a terminal
}

func newProgress(w io.Writer) *progress {
	f, ok := w.(*os.File)
	return &progress{w: w, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

// step begins something.
func (p *progress) step(format string, args ...any) {
	p.current = fmt.Sprintf(format, args...)
	if p.terminal {
		p.line(p.current)
	} else {
		fmt.Fprintln(p.w, p.current)
	}
}

// update says how far the step is; only a terminal shows it.
func (p *progress) update(format string, args ...any) {
	if p.terminal {
		p.line(p.current + ": " + fmt.Sprintf(format, args...))
	}
}

// say prints a line that stays.
func (p *progress) say(format string, args ...any) {
	p.done()
	fmt.Fprintf(p.w, format+"\n", args...)
}

// done clears the line.
func (p *progress) done() {
	if p.terminal && p.width > 0 {
		p.line("")
		fmt.Fprint(p.w, "\r")
		p.width = 0
	}
}

func (p *progress) line(text string) {
	fmt.Fprint(p.w, "\r", text, strings.Repeat(" ", max(0, p.width-len(text))))
	p.width = len(text)
}
