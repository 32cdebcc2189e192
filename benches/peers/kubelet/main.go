// A prober in kubelet's way: one goroutine and one ticker per probe, one connection per run, net/http with
// keep-alives and compression off, and a dialer that sets SO_LINGER to one second.
//
// It has the flags, the signals and the report of the other contestants (benches/peers/src/lib.rs).
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// addresses that the targets are spread over, from 127.0.0.1 on.
	addresses = 16
	// bodyMaxBytes of an answer are read, as kubelet does.
	bodyMaxBytes = 10 * 1024
	// responsesMax bounds the memory of the report.
	responsesMax = 100_000
)

type load struct {
	kind                        string
	targets                     int
	period, timeout             time.Duration
	port, closedPort            int
	scriptedEvery, watchedEvery int
}

func (l load) isScripted(target int) bool {
	return target%l.scriptedEvery == l.scriptedEvery/2
}

func (l load) isWatched(target int) bool {
	return l.kind == "http" && target%l.watchedEvery == l.watchedEvery/10
}

func (l load) address(target int) string {
	port := l.port
	if l.kind == "tcp" && l.isScripted(target) {
		port = l.closedPort
	}
	return net.JoinHostPort(fmt.Sprintf("127.0.0.%d", 1+target%addresses), strconv.Itoa(port))
}

// phase of the run: 0 warm-up, 1 measuring, 2 over.
var phase atomic.Int32

type response struct {
	Target  int   `json:"target"`
	BeganNs int64 `json:"began_ns"`
	TookNs  int64 `json:"took_ns"`
}

type percentiles struct {
	P50  uint64 `json:"p50"`
	P99  uint64 `json:"p99"`
	P999 uint64 `json:"p999"`
}

type report struct {
	Scripted      [][2]uint64  `json:"scripted"`
	OtherFailures uint64       `json:"other_failures"`
	Example       *string      `json:"example"`
	Inconclusive  uint64       `json:"inconclusive"`
	LatenessUs    *percentiles `json:"lateness_us"`
	Responses     []response   `json:"responses"`
	StateBytes    *uint64      `json:"state_bytes"`
}

// tally of the measured window. Only failures and watched targets take the lock.
type tally struct {
	lateness histogram
	other    atomic.Uint64

	mutex     sync.Mutex
	scripted  map[int]uint64
	example   *string
	responses []response
}

type prober struct {
	load      load
	transport *http.Transport
	dialer    *net.Dialer
	tally     *tally
}

// result of one run, as kubelet's prober has it.
type result int

const (
	success result = iota
	scripted
	failure
)

func newProber(l load) *prober {
	dialer := &net.Dialer{Control: func(_, _ string, conn syscall.RawConn) error {
		return conn.Control(func(fd uintptr) {
			_ = syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER,
				&syscall.Linger{Onoff: 1, Linger: 1})
		})
	}}
	return &prober{
		load: l,
		transport: &http.Transport{
			DisableKeepAlives:  true,
			DisableCompression: true,
			Proxy:              nil,
			DialContext:        dialer.DialContext,
		},
		dialer: dialer,
		tally:  &tally{scripted: make(map[int]uint64)},
	}
}

// worker probes one target until the end of the process: one run, then one for each tick. The first tick is
// at a random point of the period, as after a restart of kubelet.
func (p *prober) worker(target int, start time.Time, ready *sync.WaitGroup) {
	request := p.request(target)
	due := start.Add(time.Duration(rand.Int63n(int64(p.load.period))))
	ready.Done()
	time.Sleep(time.Until(due))
	ticker := time.NewTicker(p.load.period)
	defer ticker.Stop()
	// The first run is late against the moment it was meant for, later ones against the ticker.
	base := time.Now()
	for {
		began := time.Now()
		isMeasured := phase.Load() == 1
		if isMeasured {
			p.tally.lateness.record(began.Sub(due))
		}
		verdict, err := p.run(target, request)
		took := time.Since(began)
		if isMeasured && phase.Load() != 0 {
			p.tally.take(p.load, target, verdict, err, began, took)
		}
		<-ticker.C
		// Missed ticks are dropped; one that came while the run went on is due when the run ends.
		due = base.Add(time.Since(base) / p.load.period * p.load.period)
		if end := began.Add(took); due.Before(end) {
			due = end
		}
	}
}

