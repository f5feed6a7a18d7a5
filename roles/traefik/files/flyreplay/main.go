// Package flyreplay is a Traefik middleware that honours the Fly-Replay header of LiteFS's proxy, and asks another pod for
// a read that one could not answer.
//
// On a replica that proxy answers a request which has to run on the primary with an empty 200 and
// "Fly-Replay: instance=<pod>", and expects the edge to send the request again to that pod. Here a GET or HEAD
// is sent again where the route allows it; any other method never is, because its body is gone and would have to
// be buffered. What cannot be sent again becomes 503 with Retry-After. Neither the header nor the empty 200 that
// carries it leaves the site.
//
// Where PrimaryService is set, a GET or HEAD that a pod answers with 500 or above, or that finds no connection to it, is
// asked again before a byte of the answer has gone out: of the primary, and where that is away of the pod that Traefik picks
// next. So a GET that writes works, too: a replica refuses the write, the application answers 500, and the primary can do
// it. What the primary itself answers with 500 is not asked again. Paths in ForwardPaths are left out: LiteFS sends them
// to the primary at once.
//
// While a rollout is on, pages of two builds are open, and a pod has the files of its own build alone. So a 404 for a file below
// StaticPaths is asked again, too: of the primary, and where that lacks it of the pods that Traefik picks next.
//
// LiteFS gives the cookie by which a replica waits for what its visitor wrote to writes only by method, so a GET that writes
// would leave a visitor who is sent to the next page not signed in there. Where CookiePath is set, the cookie is got for it.
package flyreplay

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	header     = "Fly-Replay"
	retryAfter = "2"
	// Room for one SYN that is lost: it is sent again after 1 s.
	dialTimeout = 1500 * time.Millisecond
	// How long a pod that took no connection is passed over, and the primary not asked again.
	awayFor = 3 * time.Second
	// Of pods that are passed over, for one read. Traefik takes the pods in turn, but others take theirs in between.
	maxPassed = 3
	// Pods that are asked for a file which one pod and the primary lack.
	maxSought = 3
	// Reads that are asked again in vain: so many at once, and then so many a second. One that helps costs nothing.
	budgetBurst  = 100
	budgetRefill = 5
	// LiteFS's cookie, and how long a visitor's answer may wait for it.
	cookiePrefix  = "__txid="
	cookieTimeout = 2 * time.Second
	// Lines of the log are at least so far apart; each says how many reads it stands for.
	logEvery = time.Second
)

// What RFC 9110 7.6.1 (and practice) confines to one connection.
var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

var dnsName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)

// Config is what the Middleware object says.
type Config struct {
	// StatefulSet names the only set whose pods are followed.
	StatefulSet string `json:"statefulSet,omitempty"`
	// Service is the DNS name under which the set's pods are found: <pod>.<service>.
	Service string `json:"service,omitempty"`
	// Port is that of LiteFS's proxy in the pods.
	Port int `json:"port,omitempty"`
	// Replay is true on routes where a GET or HEAD is sent again, false where any Fly-Replay is a 503.
	Replay bool `json:"replay,omitempty"`
	// PrimaryService is the DNS name of the primary's Service. Where it is set (and Replay is true), reads that a pod could
	// not answer are asked again.
	PrimaryService string `json:"primaryService,omitempty"`
	// PrimaryPod names the pod behind it, whose own errors are not asked again.
	PrimaryPod string `json:"primaryPod,omitempty"`
	// PrimaryPort is the port of that Service.
	PrimaryPort int `json:"primaryPort,omitempty"`
	// ForwardPaths are the paths of GETs that write, as LiteFS has them in always-forward: * is the only wildcard.
	ForwardPaths []string `json:"forwardPaths,omitempty"`
	// StaticPaths are the prefixes of files that differ between builds: a 404 of one pod says nothing about the others.
	StaticPaths []string `json:"staticPaths,omitempty"`
	// CookiePath is asked of the primary by OPTIONS after a GET that wrote there; the answer's cookie of LiteFS is passed on.
	CookiePath string `json:"cookiePath,omitempty"`
	// AnswerTimeout is how many seconds a request that is sent from here may wait for the first line of its answer.
	AnswerTimeout int `json:"answerTimeout,omitempty"`
	// HeadRedirect is true on the route that redirects to https: Traefik answers HEAD with 308, and HEAD has to show
	// what GET would be answered, which is 301.
	HeadRedirect bool `json:"headRedirect,omitempty"`
	// UnavailablePage is the HTML that a browser gets in place of a 502, 503 or 504 that is no page of the application's own.
	UnavailablePage string `json:"unavailablePage,omitempty"`
}

