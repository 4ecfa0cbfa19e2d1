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
	terminal *os.File // nil if w is none
	current  string   // the step
	width    int      // of what stands in the line, in a terminal
}

func newProgress(w io.Writer) *progress {
	return &progress{w: w, terminal: terminalOf(w)}
}

// terminalOf returns the terminal that w writes to, or nil.
func terminalOf(w io.Writer) *os.File {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}

// step begins something.
func (p *progress) step(format string, args ...any) {
	p.current = fmt.Sprintf(format, args...)
	if p.terminal != nil {
		p.line(p.current)
	} else {
		fmt.Fprintln(p.w, p.current)
	}
}

// update says how far the step is; only a terminal shows it.
func (p *progress) update(format string, args ...any) {
	if p.terminal != nil {
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
	if p.terminal != nil && p.width > 0 {
		p.line("")
	}
}

// line writes text over what stands in the line. It must not wrap: what is in
// the line above could not be written over.
func (p *progress) line(text string) {
	if columns, _, err := term.GetSize(int(p.terminal.Fd())); err == nil && columns > 0 && len(text) >= columns {
		text = text[:columns-1]
	}
	fmt.Fprint(p.w, "\r"+strings.Repeat(" ", p.width)+"\r"+text)
	p.width = len(text)
}
