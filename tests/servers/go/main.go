// Go's own HTTP server on 8080 and 8443: requests go to access.log, connections to connections.log; what the server logs, and every error that a
// connection gives it, to standard error.
package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
)

// conn tells of errors that net/http keeps to itself.
type conn struct{ *net.TCPConn }

func (c conn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	tell("read", err)
	return n, err
}

func (c conn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	tell("write", err)
	return n, err
}

func (c conn) CloseWrite() error {
	err := c.TCPConn.CloseWrite()
	tell("shutdown", err)
	return err
}

func tell(call string, err error) {
	// The end of the stream, and what the server does to its own reads.
	if err == nil || err == io.EOF || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	log.Printf("%s: %v", call, err)
}

// listener notes each connection.
type listener struct {
	*net.TCPListener
	connections *os.File
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(l.connections, c.RemoteAddr())
	return conn{c}, nil
}

func listen(address string) net.Listener {
	l, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	return listener{l.(*net.TCPListener), open("connections.log")}
}

func open(name string) *os.File {
	file, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	return file
}

func main() {
	access := open("access.log")
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(access, "%s %s %q\n", r.Method, r.URL.Path, r.UserAgent())
		io.WriteString(w, "ok\n")
	})
	server := &http.Server{ErrorLog: log.Default()}
	go func() { log.Fatal(server.ServeTLS(listen("127.0.0.1:8443"), "cert.pem", "key.pem")) }()
	log.Fatal(server.Serve(listen("127.0.0.1:8080")))
}