// CreateConfig returns the defaults.
func CreateConfig() *Config {
	return &Config{Port: 8080, PrimaryPort: 80, AnswerTimeout: 120}
}

type middleware struct {
	next         http.Handler
	replay       bool
	headRedirect bool
	instance     *regexp.Regexp
	service      string
	port         string
	transport    *http.Transport
	primary      string // host:port; "": nothing is asked again
	primaryPod   string // its DNS name
	lookup       func(ctx context.Context, name string) ([]string, error)
	forward      []*regexp.Regexp
	static       []string
	cookiePath   string // "": none is got
	page         string // "": none is shown
	pods         *pods
	budget       *budget
	missing      *budget // of files that no pod has, so that who asks for them takes nothing from reads that fail
	journal      *journal
}

// New makes the middleware; a configuration that could send a request anywhere else is refused.
func New(_ context.Context, next http.Handler, config *Config, name string) (http.Handler, error) {
	if !dnsName.MatchString(config.StatefulSet) {
		return nil, fmt.Errorf("middleware %s: statefulSet %q is not a name", name, config.StatefulSet)
	}
	if !dnsName.MatchString(config.Service) {
		return nil, fmt.Errorf("middleware %s: service %q is not a DNS name", name, config.Service)
	}
	if config.Port < 1 || config.Port > 65535 {
		return nil, fmt.Errorf("middleware %s: port %d is not between 1 and 65535", name, config.Port)
	}
	if config.AnswerTimeout < 1 {
		return nil, fmt.Errorf("middleware %s: answerTimeout %d is not positive", name, config.AnswerTimeout)
	}
	primary := ""
	if config.PrimaryService != "" && config.Replay {
		if !dnsName.MatchString(config.PrimaryService) {
			return nil, fmt.Errorf("middleware %s: primaryService %q is not a DNS name", name, config.PrimaryService)
		}
		if config.PrimaryPort < 1 || config.PrimaryPort > 65535 {
			return nil, fmt.Errorf("middleware %s: primaryPort %d is not between 1 and 65535", name, config.PrimaryPort)
		}
		if config.PrimaryPod == "" {
			return nil, fmt.Errorf("middleware %s: primaryService needs primaryPod", name)
		}
		primary = config.PrimaryService + ":" + strconv.Itoa(config.PrimaryPort)
	}
	forward := []*regexp.Regexp{}
	for _, path := range config.ForwardPaths {
		forward = append(forward, regexp.MustCompile("^"+strings.ReplaceAll(regexp.QuoteMeta(path), "\\*", ".*")+"$"))
	}
	primaryPod := ""
	if config.PrimaryPod != "" {
		if !dnsName.MatchString(config.PrimaryPod) {
			return nil, fmt.Errorf("middleware %s: primaryPod %q is not a name", name, config.PrimaryPod)
		}
		primaryPod = config.PrimaryPod + "." + config.Service
	}
	dialer := &net.Dialer{Timeout: dialTimeout}
	return &middleware{
		primary:    primary,
		primaryPod: primaryPod,
		lookup: func(ctx context.Context, name string) ([]string, error) {
			return net.DefaultResolver.LookupHost(ctx, name)
		},
		forward:      forward,
		static:       config.StaticPaths,
		cookiePath:   config.CookiePath,
		page:         config.UnavailablePage,
		pods:         &pods{known: map[string]*pod{}},
		budget:       &budget{tokens: budgetBurst},
		missing:      &budget{tokens: budgetBurst},
		journal:      &journal{write: func(line string) { fmt.Fprintln(os.Stderr, line) }},
		next:         next,
		replay:       config.Replay,
		headRedirect: config.HeadRedirect,
		instance:     regexp.MustCompile("^" + regexp.QuoteMeta(config.StatefulSet) + "-[0-9]+$"),
		service:      config.Service,
		port:         strconv.Itoa(config.Port),
		transport: &http.Transport{
			// Traefik's interpreter does not take dialer.DialContext itself for a function value.
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				return dialer.DialContext(ctx, network, address)
			},
			// The client's own Accept-Encoding decides, not this hop.
			DisableCompression: true,
			// A request on a kept connection may be repeated by Go when that connection turns out dead. A GET
			// that writes must not run twice.
			DisableKeepAlives: true,
			// A primary that hangs must not hold its visitors for ever.
			ResponseHeaderTimeout: time.Duration(config.AnswerTimeout) * time.Second,
		},
	}, nil
}

