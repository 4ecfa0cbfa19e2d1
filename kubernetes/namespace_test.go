package kubernetes_test

import (
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"highlander/kubernetes"
)

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
	w.eventually("it was refused four times", func() bool { return log.count("DEBUG", outageLasts) >= 3 })
	if took := time.Since(began); took < 700*time.Millisecond { // 100 ms, 200 ms and 400 ms at least in between
		t.Errorf("it was tried four times within %v", took)
	}
	if n := log.count("WARN", outageBegins) - log.count("INFO", outageEnds); n != 1 {
		t.Errorf("%d more warnings than ends of them, want 1", n)
	}
	namespace := &core.Namespace{ObjectMeta: meta.ObjectMeta{Name: w.namespace}}
	if _, err := w.admin.CoreV1().Namespaces().Create(t.Context(), namespace, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.firstOf(waiter)
	w.saysItIsOver(&log)
}
