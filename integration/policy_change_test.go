package integration

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	. "netguard/integration/harness"
)

// call is a connection that lasts: it is talked on until somebody ends it, and is
// opened again when it breaks.
type call struct {
	from, to *guest
	service  string
	address  string

	mu       sync.Mutex
	said     map[string]time.Time // words on their way
	answered time.Time            // when the last answer came
	broken   []time.Time          // when a connection that had worked ended
	stop     chan struct{}
	done     chan struct{}
}

const (
	talkEvery = 25 * time.Millisecond
	// patient is after how long without an answer a caller tries anew. Both kinds
	// go on meanwhile: what a policy refuses must be refused to either.
	patient = 1500 * time.Millisecond
)

func (c *call) String() string {
	return fmt.Sprintf("%s>%s %s %s", c.from.Name, c.to.Name, c.service, c.address)
}

// place starts a call.
func place(t *testing.T, from, to *guest, service, address string) *call {
	c := &call{from: from, to: to, service: service, address: address, said: map[string]time.Time{}, stop: make(chan struct{}), done: make(chan struct{})}
	go c.run()
	t.Cleanup(func() { close(c.stop); <-c.done })
	return c
}

func (c *call) run() {
	defer close(c.done)
	protocol, _, _ := strings.Cut(c.service, "/")
	for {
		var conn net.Conn
		err := c.from.at.Do(func() (err error) {
			conn, err = net.DialTimeout(protocol, c.address, time.Second)
			return err
		})
		if err == nil {
			c.talk(conn)
		}
		select {
		case <-c.stop:
			return
		case <-time.After(talkEvery):
		}
	}
}

// talk returns when the connection is of no use any more.
func (c *call) talk(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	ended := make(chan struct{})
	begun := time.Now()
	go func() {
		defer close(ended)
		for buf := make([]byte, 16); ; {
			if _, err := io.ReadFull(conn, buf); err != nil {
				if _, udp := conn.(*net.UDPConn); udp && !isClosed(err) {
					continue // an ICMP error
				}
				return
			}
			c.mu.Lock()
			c.answered = time.Now()
			c.mu.Unlock()
		}
	}()
	tick := time.NewTicker(talkEvery)
	defer tick.Stop()
	for {
		word := fmt.Sprintf("%016x", words.Add(1))
		c.mu.Lock()
		c.said[word] = time.Now()
		last := c.answered
		c.mu.Unlock()
		_, err := conn.Write([]byte(word))
		_, udp := conn.(*net.UDPConn)
		if err != nil && !udp || time.Since(begun) > patient && time.Since(last) > patient {
			c.mu.Lock()
			if last.After(begun) {
				c.broken = append(c.broken, time.Now())
			}
			c.mu.Unlock()
			_ = conn.Close()
			<-ended
			return
		}
		select {
		case <-c.stop:
			_ = conn.Close()
			<-ended
			return
		case <-ended:
			c.mu.Lock()
			c.broken = append(c.broken, time.Now())
			c.mu.Unlock()
			return
		case <-tick.C:
		}
	}
}

func isClosed(err error) bool {
	return strings.Contains(err.Error(), "use of closed network connection")
}

// answers is the time of the last answer, and how often the call has broken.
func (c *call) answers() (time.Time, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answered, len(c.broken)
}

// passed counts the words that were said after a moment and arrived, and forgets
// them all.
func (c *call) passed(since time.Time) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for word, at := range c.said {
		if _, came := heard.Load(word); came && at.After(since) {
			n++
		}
	}
	c.said = map[string]time.Time{}
	return n
}

const (
	// stopsWithin is how soon a connection ends that is no longer allowed, from the
	// moment at which its policy is in force.
	stopsWithin = time.Second
	// restsFor is how long nothing may come through after that.
	restsFor = 400 * time.Millisecond
)