func (m *middleware) ServeHTTP(rw http.ResponseWriter, req *http.Request) {
	if m.isRead(req) {
		m.read(rw, req)
		return
	}
	answer := newResponder(rw)
	answer.page = m.pageFor(req)
	answer.moved = m.headRedirect && req.Method == http.MethodHead
	if m.primaryPod != "" && m.isForwarded(req) {
		// Where it is no Fly-Replay the primary itself was asked.
		answer.mark = func(to http.Header) { m.addCookie(req, m.primaryPod+":"+m.port, to) }
	}
	m.next.ServeHTTP(answer, req)
	m.end(answer, req)
}

// end follows a Fly-Replay, if the answer was one.
func (m *middleware) end(answer *responder, req *http.Request) {
	answer.finish()
	if !answer.replay {
		return
	}
	target := m.target(answer.value)
	if target == "" || !m.replay || !safe(req) || hasBody(req) {
		unavailable(answer.rw, answer.page)
		return
	}
	resp, err := m.send(req, target)
	if err != nil {
		unavailable(answer.rw, answer.page)
		return
	}
	// Another Fly-Replay: the primary is moving. Following a chain could go round in circles.
	if len(resp.Header.Values(header)) > 0 {
		resp.Body.Close()
		unavailable(answer.rw, answer.page)
		return
	}
	if resp.StatusCode < http.StatusInternalServerError {
		m.addCookie(req, target, resp.Header)
	}
	pass(answer.rw, resp)
}

// addCookie gets LiteFS's cookie from the primary, which has the visitor's write by now. Without it a replica may answer the
// next request from before that write; that is no reason to fail this one.
func (m *middleware) addCookie(req *http.Request, target string, to http.Header) {
	if m.cookiePath == "" || target == "" || hasCookie(to) {
		return
	}
	ctx, cancel := context.WithTimeout(req.Context(), cookieTimeout)
	defer cancel()
	ask := &http.Request{
		Method: http.MethodOptions,
		URL:    &url.URL{Scheme: "http", Host: target, Path: m.cookiePath},
		Header: http.Header{},
		Host:   req.Host,
	}
	resp, err := m.transport.RoundTrip(ask.WithContext(ctx))
	if err != nil {
		return
	}
	resp.Body.Close()
	for _, line := range resp.Header.Values("Set-Cookie") {
		if strings.HasPrefix(line, cookiePrefix) {
			to.Add("Set-Cookie", line)
		}
	}
}

func hasCookie(found http.Header) bool {
	for _, line := range found.Values("Set-Cookie") {
		if strings.HasPrefix(line, cookiePrefix) {
			return true
		}
	}
	return false
}

// target returns host:port of the pod that the header's value names, "" where it names none of ours.
func (m *middleware) target(value string) string {
	for _, field := range strings.Split(value, ";") {
		key, instance, found := strings.Cut(strings.TrimSpace(field), "=")
		if found && key == "instance" && m.instance.MatchString(instance) {
			return instance + "." + m.service + ":" + m.port
		}
	}
	return ""
}

