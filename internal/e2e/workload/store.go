package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

// store writes a file of that many MiB unless it is there, and says to every
// connection whether it is intact.
func store(address, name, mib string) error {
	n, err := strconv.Atoi(mib)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		os.Exit(0)
	}()
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		if err := fill(name, n); err != nil {
			return err
		}
		fmt.Println("stored")
	} else if err != nil {
		return err
	} else {
		fmt.Println("found")
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		if err := intact(name, n); err != nil {
			fmt.Fprintln(conn, err)
		} else {
			fmt.Fprintln(conn, "intact")
		}
		conn.Close()
	}
}

// part is the nth MiB of a stored file: no two blocks of it are the same.
func part(n int) []byte {
	b := make([]byte, 0, 1<<20)
	for i := 0; len(b) < 1<<20; i++ {
		b = fmt.Appendf(b, "plaintext %010d %010d\n", n, i)
	}
	return b[:1<<20]
}

func fill(name string, mib int) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	for i := range mib {
		if _, err := f.Write(part(i)); err != nil {
			return err
		}
	}
	return errors.Join(f.Sync(), f.Close())
}

func intact(name string, mib int) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	r, b := bufio.NewReader(f), make([]byte, 1<<20)
	for i := range mib {
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		if !bytes.Equal(b, part(i)) {
			return fmt.Errorf("WRONG DATA in MiB %d", i)
		}
	}
	return nil
}
