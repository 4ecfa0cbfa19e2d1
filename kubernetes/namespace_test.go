package kubernetes_test

import (
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"highlander/kubernetes"
)

const writingFails = "writing Lease objects fails"

// Such as when its name was misspelt.
func TestANamespaceThatIsNotThereIsReportedAndWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.namespace += "-typo"
	w.access = w.server.AdminConfig()
	var log recorder
	a := w.open("a", kubernetes.WithLogger(log.logger()))
	began := time.Now()
	waiter := w.start(a, "id")
	w.eventually("it was refused four times", func() bool { return log.count("DEBUG", writingFails) >= 3 })
	if took := time.Since(began); took < 700*time.Millisecond { // 100 ms, 200 ms and 400 ms at least in between
		t.Errorf("it was tried four times within %v", took)
	}
	if n := log.count("WARN", writingFails); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
	namespace := &core.Namespace{ObjectMeta: meta.ObjectMeta{Name: w.namespace}}
	if _, err := w.admin.CoreV1().Namespaces().Create(t.Context(), namespace, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.firstOf(waiter)
	if n := log.count("INFO", "writing Lease objects works again"); n != 1 {
		t.Errorf("%d lines say that it works again, want 1", n)
	}
}