// send sends the request to a pod's proxy, or to the primary's Service.
func (m *middleware) send(req *http.Request, target string) (*http.Response, error) {
	again := &http.Request{
		Method: req.Method,
		URL:    &url.URL{Scheme: "http", Host: target, Path: req.URL.Path, RawPath: req.URL.RawPath, RawQuery: req.URL.RawQuery},
		Header: req.Header.Clone(),
		Host:   req.Host,
	}
	again = again.WithContext(req.Context())
	removeHopByHop(again.Header)
	if client, _, err := net.SplitHostPort(req.RemoteAddr); err == nil {
		// As Traefik's own proxy does; what the client forged was removed at the entry point.
		again.Header.Set("X-Forwarded-For", strings.Join(append(req.Header.Values("X-Forwarded-For"), client), ", "))
	}
	return m.transport.RoundTrip(again)
}

// pass streams the answer of a pod that was asked from here.
func pass(rw http.ResponseWriter, resp *http.Response) {
	defer resp.Body.Close()
	removeHopByHop(resp.Header)
	copyHeader(rw.Header(), resp.Header)
	rw.WriteHeader(resp.StatusCode)
	if err := stream(rw, resp.Body); err != nil {
		// Half an answer must not look like a whole one.
		panic(http.ErrAbortHandler)
	}
}

// isRead tells whether the request may be asked again: it changes nothing, and nothing of it is gone after the first try.
func (m *middleware) isRead(req *http.Request) bool {
	if m.primary == "" || !safe(req) || hasBody(req) || req.Header.Get("Upgrade") != "" {
		return false
	}
	return !m.isForwarded(req)
}

// isForwarded tells whether LiteFS sends the request to the primary itself, because its GETs write.
func (m *middleware) isForwarded(req *http.Request) bool {
	if !safe(req) {
		return false
	}
	for _, path := range m.forward {
		if path.MatchString(req.URL.Path) {
			return true
		}
	}
	return false
}

// isMissing tells whether a pod lacks a file that another one may have, because it is of another build.
func (m *middleware) isMissing(req *http.Request, status int) bool {
	if status != http.StatusNotFound {
		return false
	}
	for _, prefix := range m.static {
		if strings.HasPrefix(req.URL.Path, prefix) {
			return true
		}
	}
	return false
}