func (p *prober) request(target int) *http.Request {
	if p.load.kind == "tcp" {
		return nil
	}
	url := fmt.Sprintf("http://%s/t/%d", p.load.address(target), target)
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		fatal(err)
	}
	request.Header = http.Header{"User-Agent": {"kube-probe/1.34"}, "Accept": {"*/*"}}
	return request
}

func (p *prober) run(target int, request *http.Request) (result, error) {
	if p.load.kind == "tcp" {
		return p.connect(target)
	}
	client := &http.Client{
		Timeout:   p.load.timeout,
		Transport: p.transport,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
	answer, err := client.Do(request)
	if err != nil {
		return failure, err
	}
	defer answer.Body.Close()
	if _, err := io.ReadAll(io.LimitReader(answer.Body, bodyMaxBytes)); err != nil {
		return failure, err
	}
	switch {
	case answer.StatusCode == http.StatusServiceUnavailable:
		return scripted, nil
	case answer.StatusCode >= 200 && answer.StatusCode < 400:
		return success, nil
	}
	return failure, fmt.Errorf("status %d", answer.StatusCode)
}

func (p *prober) connect(target int) (result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), p.load.timeout)
	defer cancel()
	conn, err := p.dialer.DialContext(ctx, "tcp", p.load.address(target))
	if errors.Is(err, syscall.ECONNREFUSED) {
		return scripted, nil
	}
	if err != nil {
		return failure, err
	}
	// An error of the close changes nothing, as in kubelet.
	_ = conn.Close()
	return success, nil
}

func (t *tally) take(l load, target int, verdict result, err error, began time.Time, took time.Duration) {
	switch {
	case verdict == failure:
		t.other.Add(1)
		t.mutex.Lock()
		defer t.mutex.Unlock()
		if t.example == nil {
			text := err.Error()
			t.example = &text
		}
	case verdict == scripted:
		t.mutex.Lock()
		defer t.mutex.Unlock()
		t.scripted[target]++
	case l.isWatched(target):
		t.mutex.Lock()
		defer t.mutex.Unlock()
		if len(t.responses) < responsesMax {
			t.responses = append(t.responses, response{target, began.UnixNano(), int64(took)})
		}
	}
}

func (t *tally) report() report {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	all := report{
		Scripted:      [][2]uint64{},
		OtherFailures: t.other.Load(),
		Example:       t.example,
		LatenessUs:    t.lateness.percentiles(),
		Responses:     t.responses,
	}
	for target, count := range t.scripted {
		all.Scripted = append(all.Scripted, [2]uint64{uint64(target), count})
	}
	if all.Responses == nil {
		all.Responses = []response{}
	}
	return all
}

func main() {
	var l load
	var periodMs, timeoutMs int
	flag.StringVar(&l.kind, "kind", "http", "http or tcp")
	flag.IntVar(&l.targets, "targets", 0, "number of targets")
	flag.IntVar(&periodMs, "period-ms", 1000, "time between two probes of one target")
	flag.IntVar(&timeoutMs, "timeout-ms", 1000, "timeout of a probe")
	flag.IntVar(&l.port, "port", 0, "port of the server")
	flag.IntVar(&l.closedPort, "closed-port", 1, "where nobody listens")
	flag.IntVar(&l.scriptedEvery, "scripted-every", 100, "of so many targets one fails by script")
	flag.IntVar(&l.watchedEvery, "watched-every", 200, "of so many targets the response times of one are reported")
	flag.Parse()
	l.period = time.Duration(periodMs) * time.Millisecond
	l.timeout = time.Duration(timeoutMs) * time.Millisecond

	p := newProber(l)
	start := time.Now()
	var ready sync.WaitGroup
	ready.Add(l.targets)
	for target := range l.targets {
		go p.worker(target, start, &ready)
	}
	ready.Wait()
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() && lines.Text() == "measure" {
		phase.Store(1)
	}
	phase.Store(2)
	if err := json.NewEncoder(os.Stdout).Encode(p.tally.report()); err != nil {
		fatal(err)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "kubelet-style prober:", err)
	os.Exit(1)
}
