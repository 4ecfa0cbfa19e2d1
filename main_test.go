package highlander_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(overrunEnv) != "" {
		overrunForReal()
	}
	goleak.VerifyTestMain(m)
}