// noAnswer tells whether a status means that a pod could not answer, in place of the application's own word.
func noAnswer(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

// isPrimary tells whether an address, as Traefik dialled it, is the primary's.
func (m *middleware) isPrimary(ctx context.Context, address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	found, err := m.lookup(ctx, m.primaryPod)
	if err != nil {
		return false
	}
	for _, one := range found {
		if one == host {
			return true
		}
	}
	return false
}

// read asks a pod, and where that failed the primary, and where that is away whatever pod Traefik picks next.
// That one's answer passes as it is.
func (m *middleware) read(rw http.ResponseWriter, req *http.Request) {
	first := m.ask(rw, req, true)
	if !first.failed {
		m.end(first, req)
		return
	}
	if m.pods.isAway(m.primary) {
		m.readElsewhere(rw, req, first.status)
		return
	}
	resp, err := m.send(req, m.primary)
	if err != nil {
		m.pods.lose(m.primary)
		m.readElsewhere(rw, req, first.status)
		return
	}
	missing := m.isMissing(req, first.status)
	lacks := missing && resp.StatusCode >= http.StatusBadRequest
	if lacks || noAnswer(resp.StatusCode) || len(resp.Header.Values(header)) > 0 {
		resp.Body.Close()
		m.readElsewhere(rw, req, first.status)
		return
	}
	if missing {
		// It wrote nothing, and caches keep the answer: no cookie.
		m.missing.give()
	} else if resp.StatusCode < http.StatusInternalServerError {
		m.budget.give()
		m.addCookie(req, m.primary, resp.Header)
	}
	m.journal.note(req, first.status, "the primary", resp.StatusCode)
	pass(rw, resp)
}

func (m *middleware) readElsewhere(rw http.ResponseWriter, req *http.Request, before int) {
	last := m.ask(rw, req, m.isMissing(req, before))
	// The one pod of the new build may be any of those that Traefik asks in turn.
	for sought := 1; last.failed; sought++ {
		last = m.ask(rw, req, sought < maxSought)
	}
	if m.isMissing(req, before) {
		if last.status < http.StatusBadRequest {
			m.missing.give()
		}
	} else if last.status < http.StatusInternalServerError {
		m.budget.give()
	}
	m.journal.note(req, before, "another pod", last.status)
	m.end(last, req)
}

// ask has Traefik ask a pod. With again, an answer that is none is dropped, if the budget allows to ask once more.
// Pods that take no connection at the moment are passed over.
func (m *middleware) ask(rw http.ResponseWriter, req *http.Request, again bool) *responder {
	for passed := 0; ; passed++ {
		answer, over := m.try(rw, req, again, passed < maxPassed)
		if !over {
			return answer
		}
	}
}

// try is one attempt at one pod, which Traefik picks. It returns true where that pod was passed over.
func (m *middleware) try(rw http.ResponseWriter, req *http.Request, again, passOver bool) (*responder, bool) {
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	v := &visit{visitor: req.Context(), cancel: cancel, canLose: again, passOver: passOver}
	trace := &httptrace.ClientTrace{
		GetConn: func(address string) { m.pods.enter(v, address) },
		GotConn: func(got httptrace.GotConnInfo) { m.pods.connected(v, got.Reused) },
	}
	answer := newResponder(rw)
	answer.page = m.pageFor(req)
	answer.fails = func(status int) bool {
		address := m.pods.leave(v)
		if v.over {
			return true
		}
		missing := !v.lost && m.isMissing(req, status)
		failed := v.lost || missing || status >= http.StatusInternalServerError
		if !again || !failed || req.Context().Err() != nil {
			return false
		}
		if missing {
			return m.missing.take()
		}
		if !v.lost && !noAnswer(status) && m.isPrimary(req.Context(), address) {
			return false
		}
		return m.budget.take() || v.lost
	}
	// Traefik's interpreter hangs where a deferred function is one that was made here.
	defer m.pods.leave(v)
	m.next.ServeHTTP(answer, req.WithContext(httptrace.WithClientTrace(ctx, trace)))
	answer.finish()
	if v.lost {
		answer.status = http.StatusGatewayTimeout // not 499, which is what Traefik makes of it
	}
	return answer, v.over
}

// pods knows which addresses took no connection a moment ago, and who waits for an answer of which.
type pods struct {
	mutex sync.Mutex
	known map[string]*pod
}

type pod struct {
	until   time.Time // away until then
	waiting map[*visit]bool
}

// visit is one attempt at one pod.
type visit struct {
	visitor   context.Context
	cancel    context.CancelFunc
	passOver  bool // a pod that is away is not asked
	canLose   bool // there is a next attempt
	address   string
	connected bool
	over      bool // the pod was passed over
	lost      bool // the pod turned out to be away while this one waited for its answer
}

func (p *pods) isAway(address string) bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	found := p.known[address]
	return found != nil && time.Now().Before(found.until)
}

// lose marks an address that took no connection, and gives up what waits for an answer of it: on a connection that was kept
// to a node that died nothing ever comes.
func (p *pods) lose(address string) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	now := time.Now()
	for other, found := range p.known {
		if len(found.waiting) == 0 && now.After(found.until) {
			delete(p.known, other)
		}
	}
	found := p.get(address)
	found.until = now.Add(awayFor)
	for v := range found.waiting {
		if v.canLose {
			v.lost = true
			v.cancel()
		}
	}
}

func (p *pods) get(address string) *pod {
	found := p.known[address]
	if found == nil {
		found = &pod{waiting: map[*visit]bool{}}
		p.known[address] = found
	}
	return found
}

// enter notes that Traefik is about to get a connection to this address.
func (p *pods) enter(v *visit, address string) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.forget(v)
	v.address = address
	v.connected = false
	found := p.get(address)
	found.waiting[v] = true
	if v.passOver && time.Now().Before(found.until) {
		v.over = true
		v.cancel()
	}
}