func changes(t *testing.T, rounds int, options ...Option) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("NETGUARD_SEED"); text != "" {
		if _, err := fmt.Sscan(text, &seed); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("NETGUARD_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	e := Start(t, append([]Option{WithIPv6()}, options...)...)
	e.Network("net", Subnet("198.18.50.0/24"), Subnet("fd00:50::/64"))
	s := &society{in: map[string][]string{}, out: map[string][]string{}, deny: map[string][]string{}}
	services := []string{"tcp/80", "udp/53"}
	var guests []*guest
	for _, name := range []string{"ann", "bob", "cid", "dot"} {
		s.names = append(s.names, name)
		guests = append(guests, welcome(t, e, name, "net", services))
	}
	book := newRulebook(e, e.Agent())
	book.awaitAdmitted(t, len(guests))
	var calls []*call
	for i, from := range guests {
		for j, to := range guests {
			if from != to {
				// Both families get their turn, one a pair and protocol.
				six := map[bool]func(string, uint16) string{false: to.Addr, true: to.Addr6}
				calls = append(calls, place(t, from, to, "tcp/80", six[(i+j)%2 == 0]("net", 80)), place(t, from, to, "udp/53", six[(i+j)%2 == 1]("net", 53)))
			}
		}
	}
	was := map[*call]bool{}
	for _, c := range calls {
		was[c] = true
	}
	settle(t, calls, was, nil, "at the start")
	stopped := []time.Duration{}
	for round := range rounds {
		told := fmt.Sprintf("round %d: %s", round, s.change(r))
		breaks := map[*call]int{}
		for _, c := range calls {
			_, breaks[c] = c.answers()
			c.passed(time.Now())
		}
		book.enact(t, maps.Clone(s.files()))
		since := time.Now()
		now := map[*call]bool{}
		for _, c := range calls {
			protocol, _, _ := strings.Cut(c.service, "/")
			now[c] = s.allows(c.from.Name, c.to.Name, protocol)
		}
		settle(t, calls, now, was, told)
		time.Sleep(time.Until(since.Add(stopsWithin + restsFor))) // nothing must come in this time
		for _, c := range calls {
			last, broke := c.answers()
			if now[c] && was[c] && broke != breaks[c] {
				t.Errorf("%s: %s was and is allowed, and broke", told, c)
			}
			if now[c] {
				continue
			}
			if n := c.passed(since.Add(stopsWithin)); n > 0 {
				t.Errorf("%s: %s is denied, and %d words got through", told, c, n)
			}
			if last.After(since.Add(stopsWithin)) {
				t.Errorf("%s: %s is denied, and was answered %v later", told, c, last.Sub(since))
			}
			if was[c] {
				stopped = append(stopped, last.Sub(since))
			}
		}
		was = now
		if t.Failed() {
			t.Fatalf("%s\n%s", told, strings.Join(slices.Sorted(maps.Values(s.files())), ""))
		}
	}
	slices.Sort(stopped)
	if len(stopped) == 0 {
		t.Fatal("no connection was ever stopped")
	}
	t.Logf("%d changes, %d connections stopped, the last answer %v after the policy was in force at most, %v in the middle", rounds, len(stopped), stopped[len(stopped)-1], stopped[len(stopped)/2])
}

// settle waits until all calls that are allowed are answered.
func settle(t *testing.T, calls []*call, allowed, was map[*call]bool, told string) {
	t.Helper()
	begin := time.Now()
	for {
		silent := slices.IndexFunc(calls, func(c *call) bool {
			last, _ := c.answers()
			return allowed[c] && !last.After(begin)
		})
		if silent < 0 {
			return
		}
		if time.Since(begin) > 8*time.Second {
			t.Fatalf("%s: %s is allowed (before: %t), and not answered", told, calls[silent], was[calls[silent]])
		}
		time.Sleep(5 * time.Millisecond) // as often as anything is said
	}
}

// TestPolicyChanges changes policies while connections run: those that stay
// allowed never break, those that are denied stop within a second, in both
// directions.
func TestPolicyChanges(t *testing.T) {
	t.Parallel()
	changes(t, 15)
}

func TestSoakPolicyChanges(t *testing.T) {
	soaking(t)
	t.Run("without_bridge_netfilter", func(t *testing.T) { changes(t, 100) })
	t.Run("with_bridge_netfilter", func(t *testing.T) { changes(t, 100, WithBridgeNetfilter()) })
}
