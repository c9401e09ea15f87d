package cradle

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/guest/pod"
)

func TestParseRestart(t *testing.T) {
	for text, want := range map[string]*pod.Restart{
		"no":             nil,
		"always":         {Policy: pod.RestartAlways},
		"unless-stopped": {Policy: pod.RestartUnlessStopped},
		"on-failure":     {Policy: pod.RestartOnFailure},
		"on-failure:4":   {Policy: pod.RestartOnFailure, MaximumRetries: 4},
	} {
		got, err := parseRestart(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
	if got, err := parseRestart("on-failure:x"); got != nil || err == nil {
		t.Errorf("got %v, %v", got, err)
	}
}
