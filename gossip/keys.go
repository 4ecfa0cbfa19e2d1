package gossip

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// keyFileEvery is how often the key file is looked at. It is small: reading it
// each time leaves nothing to chance that a stat might not tell.
const keyFileEvery = time.Second

// keys are the keys in use, and follow the file that they come from. All methods
// may be called concurrently.
type keys struct {
	ring *memberlist.Keyring // nil: nothing is encrypted
	path string              // empty: the keys are fixed
	log  *slog.Logger

	stopWatch context.CancelFunc
	watching  sync.WaitGroup

	mu      sync.Mutex
	list    [][]byte
	changed chan struct{} // closed when list changes
}

// newKeys returns the keys that cfg says; it is checked, but the file may have
// changed since.
func newKeys(cfg Config, log *slog.Logger) (*keys, error) {
	k := &keys{path: cfg.KeyFile, log: log, list: cfg.Keys, changed: make(chan struct{})}
	if k.path != "" {
		var err error
		if k.list, err = readKeyFile(k.path); err != nil {
			return nil, fmt.Errorf("gossip: Config.KeyFile %s: %w", k.path, err)
		}
	}
	if len(k.list) > 0 {
		k.ring, _ = memberlist.NewKeyring(k.list, k.list[0]) // the keys were checked
	}
	return k, nil
}

// current returns the keys, the one that encrypts first, and a channel that is
// closed when they change. There are none where nothing is encrypted.
func (k *keys) current() ([][]byte, <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.list, k.changed
}

// start follows the file until stop.
func (k *keys) start() {
	ctx, cancel := context.WithCancel(context.Background())
	k.stopWatch = cancel
	if k.path != "" {
		k.watching.Go(func() { k.watch(ctx) })
	}
}

// stop ends what start has started, and waits.
func (k *keys) stop() {
	k.stopWatch()
	k.watching.Wait()
}

func (k *keys) watch(ctx context.Context) {
	tick := time.NewTicker(keyFileEvery)
	defer tick.Stop()
	wrong := "" // with the file, as logged last
	for {
		select {
		case <-tick.C:
			wrong = k.look(wrong)
		case <-ctx.Done():
			return
		}
	}
}

// look reads the file and uses the keys in it. It returns what is wrong with it,
// which is logged if it is not what was wrong before.
func (k *keys) look(before string) (wrong string) {
	list, err := readKeyFile(k.path)
	switch {
	case errors.Is(err, errNoKey):
		err = fmt.Errorf("%w; encryption cannot be switched off while the node runs", err)
	case err == nil:
		if k.use(list) {
			k.log.Info("changed the keys", "file", k.path, "keys", len(list), "first", fingerprint(list[0]))
		} else if before != "" {
			k.log.Info("the key file is in order again", "file", k.path)
		}
		return ""
	}
	if err.Error() != before {
		k.log.Error("cannot use the key file; the keys stay as they are", "file", k.path, "error", err)
	}
	return err.Error()
}

// use makes list the keys, and returns whether that changes anything.
func (k *keys) use(list [][]byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if slices.EqualFunc(list, k.list, bytes.Equal) {
		return false
	}
	setKeys(k.ring, list)
	k.list = list
	close(k.changed)
	k.changed = make(chan struct{})
	return true
}

// setKeys makes list the keys on a ring that is in use: new ones decrypt before
// one of them encrypts, and none goes before that.
func setKeys(ring *memberlist.Keyring, list [][]byte) {
	add := func() {
		for _, key := range list {
			ring.AddKey(key) // does nothing if it is there; the keys were checked
		}
	}
	add()
	ring.UseKey(list[0])

	// memberlist removes a key by moving those behind it, in a slice that others
	// read. Only to remove the last one touches nothing. So what comes behind a key
	// that goes is taken off, too, and is back in microseconds; in a rotation in
	// steps, the key that goes is the last one.
	have := ring.GetKeys()
	isGone := func(key []byte) bool {
		return !slices.ContainsFunc(list, func(kept []byte) bool { return bytes.Equal(key, kept) })
	}
	if first := slices.IndexFunc(have, isGone); first >= 0 {
		for _, key := range slices.Backward(have[first:]) {
			ring.RemoveKey(key)
		}
		add()
	}
}

// fingerprint tells keys from each other without telling them: the first 8
// digits of the SHA-256.
func fingerprint(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:4])
}
