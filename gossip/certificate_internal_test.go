package gossip

import (
	"crypto/sha256"
	"strings"
	"testing"

	"highlander/internal/claims"
)

func TestBadCertificateSaysWhatIsWrong(t *testing.T) {
	c := &Cluster{cfg: Config{Label: "blue"}, keys: &keys{}}
	good := string(certificate{label: "blue", node: 1}.frame(nil))
	for frame, want := range map[string]string{
		"":                     "read its length: EOF",
		"\x02\x01":             "it has 513 bytes; at most 512 are allowed",
		"\x00\x05abc":          "read it: unexpected EOF",
		"\x00\x00":             "it is not of a version that is known here",
		"\x00\x02\x02\x00":     "it is not of a version that is known here",
		"\x00\x02\x01\x00":     "it has 2 bytes, which is not its length",
		good[1:2] + "x" + good: "read it: unexpected EOF",
		string(certificate{label: "green"}.frame(nil))[1:]: `it is for the cluster "green"`,
	} {
		if err := c.checkCertificate(strings.NewReader(frame)); err == nil || err.Error() != want {
			t.Errorf("%q: got  %v\nwant %s", frame, err, want)
		}
	}
}

// What memberlist has encrypted for the same cluster is no certificate.
func TestCertificateIsNotMistakenForAMessage(t *testing.T) {
	key := make([]byte, 16)
	body := []byte(certificate{label: "blue", node: 1}.frame(nil))[3:]
	message := certificateCipher(key).Seal(nil, nil, body, []byte("blue"))
	if _, err := openCertificate(message, "blue", [][]byte{key}); err == nil {
		t.Error("a message is taken for a certificate")
	}
	body = certificateCipher(key).Seal(nil, nil, body, certificateData("blue"))
	if _, err := openCertificate(body, "blue", [][]byte{make([]byte, 32), key}); err != nil {
		t.Errorf("the second key does not open it: %v", err)
	}
}

// A cluster whose processes come and go for years does not fill the memory, and
// those that are there are not forgotten.
func TestMortalsAreBounded(t *testing.T) {
	a := &agent{mortals: map[claims.Node]*mortal{}, nodes: map[claims.Node]*node{}}
	for id := range claims.Node(5 * maxMortals) {
		if id%maxMortals == 0 {
			a.nodes[id] = &node{}
		}
		a.meet(id, "x", sha256.Sum256(nil))
	}
	if n := len(a.mortals); n > maxMortals {
		t.Errorf("%d are remembered", n)
	}
	for id := range a.nodes {
		if a.mortals[id] == nil {
			t.Errorf("node %d is in view and was forgotten", id)
		}
	}
}
