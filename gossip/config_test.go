package gossip_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"

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