// connected notes that there is a connection. One that was kept says nothing about the pod.
func (p *pods) connected(v *visit, kept bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	v.connected = true
	if found := p.known[v.address]; found != nil && !kept {
		found.until = time.Time{}
	}
}

// leave ends a visit, marks its pod where it never got a connection, and returns the pod's address. Only the first call
// for a visit does anything.
func (p *pods) leave(v *visit) string {
	p.mutex.Lock()
	address := v.address
	// A visitor who goes away while Traefik connects says nothing about the pod.
	away := address != "" && !v.connected && !v.over && !v.lost && v.visitor.Err() == nil
	p.forget(v)
	v.address = ""
	p.mutex.Unlock()
	if away {
		p.lose(address)
	}
	return address
}

func (p *pods) forget(v *visit) {
	found := p.known[v.address]
	if found == nil {
		return
	}
	delete(found.waiting, v)
	if len(found.waiting) == 0 && time.Now().After(found.until) {
		delete(p.known, v.address)
	}
}

// budget keeps an application that fails everywhere from being asked twice as often for ever.
type budget struct {
	mutex  sync.Mutex
	tokens float64
	filled time.Time
}

func (b *budget) take() bool {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	now := time.Now()
	if !b.filled.IsZero() {
		b.tokens += now.Sub(b.filled).Seconds() * budgetRefill
	}
	b.filled = now
	if b.tokens > budgetBurst {
		b.tokens = budgetBurst
	}
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func (b *budget) give() {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.tokens++
}

// journal says which reads were asked again, in Traefik's log.
type journal struct {
	mutex  sync.Mutex
	write  func(string)
	last   time.Time
	unsaid int
}

func (j *journal) note(req *http.Request, status int, by string, answer int) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	j.unsaid++
	if time.Since(j.last) < logEvery {
		return
	}
	path := req.URL.Path // without the query, which may hold secrets
	if len(path) > 200 {
		path = path[:200]
	}
	quoted, _ := json.Marshal(path)
	j.write(fmt.Sprintf("flyreplay: %d asked again since the last line; now %s %s: %d, then %d from %s",
		j.unsaid, req.Method, quoted, status, answer, by))
	// One by one: of an assignment to two fields Traefik's interpreter forgets the constant.
	j.last = time.Now()
	j.unsaid = 0
}

