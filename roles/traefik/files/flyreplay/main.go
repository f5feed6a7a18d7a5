// Package flyreplay is a Traefik middleware that honours the Fly-Replay header of LiteFS's proxy.
//
// On a replica that proxy answers a request which has to run on the primary with an empty 200 and
// "Fly-Replay: instance=<pod>", and expects the edge to send the request again to that pod. Here a GET or HEAD
// is sent again where the route allows it; any other method never is, because its body is gone and would have to
// be buffered. What cannot be sent again becomes 503 with Retry-After. Neither the header nor the empty 200 that
// carries it leaves the site.
package flyreplay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	header      = "Fly-Replay"
	retryAfter  = "2"
	dialTimeout = 3 * time.Second
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
	// HeadRedirect is true on the route that redirects to https: Traefik answers HEAD with 308, and HEAD has to show
	// what GET would be answered, which is 301.
	HeadRedirect bool `json:"headRedirect,omitempty"`
}

// CreateConfig returns the defaults.
func CreateConfig() *Config {
	return &Config{Port: 8080}
}

type middleware struct {
	next         http.Handler
	replay       bool
	headRedirect bool
	instance     *regexp.Regexp
	service      string
	port         string
	transport    *http.Transport
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
	dialer := &net.Dialer{Timeout: dialTimeout}
	return &middleware{
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
		},
	}, nil
}

func (m *middleware) ServeHTTP(rw http.ResponseWriter, req *http.Request) {
	answer := newResponder(rw)
	answer.moved = m.headRedirect && req.Method == http.MethodHead
	m.next.ServeHTTP(answer, req)
	answer.finish()
	if !answer.replay {
		return
	}
	target := m.target(answer.value)
	readOnly := req.Method == http.MethodGet || req.Method == http.MethodHead
	if target == "" || !m.replay || !readOnly || hasBody(req) {
		unavailable(rw)
		return
	}
	m.send(rw, req, target)
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

// send sends the request again, to the pod's proxy, and streams its answer.
func (m *middleware) send(rw http.ResponseWriter, req *http.Request, target string) {
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
	resp, err := m.transport.RoundTrip(again)
	if err != nil {
		unavailable(rw)
		return
	}
	defer resp.Body.Close()
	if len(resp.Header.Values(header)) > 0 {
		// The primary is moving. Following a chain could go round in circles.
		unavailable(rw)
		return
	}
	removeHopByHop(resp.Header)
	copyHeader(rw.Header(), resp.Header)
	rw.WriteHeader(resp.StatusCode)
	if err := stream(rw, resp.Body); err != nil {
		// Half an answer must not look like a whole one.
		panic(http.ErrAbortHandler)
	}
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

func unavailable(rw http.ResponseWriter) {
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	rw.Header().Set("Cache-Control", "no-store")
	rw.Header().Set("Retry-After", retryAfter)
	rw.WriteHeader(http.StatusServiceUnavailable)
	_, _ = rw.Write([]byte("The primary is not available at the moment; please try again.\n"))
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
}

func newResponder(rw http.ResponseWriter) *responder {
	return &responder{rw: rw, before: rw.Header().Clone()}
}

func (r *responder) Header() http.Header {
	if r.replay {
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
	r.decide()
	if !r.replay {
		r.streamed = r.rw.Header().Get("Content-Length") == ""
		r.rw.WriteHeader(status)
	}
}

func (r *responder) decide() {
	r.decided = true
	current := r.rw.Header()
	values := current.Values(header)
	if len(values) == 0 {
		return
	}
	r.replay = true
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
	if r.replay {
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
		r.decide()
	}
	r.rw.Header().Del(header)
	r.rw.Header().Del(http.TrailerPrefix + header)
}

func (r *responder) Flush() {
	if !r.decided {
		r.WriteHeader(http.StatusOK)
	}
	if !r.replay {
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
