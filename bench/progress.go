package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// progress says what is going on: in a terminal in one line that is written
// over, else in a line for each step.
type progress struct {
	w        io.Writer
	terminal *os.File // nil if w is none
	current  string   // the step
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.terminal = f
	}
	return p
}

// step begins something.
func (p *progress) step(format string, args ...any) {
	p.current = fmt.Sprintf(format, args...)
	if p.terminal == nil {
		fmt.Fprintln(p.w, p.current)
		return
	}
	p.write(p.current)
}

// update says how far the step is; only a terminal shows it.
func (p *progress) update(format string, args ...any) {
	if p.terminal != nil {
		p.write(p.current + ": " + fmt.Sprintf(format, args...))
	}
}

// done clears the line.
func (p *progress) done() {
	if p.terminal != nil {
		p.write("")
	}
}

const clearLine = "\r\x1b[K"

// write must not fill the line: what has wrapped could not be written over.
func (p *progress) write(text string) {
	if columns, _, err := term.GetSize(int(p.terminal.Fd())); err == nil && columns > 0 && len(text) >= columns {
		text = text[:columns-1]
	}
	fmt.Fprint(p.terminal, clearLine+text)
}
