package etcdtest

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// collectCertificates writes CAFile: the certificates that the members have made
// for themselves.
func (s *Server) collectCertificates() error {
	var all []byte
	for _, m := range s.members {
		pem, err := os.ReadFile(filepath.Join(m.Dir, "fixtures", "client", "cert.pem"))
		if err != nil {
			return err
		}
		all = slices.Concat(all, pem)
	}
	return os.WriteFile(s.CAFile(), all, 0o600)
}

func (s *Server) tlsConfig() (*tls.Config, error) {
	pem, err := os.ReadFile(s.CAFile())
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("etcdtest: no certificate in %s", s.CAFile())
	}
	return &tls.Config{RootCAs: roots}, nil
}
