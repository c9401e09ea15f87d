package cradle

import (
	"os"
	"syscall"
	"testing"
	"time"
)

func TestSecondSignal(t *testing.T) {
	second, release := secondSignal()
	defer release()
	interrupt := func() {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
	}
	interrupt()
	select {
	case <-second:
		t.Fatal("the first signal counts as the second")
	case <-time.After(200 * time.Millisecond):
	}
	interrupt()
	select {
	case <-second:
	case <-time.After(10 * time.Second):
		t.Error("the second signal is not seen")
	}
}