// stream passes each part on when it comes.
func stream(rw http.ResponseWriter, body io.Reader) error {
	buffer := make([]byte, 32*1024)
	for {
		count, err := body.Read(buffer)
		if count > 0 {
			if _, werr := rw.Write(buffer[:count]); werr != nil {
				return werr
			}
			flush(rw)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func unavailable(rw http.ResponseWriter, page string) {
	if page != "" {
		show(rw, http.StatusServiceUnavailable, page)
		return
	}
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	rw.Header().Set("Cache-Control", "no-store")
	rw.Header().Set("Retry-After", retryAfter)
	rw.WriteHeader(http.StatusServiceUnavailable)
	_, _ = rw.Write([]byte("The primary is not available at the moment; please try again.\n"))
}

// show answers with the page. Of a HEAD the server sends no body.
func show(rw http.ResponseWriter, status int, page string) {
	for _, name := range []string{"Content-Encoding", "Etag", "Last-Modified"} {
		rw.Header().Del(name)
	}
	rw.Header().Set("Content-Type", "text/html; charset=utf-8")
	rw.Header().Set("Content-Length", strconv.Itoa(len(page)))
	rw.Header().Set("Cache-Control", "no-store")
	if rw.Header().Get("Retry-After") == "" {
		rw.Header().Set("Retry-After", retryAfter)
	}
	rw.WriteHeader(status)
	_, _ = rw.Write([]byte(page))
}

// pageFor is the page for whoever reads in a browser; programs get the plain answer.
func (m *middleware) pageFor(req *http.Request) string {
	if safe(req) && strings.Contains(strings.Join(req.Header.Values("Accept"), ","), "text/html") {
		return m.page
	}
	return ""
}

func safe(req *http.Request) bool {
	return req.Method == http.MethodGet || req.Method == http.MethodHead
}

func hasBody(req *http.Request) bool {
	return req.ContentLength != 0 || len(req.TransferEncoding) > 0
}

func removeHopByHop(h http.Header) {
	for _, line := range h.Values("Connection") {
		for _, name := range strings.Split(line, ",") {
			if name = strings.TrimSpace(name); name != "" {
				h.Del(name)
			}
		}
	}
	for _, name := range hopByHop {
		h.Del(name)
	}
}

func copyHeader(to, from http.Header) {
	for name, values := range from {
		to[name] = append([]string(nil), values...)
	}
}

func flush(rw http.ResponseWriter) {
	if flusher, ok := rw.(http.Flusher); ok {
		flusher.Flush()
	}
}

// responder decides at the first header line whether the answer passes or is dropped.
type responder struct {
	rw       http.ResponseWriter
	before   http.Header // what outer middlewares had set
	dropped  http.Header // where a dropped answer goes on setting headers
	decided  bool
	replay   bool
	value    string
	streamed bool
	moved    bool // 308 becomes 301
	status   int
	fails    func(status int) bool // whether the answer is to be dropped because it is none
	failed   bool
	page     string // in place of an answer that is none; "": the answer passes
	shown    bool
	mark     func(http.Header) // adds to the headers of an answer that passes
}

func newResponder(rw http.ResponseWriter) *responder {
	return &responder{rw: rw, before: rw.Header().Clone()}
}

func (r *responder) Header() http.Header {
	if r.replay || r.failed {
		return r.dropped
	}
	return r.rw.Header()
}

func (r *responder) WriteHeader(status int) {
	if r.decided {
		return
	}
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		// Early hints and the like come before the answer.
		r.rw.Header().Del(header)
		r.rw.WriteHeader(status)
		return
	}
	if r.moved && status == http.StatusPermanentRedirect {
		status = http.StatusMovedPermanently
	}
	r.decide(status)
	if !r.replay && !r.failed {
		if r.page != "" && noAnswer(status) && !strings.HasPrefix(r.rw.Header().Get("Content-Type"), "text/html") {
			r.shown = true
			r.rw.Header().Del(header)
			show(r.rw, status, r.page)
			return
		}
		r.streamed = r.rw.Header().Get("Content-Length") == ""
		r.rw.WriteHeader(status)
	}
}

func (r *responder) decide(status int) {
	r.decided = true
	r.status = status
	current := r.rw.Header()
	values := current.Values(header)
	r.failed = r.fails != nil && r.fails(status)
	r.replay = len(values) > 0
	if !r.replay && !r.failed {
		if r.mark != nil && status < http.StatusInternalServerError {
			r.mark(current)
		}
		return
	}
	r.value = strings.Join(values, ";")
	r.dropped = http.Header{}
	for name := range current {
		delete(current, name)
	}
	copyHeader(current, r.before)
}

func (r *responder) Write(part []byte) (int, error) {
	if !r.decided {
		r.WriteHeader(http.StatusOK)
	}
	if r.replay || r.failed || r.shown {
		return len(part), nil
	}
	count, err := r.rw.Write(part)
	if err == nil && r.streamed {
		// Traefik's interpreter hides Flush from whoever holds this writer, so it happens here.
		flush(r.rw)
	}
	return count, err
}

// finish decides about an answer that was only headers, and keeps the header out of the trailers.
func (r *responder) finish() {
	if !r.decided {
		r.decide(http.StatusOK)
	}
	r.rw.Header().Del(header)
	r.rw.Header().Del(http.TrailerPrefix + header)
}

func (r *responder) Flush() {
	if !r.decided {
		r.WriteHeader(http.StatusOK)
	}
	if !r.replay && !r.failed {
		flush(r.rw)
	}
}

func (r *responder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if hijacker, ok := r.rw.(http.Hijacker); ok {
		r.decided = true
		return hijacker.Hijack()
	}
	return nil, nil, errors.New("the connection cannot be taken over")
}
