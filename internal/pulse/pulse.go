// Package pulse tells tests how late everything is on a busy machine: a deadline
// that was missed by no more than that was missed by the machine.
package pulse

import (
	"sync"
	"time"
)

const (
	every = 10 * time.Millisecond
	keep  = time.Minute // how long a beat that was late is remembered
)

// Pulse is a goroutine that wants to run every few milliseconds, and notes when it
// was late. All methods may be called concurrently.
type Pulse struct {
	stop   chan struct{}
	beaten sync.WaitGroup

	mu   sync.Mutex
	last time.Time
	late []beat // the oldest first
}

// beat is one that was late.
type beat struct {
	at time.Time
	by time.Duration
}

// Start starts a pulse, which runs until Stop.
func Start() *Pulse {
	p := &Pulse{stop: make(chan struct{}), last: time.Now()}
	p.beaten.Go(p.run)
	return p
}

// Stop ends the pulse, and waits. It is called once.
func (p *Pulse) Stop() {
	close(p.stop)
	p.beaten.Wait()
}

func (p *Pulse) run() {
	next := time.NewTimer(every)
	defer next.Stop()
	for {
		select {
		case <-next.C:
			p.beat(time.Now())
			next.Reset(every)
		case <-p.stop:
			return
		}
	}
}

func (p *Pulse) beat(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if by := now.Sub(p.last) - every; by > 0 {
		p.late = append(p.late, beat{now, by})
	}
	p.last = now
	for len(p.late) > 0 && now.Sub(p.late[0].at) > keep {
		p.late = p.late[1:]
	}
}

// Late returns by how much beats were late from a moment, which is not long ago, until
// now: all of them together, as what is done in several steps is late with each.
func (p *Pulse) Late(since time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	sum := max(0, time.Since(p.last)-every)
	for _, b := range p.late {
		if b.at.After(since) {
			sum += min(b.by, b.at.Sub(since))
		}
	}
	return sum
}
