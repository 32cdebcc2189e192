package main

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// subBuckets per power of two: values are kept to within 1.6 %.
	subBits    = 6
	subBuckets = 1 << subBits
	powers     = 32
)

// histogram of microseconds, log-linear, written by any goroutine without a lock.
type histogram struct {
	counts [powers * subBuckets]atomic.Uint64
}

func (h *histogram) record(lateness time.Duration) {
	us := uint64(max(lateness.Microseconds(), 0))
	h.counts[min(place(us), len(h.counts)-1)].Add(1)
}

// place of a value: its power of two and the bits behind the leading one.
func place(us uint64) int {
	if us < subBuckets {
		return int(us)
	}
	shift := bits.Len64(us) - subBits - 1
	return (shift+1)*subBuckets + int(us>>shift) - subBuckets
}

// value is the lowest one of that place.
func value(at int) uint64 {
	if at < subBuckets {
		return uint64(at)
	}
	shift := at/subBuckets - 1
	return uint64(at%subBuckets+subBuckets) << shift
}

func (h *histogram) percentiles() *percentiles {
	var total uint64
	for at := range h.counts {
		total += h.counts[at].Load()
	}
	if total == 0 {
		return nil
	}
	find := func(share float64) uint64 {
		var seen uint64
		for at := range h.counts {
			seen += h.counts[at].Load()
			if float64(seen) >= share*float64(total) {
				return value(at)
			}
		}
		return value(len(h.counts) - 1)
	}
	return &percentiles{find(0.5), find(0.99), find(0.999)}
}
