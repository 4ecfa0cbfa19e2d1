//go:build linux

package lab

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Link is what one direction between two nodes does to frames. The zero Link
// is a good one.
type Link struct {
	Cut    bool
	Loss   float64       // share of frames that vanish
	Delay  time.Duration // of every frame ...
	Jitter time.Duration // ... and up to so much more, so that they overtake each other
}

// with returns the worst of two links.
func (l Link) with(m Link) Link {
	return Link{Cut: l.Cut || m.Cut, Loss: max(l.Loss, m.Loss), Delay: max(l.Delay, m.Delay), Jitter: max(l.Jitter, m.Jitter)}
}

// Switch moves frames between the nodes' TAP devices. Its methods may be called
// concurrently.
type Switch struct {
	ports   []*os.File
	readers sync.WaitGroup
	closing atomic.Bool
	frames  atomic.Int64 // carried

	mu     sync.Mutex
	random *rand.Rand
	links  [][]Link       // from, to
	addrs  []hardwareAddr // of the ports, as learned from what they sent
}

// headerLen is the length of an Ethernet header, which begins with the address
// of the destination and that of the source.
const headerLen = 14

// hardwareAddr is an Ethernet address.
type hardwareAddr [6]byte

// newSwitch starts a switch between TAP devices.
func newSwitch(seed uint64, taps []*os.File) *Switch {
	s := &Switch{ports: taps, random: rand.New(rand.NewPCG(seed, 0)), addrs: make([]hardwareAddr, len(taps))}
	for range taps {
		s.links = append(s.links, make([]Link, len(taps)))
	}
	for from, tap := range taps {
		s.readers.Go(func() { s.read(from, tap) })
	}
	return s
}

// Set replaces all links: link says what the one between two nodes is like.
func (s *Switch) Set(link func(from, to int) Link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for from := range s.links {
		for to := range s.links[from] {
			s.links[from][to] = link(from, to)
		}
	}
}

// Frames returns how many frames were carried.
func (s *Switch) Frames() int64 { return s.frames.Load() }

// close ends the switch; the devices vanish. Frames under way are lost.
func (s *Switch) close() {
	s.closing.Store(true)
	for _, tap := range s.ports {
		tap.Close()
	}
	s.readers.Wait()
}

func (s *Switch) read(from int, tap *os.File) {
	frame := make([]byte, 2048)
	for {
		n, err := tap.Read(frame)
		if s.closing.Load() {
			return
		}
		if err != nil {
			panic(fmt.Sprintf("lab: the device of node %d: %v", from, err))
		}
		if n < headerLen {
			continue
		}
		for _, to := range s.route(from, hardwareAddr(frame[:6]), hardwareAddr(frame[6:12])) {
			s.carry(from, to, frame[:n])
		}
	}
}

// route returns the ports for a frame: all others, if it is for all or for
// somebody who has not sent anything yet.
func (s *Switch) route(from int, dst, src hardwareAddr) []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addrs[from] = src
	if to := slices.Index(s.addrs, dst); to >= 0 && to != from {
		return []int{to}
	}
	var all []int
	for to := range s.ports {
		if to != from {
			all = append(all, to)
		}
	}
	return all
}

// carry sends a frame on its way, or not.
func (s *Switch) carry(from, to int, frame []byte) {
	s.mu.Lock()
	link := s.links[from][to]
	lost := link.Cut || link.Loss > 0 && s.random.Float64() < link.Loss
	delay := link.Delay
	if link.Jitter > 0 {
		delay += time.Duration(s.random.Int64N(int64(link.Jitter)))
	}
	s.mu.Unlock()
	if lost {
		return
	}
	s.frames.Add(1)
	if delay == 0 {
		s.deliver(from, to, frame)
		return
	}
	late := bytes.Clone(frame)
	time.AfterFunc(delay, func() { s.deliver(from, to, late) })
}

// deliver hands a frame to its destination, unless the cable was cut while it
// was under way.
func (s *Switch) deliver(from, to int, frame []byte) {
	s.mu.Lock()
	cut := s.links[from][to].Cut
	s.mu.Unlock()
	if !cut {
		// What the kernel does not take is lost, as on any cable.
		_, _ = s.ports[to].Write(frame)
	}
}
