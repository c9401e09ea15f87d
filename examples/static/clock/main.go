// Command clock answers HTTP requests on port 8080 with the time in the zone
// that the path names, such as /Europe/Berlin.
package main

import (
	"fmt"
	"log"
	"net/http"
	"runtime"
	"strings"
	"time"
)

func main() {
	server := &http.Server{Addr: ":8080", Handler: http.HandlerFunc(answer), ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}

func answer(w http.ResponseWriter, r *http.Request) {
	zone, err := time.LoadLocation(strings.TrimPrefix(r.URL.Path, "/"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	fmt.Fprintf(w, "%s, says %s\n", time.Now().In(zone).Format(time.RFC3339), runtime.Version())
}
