package gossip_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"highlander"
	"highlander/gossip"
)

func TestConfigSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 300)
	key := make([]byte, 16)
	loopback := "127.0.0.1:0"
	for _, test := range []struct {
		cfg  gossip.Config
		want string
	}{
		{gossip.Config{Bind: loopback, Name: long}, `Config.Name has 300 bytes; at most 128 are allowed`},
		{gossip.Config{Bind: loopback, Name: "a#b"}, `Config.Name "a#b": '#', spaces and control characters are not allowed`},
		{gossip.Config{Bind: loopback, Name: "a b"}, `Config.Name "a b": '#', spaces and control characters are not allowed`},
		{gossip.Config{Bind: loopback, Name: "a\x00"}, `Config.Name "a\x00": '#', spaces and control characters are not allowed`},
		{gossip.Config{Bind: loopback, Name: "a\xff"}, `Config.Name "a\xff" is not UTF-8`},
		{gossip.Config{Bind: loopback, Label: long}, `Config.Label has 300 bytes; at most 255 are allowed`},

		{gossip.Config{Bind: "127.0.0.1"}, `Config.Bind "127.0.0.1": IP:PORT is allowed`},
		{gossip.Config{Bind: ":7946"}, `Config.Bind ":7946": "" is not an IP address; IP:PORT is allowed`},
		{gossip.Config{Bind: "localhost:7946"}, `Config.Bind "localhost:7946": "localhost" is not an IP address; IP:PORT is allowed`},
		{gossip.Config{Bind: "127.0.0.1:x"}, `Config.Bind "127.0.0.1:x": port "x": 0 to 65535 is allowed`},
		{gossip.Config{Bind: "127.0.0.1:65536"}, `Config.Bind "127.0.0.1:65536": port "65536": 0 to 65535 is allowed`},
		{gossip.Config{Bind: "0.0.0.0:0"}, `Config.Bind 0.0.0.0:0 is reachable from other machines, and there is no key; set Config.Keys, or Config.Insecure to do without`},
		{gossip.Config{Bind: "[::]:7946", Keys: [][]byte{key}}, `Config.Advertise is empty, and nobody can reach Config.Bind [::]:7946; an IP:PORT is needed`},
		{gossip.Config{Bind: "192.0.2.1:7946", Insecure: true}, `cannot listen on Config.Bind 192.0.2.1:7946: cannot assign requested address`},

		{gossip.Config{Bind: loopback, Advertise: "10.0.0.1"}, `Config.Advertise "10.0.0.1": IP:PORT is allowed`},
		{gossip.Config{Bind: loopback, Advertise: "host:7946"}, `Config.Advertise "host:7946": "host" is not an IP address; IP:PORT is allowed`},
		{gossip.Config{Bind: loopback, Advertise: "10.0.0.1:0"}, `Config.Advertise "10.0.0.1:0": others cannot reach that; an IP and a port other than 0 are needed`},
		{gossip.Config{Bind: loopback, Advertise: "0.0.0.0:7946"}, `Config.Advertise "0.0.0.0:7946": others cannot reach that; an IP and a port other than 0 are needed`},

		{gossip.Config{Bind: loopback, Join: []string{"a", ""}}, `Config.Join "": it is empty; HOST and HOST:PORT are allowed`},
		{gossip.Config{Bind: loopback, Join: []string{":7946"}}, `Config.Join ":7946": the host is missing; HOST and HOST:PORT are allowed`},
		{gossip.Config{Bind: loopback, Join: []string{"a:b"}}, `Config.Join "a:b": port "b": 0 to 65535 is allowed; HOST and HOST:PORT are allowed`},
		{gossip.Config{Bind: loopback, Join: []string{"a:0"}}, `Config.Join "a:0": port 0 cannot be joined; HOST and HOST:PORT are allowed`},
		{gossip.Config{Bind: loopback, Join: []string{"a:1:2"}}, `Config.Join "a:1:2": it is not an address; HOST and HOST:PORT are allowed`},

		{gossip.Config{Bind: loopback, Keys: [][]byte{key, make([]byte, 15)}}, `Config.Keys: key 2 has 15 bytes; 16, 24 and 32 are allowed`},
		{gossip.Config{Bind: loopback, Keys: [][]byte{{}}}, `Config.Keys: key 1 has 0 bytes; 16, 24 and 32 are allowed`},
		{gossip.Config{Bind: loopback, Keys: [][]byte{key}, KeyFile: "f"}, `Config.Keys and Config.KeyFile are both set; one of them is allowed`},
		{gossip.Config{Bind: loopback, KeyFile: "/does/not/exist"}, `Config.KeyFile /does/not/exist: no such file or directory`},
		{gossip.Config{Bind: "0.0.0.0:0", KeyFile: "/"}, `Config.KeyFile /: it is not a regular file`},
		{gossip.Config{Bind: loopback, Expect: -1}, `Config.Expect is -1; it must not be negative`},

		{gossip.Config{Bind: loopback, Quorum: -1}, `Config.Quorum is -1; it must not be negative`},
		{gossip.Config{Bind: loopback, Quorum: 2, Expect: -1}, `Config.Expect is -1; it must not be negative`},
		{gossip.Config{Bind: loopback, Quorum: 2, Expect: 4}, `Config.Quorum 2 is not above half of 4 voters (Config.Expect): two sides of 2 could each run the child; at least 3 is needed`},
		{gossip.Config{Bind: loopback, Quorum: 1, Expect: 3}, `Config.Quorum 1 is not above half of 3 voters (Config.Expect): two sides of 1 could each run the child; at least 2 is needed`},
		{gossip.Config{Bind: loopback, Quorum: 1, Expect: 2}, `Config.Quorum 1 is not above half of 2 voters (Config.Expect): two sides of 1 could each run the child; at least 2 is needed`},
		{gossip.Config{Bind: loopback, Quorum: 4, Expect: 3}, `Config.Quorum 4 is more than Config.Expect, the 3 voters that there are`},
		{gossip.Config{Bind: loopback, Quorum: 513}, `Config.Quorum is 513; at most 512 is allowed`},
		{gossip.Config{Bind: loopback, Quorum: math.MaxInt}, `Config.Quorum is 9223372036854775807; at most 512 is allowed`},
		{gossip.Config{Bind: loopback, Quorum: 2, Expect: 1025}, `Config.Expect is 1025; at most 1024 voters are allowed`},
		{gossip.Config{Bind: loopback, TTL: 3 * time.Second}, `Config.TTL is 3s, and there is no Config.Quorum; without one, leases do not run out: set it, or leave Config.TTL out`},
		{gossip.Config{Bind: loopback, Quorum: 2, TTL: -time.Second}, `Config.TTL is -1s; 1s to 10m0s is allowed`},
		{gossip.Config{Bind: loopback, Quorum: 2, TTL: time.Second - 1}, `Config.TTL is 999.999999ms; 1s to 10m0s is allowed`},
		{gossip.Config{Bind: loopback, Quorum: 2, TTL: 10*time.Minute + 1}, `Config.TTL is 10m0.000000001s; 1s to 10m0s is allowed`},
	} {
		c, err := gossip.Join(t.Context(), test.cfg)
		if err == nil {
			c.Close()
		}
		if want := "gossip: " + test.want; err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, addr := range []string{tcp.Addr().String(), udp.LocalAddr().String()} {
		_, err := gossip.Join(t.Context(), gossip.Config{Bind: addr})
		if want := fmt.Sprintf("gossip: cannot listen on Config.Bind %s: address already in use", addr); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

// Three terminals on one machine find each other without any configuration; the
// label keeps this test apart from what else runs here.
func TestNoConfigurationAtAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	label := fmt.Sprint(t.Name(), os.Getpid(), rand.Uint64())
	var nodes []*gossip.Cluster
	for range 3 {
		c, err := gossip.Join(t.Context(), gossip.Config{Label: label, Logger: w.log})
		if err != nil {
			t.Fatal(err)
		}
		w.nodes = append(w.nodes, c)
		nodes = append(nodes, c)
	}
	w.see(3, nodes...)
	if name, _, _ := strings.Cut(nodes[0].Node(), "#"); name == "" {
		t.Errorf("the node is called %q, want the name of the host in it", nodes[0].Node())
	}
}

func TestTimeToStopMustFitIntoTheTTL(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		cfg  gossip.Config
		stop time.Duration
		want string // empty: it fits
	}{
		{gossip.Config{}, time.Hour, ""},
		{gossip.Config{Quorum: 2}, highlander.DefaultShutdown, ""},
		{gossip.Config{Quorum: 2, TTL: 3 * time.Second}, 1440 * time.Millisecond, ""},
		{gossip.Config{Quorum: 2, TTL: 10500 * time.Millisecond}, 5 * time.Second, ""},
		{gossip.Config{Quorum: 2, TTL: 3 * time.Second}, 5 * time.Second,
			`TTL 3s is too short to stop within 5s: less 60ms for clocks and 1.5s for two renewals it leaves 1.44s; a TTL of at least 10.5s, or at most 1.44s to stop, is needed`},
		{gossip.Config{Quorum: 2, TTL: 10400 * time.Millisecond}, 5 * time.Second,
			`TTL 10.4s is too short to stop within 5s: less 208ms for clocks and 5.2s for two renewals it leaves 4.992s; a TTL of at least 10.5s, or at most 4.992s to stop, is needed`},
		{gossip.Config{Quorum: 2}, 6 * time.Second,
			`TTL 12s is too short to stop within 6s: less 240ms for clocks and 6s for two renewals it leaves 5.76s; a TTL of at least 12.5s, or at most 5.76s to stop, is needed`},
		{gossip.Config{Quorum: 2, TTL: time.Minute}, 288 * time.Second,
			`TTL 1m0s is too short to stop within 4m48s: less 1.2s for clocks and 30s for two renewals it leaves 28.8s; a TTL of at least 10m0s, or at most 28.8s to stop, is needed`},
		{gossip.Config{Quorum: 2, TTL: time.Minute}, math.MaxInt64,
			`TTL 1m0s is too short to stop within 2562047h47m16.854775807s: less 1.2s for clocks and 30s for two renewals it leaves 28.8s; at most 4m48s to stop is possible, with a TTL of 10m0s`},
	} {
		switch err := test.cfg.CheckStopWithin(test.stop); {
		case test.want == "" && err != nil:
			t.Errorf("%v to stop do not fit into %v: %v", test.stop, test.cfg.TTL, err)
		case test.want != "" && (err == nil || err.Error() != test.want):
			t.Errorf("got  %v\nwant %s", err, test.want)
		}
	}
}
