// A second opinion on HTTP probes: one JSON object per line says what to get, and one per line says what came of it.
//
// Standard library only, in the way that section 4 of the semantics describes kubelet's client: no keep-alive, no
// compression, no proxy, any certificate, redirects within the host, at most 10 KiB of the body.
package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	bodyMaxBytes = 10 * 1024
	redirectsMax = 10
	atOnce       = 32
)

type request struct {
	ID        int         `json:"id"`
	Scheme    string      `json:"scheme"`
	Host      string      `json:"host"`
	Port      int         `json:"port"`
	Path      string      `json:"path"`
	Headers   [][2]string `json:"headers"`
	Agent     string      `json:"agent"`
	TimeoutMs int         `json:"timeout_ms"`
}

type result struct {
	ID      int    `json:"id"`
	Verdict string `json:"verdict"`
	Text    string `json:"text"`
}

func main() {
	var working sync.WaitGroup
	todo, done := make(chan request), make(chan result)
	for range atOnce {
		working.Add(1)
		go func() {
			defer working.Done()
			for r := range todo {
				verdict, text := probe(r)
				done <- result{r.ID, verdict, text}
			}
		}()
	}
	go func() {
		lines := json.NewDecoder(bufio.NewReader(os.Stdin))
		for {
			var r request
			if err := lines.Decode(&r); err != nil {
				if !errors.Is(err, io.EOF) {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				break
			}
			todo <- r
		}
		close(todo)
		working.Wait()
		close(done)
	}()
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	lines := json.NewEncoder(out)
	for r := range done {
		if err := lines.Encode(r); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func probe(r request) (verdict, text string) {
	req, err := prepare(r)
	if err != nil {
		return "errored", err.Error()
	}
	dialer := &net.Dialer{Control: func(_, _ string, conn syscall.RawConn) error {
		return conn.Control(func(fd uintptr) {
			_ = syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER,
				&syscall.Linger{Onoff: 1, Linger: 1})
		})
	}}
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{InsecureSkipVerify: true},
		TLSHandshakeTimeout: 10 * time.Second,
		DisableKeepAlives:   true,
		DisableCompression:  true,
		DialContext:         dialer.DialContext,
	}
	client := &http.Client{
		Timeout:   time.Duration(r.TimeoutMs) * time.Millisecond,
		Transport: transport,
		CheckRedirect: func(next *http.Request, made []*http.Request) error {
			if next.URL.Hostname() != made[0].URL.Hostname() {
				return http.ErrUseLastResponse
			}
			if len(made) >= redirectsMax {
				return errors.New("stopped after 10 redirects")
			}
			return nil
		},
	}
	res, err := client.Do(req)
	if err != nil {
		return "failure", err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, bodyMaxBytes))
	if err != nil {
		return "errored", err.Error()
	}
	switch {
	case res.StatusCode >= 200 && res.StatusCode < 300:
		return "success", ""
	case res.StatusCode >= 300 && res.StatusCode < 400:
		return "warning", "Probe terminated redirects, Response body: " + string(body)
	}
	return "failure", fmt.Sprintf("HTTP probe failed with statuscode: %d", res.StatusCode)
}

func prepare(r request) (*http.Request, error) {
	// A path that is no URL is a path all the same.
	u, err := url.Parse(r.Path)
	if err != nil {
		u = &url.URL{Path: r.Path}
	}
	u.Scheme, u.Host = r.Scheme, net.JoinHostPort(r.Host, fmt.Sprint(r.Port))
	req, err := http.NewRequest(http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	header := make(http.Header)
	for _, line := range r.Headers {
		header.Add(line[0], line[1])
	}
	if _, given := header["User-Agent"]; !given {
		header.Set("User-Agent", r.Agent)
	}
	if _, given := header["Accept"]; !given {
		header.Set("Accept", "*/*")
	} else if header.Get("Accept") == "" {
		header.Del("Accept")
	}
	req.Header, req.Host = header, header.Get("Host")
	return req, nil
}
