package flyreplay

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// site is an edge with the middleware before one pod (replica), and the pods that a name can lead to.
type site struct {
	edge   *httptest.Server
	dialed []string
}

func serve(t *testing.T, handler http.Handler) *url.URL {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	address, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return address
}

func newSite(t *testing.T, replay bool, replica, primary http.Handler) *site {
	t.Helper()
	s := &site{}
	proxy := httputil.NewSingleHostReverseProxy(serve(t, replica))
	proxy.FlushInterval = -1
	config := CreateConfig()
	config.StatefulSet, config.Service, config.Replay = "abaci-app", "pods.example", replay
	made, err := New(context.Background(), proxy, config, "test")
	if err != nil {
		t.Fatal(err)
	}
	var pod string
	if primary != nil {
		pod = serve(t, primary).Host
	}
	made.(*middleware).transport.DialContext = func(_ context.Context, network, address string) (net.Conn, error) {
		s.dialed = append(s.dialed, address)
		if pod == "" {
			return nil, errors.New("no route to host")
		}
		return net.Dial(network, pod)
	}
	s.edge = httptest.NewServer(made)
	t.Cleanup(s.edge.Close)
	return s
}

func (s *site) do(t *testing.T, method, path string, body io.Reader, headers map[string]string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, s.edge.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(content)
}

// sends answers as LiteFS's proxy on a replica does, and keeps what it was asked.
func sends(value string) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Fly-Replay", value)
		rw.Header().Set("X-Replica", "yes")
	}
}

func isUnavailable(t *testing.T, resp *http.Response, body, method string) {
	t.Helper()
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("want 503 with Retry-After, got %d %v", resp.StatusCode, resp.Header)
	}
	if _, there := resp.Header["Fly-Replay"]; there {
		t.Errorf("Fly-Replay left the site: %v", resp.Header)
	}
	if method != http.MethodHead && body == "" {
		t.Error("the answer is empty")
	}
}

func TestAnAnswerWithoutTheHeaderPassesUnchanged(t *testing.T) {
	s := newSite(t, true, http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		rw.Header().Set("Set-Cookie", "__txid=0000000000000002")
		rw.WriteHeader(http.StatusTeapot)
		_, _ = rw.Write(append([]byte(req.Method+" "), body...))
	}), nil)
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		resp, body := s.do(t, method, "/", strings.NewReader("x"), nil)
		if resp.StatusCode != http.StatusTeapot || body != method+" x" {
			t.Errorf("%s: got %d %q", method, resp.StatusCode, body)
		}
		if resp.Header.Get("Set-Cookie") != "__txid=0000000000000002" {
			t.Errorf("%s: the cookie is gone: %v", method, resp.Header)
		}
	}
	if len(s.dialed) != 0 {
		t.Errorf("sent again without being told to: %v", s.dialed)
	}
}

func TestGetAndHeadAreSentAgainToThePodNamed(t *testing.T) {
	var seen *http.Request
	s := newSite(t, true, sends("instance=abaci-app-0"), http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		seen = req
		rw.Header().Set("Set-Cookie", "__txid=0000000000000003")
		rw.Header().Set("Keep-Alive", "timeout=5")
		rw.Header().Set("Location", "/elsewhere")
		rw.WriteHeader(http.StatusFound)
		if req.Method == http.MethodGet {
			_, _ = rw.Write([]byte("from the primary"))
		}
	}))
	for _, method := range []string{"GET", "HEAD"} {
		resp, body := s.do(t, method, "/a%2Fb/c?user=x&y=%20", nil, map[string]string{
			"Host": "ignored", "Cookie": "session=1", "Connection": "X-Mine", "X-Mine": "1",
			"X-Forwarded-For": "198.51.100.7", "Accept-Encoding": "identity",
		})
		if resp.StatusCode != http.StatusFound || resp.Header.Get("Location") != "/elsewhere" {
			t.Errorf("%s: a redirect is the client's to follow, got %d", method, resp.StatusCode)
		}
		if method == "GET" && body != "from the primary" {
			t.Errorf("got %q", body)
		}
		if resp.Header.Get("Set-Cookie") == "" || resp.Header.Get("X-Replica") != "" || resp.Header.Get("Keep-Alive") != "" {
			t.Errorf("%s: headers %v", method, resp.Header)
		}
		if seen.Method != method || seen.RequestURI != "/a%2Fb/c?user=x&y=%20" {
			t.Errorf("%s: the primary was asked %s %s", method, seen.Method, seen.RequestURI)
		}
		if seen.Header.Get("Cookie") != "session=1" || seen.Header.Get("X-Mine") != "" {
			t.Errorf("%s: the primary saw %v", method, seen.Header)
		}
		if got := seen.Header.Get("X-Forwarded-For"); got != "198.51.100.7, 127.0.0.1" {
			t.Errorf("%s: X-Forwarded-For %q", method, got)
		}
		if seen.Host != strings.TrimPrefix(s.edge.URL, "http://") {
			t.Errorf("%s: Host %q is not the client's", method, seen.Host)
		}
	}
	if len(s.dialed) != 2 || s.dialed[0] != "abaci-app-0.pods.example:8080" {
		t.Errorf("dialed %v", s.dialed)
	}
}

func TestOtherMethodsAreNeverSentAgain(t *testing.T) {
	asked := 0
	s := newSite(t, true, sends("instance=abaci-app-0"), http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		resp, body := s.do(t, method, "/", strings.NewReader("{}"), nil)
		isUnavailable(t, resp, body, method)
		if resp.Header.Get("X-Replica") != "" {
			t.Errorf("%s: headers of the dropped answer: %v", method, resp.Header)
		}
	}
	resp, body := s.do(t, "GET", "/", strings.NewReader("a body that is gone"), nil)
	isUnavailable(t, resp, body, "GET")
	if asked != 0 || len(s.dialed) != 0 {
		t.Errorf("the primary was asked %d times, dialed %v", asked, s.dialed)
	}
}

func TestOnTheWritingRouteNothingIsSentAgain(t *testing.T) {
	s := newSite(t, false, sends("instance=abaci-app-0"), http.NotFoundHandler())
	for _, method := range []string{"GET", "HEAD", "POST"} {
		resp, body := s.do(t, method, "/", nil, nil)
		isUnavailable(t, resp, body, method)
	}
	if len(s.dialed) != 0 {
		t.Errorf("dialed %v", s.dialed)
	}
}

func TestARedirectShowsHeadWhatGetIsAnswered(t *testing.T) {
	// As Traefik's redirectScheme: 301 for GET, 308 for every other method.
	redirect := http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		rw.Header().Set("Location", "https://abaci.localhost/")
		status := http.StatusPermanentRedirect
		if req.Method == http.MethodGet {
			status = http.StatusMovedPermanently
		}
		rw.WriteHeader(status)
	})
	for _, on := range []bool{true, false} {
		config := CreateConfig()
		config.StatefulSet, config.Service, config.HeadRedirect = "abaci-app", "pods.example", on
		made, err := New(context.Background(), redirect, config, "test")
		if err != nil {
			t.Fatal(err)
		}
		for method, want := range map[string]int{"GET": 301, "HEAD": 301, "POST": 308, "OPTIONS": 308} {
			if method == "HEAD" && !on {
				want = 308
			}
			got := httptest.NewRecorder()
			made.ServeHTTP(got, httptest.NewRequest(method, "/", nil))
			if got.Code != want || got.Header().Get("Location") == "" {
				t.Errorf("headRedirect %v, %s: %d %v", on, method, got.Code, got.Header())
			}
		}
	}
}

func TestOnlyPodsOfTheStatefulSetAreFollowed(t *testing.T) {
	for _, value := range []string{
		"", "instance=", "abaci-app-0", "instance=abaci-app", "instance=abaci-app-", "instance=abaci-app-0x",
		"instance=redis", "instance=other-0", "instance=abaci-app-0.evil.example", "instance=evil.example/abaci-app-0",
		"instance=xabaci-app-0", "instance=abaci-app-0\t@evil.example", "region=fra", "app=other;instance=redis",
	} {
		s := newSite(t, true, sends(value), http.NotFoundHandler())
		resp, body := s.do(t, "GET", "/", nil, nil)
		isUnavailable(t, resp, body, "GET")
		if len(s.dialed) != 0 {
			t.Errorf("%q: dialed %v", value, s.dialed)
		}
	}
	s := newSite(t, true, sends("state=1; instance=abaci-app-12"), http.NotFoundHandler())
	if resp, _ := s.do(t, "GET", "/", nil, nil); resp.StatusCode != http.StatusNotFound {
		t.Errorf("got %d", resp.StatusCode)
	}
	if len(s.dialed) != 1 || s.dialed[0] != "abaci-app-12.pods.example:8080" {
		t.Errorf("dialed %v", s.dialed)
	}
}

func TestNoConnectionAndASecondReplayAre503(t *testing.T) {
	for name, primary := range map[string]http.Handler{
		"no connection": nil,
		"moving":        sends("instance=abaci-app-1"),
		"moving, empty": sends(""),
	} {
		s := newSite(t, true, sends("instance=abaci-app-0"), primary)
		resp, body := s.do(t, "GET", "/", nil, nil)
		t.Log(name)
		isUnavailable(t, resp, body, "GET")
		if len(s.dialed) != 1 {
			t.Errorf("%s: dialed %v", name, s.dialed)
		}
	}
}

func TestAStreamPassesWhileItGoesOn(t *testing.T) {
	release := make(chan struct{})
	streaming := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		_, _ = rw.Write([]byte("data: 1\n\n"))
		rw.(http.Flusher).Flush()
		<-release
	})
	for name, s := range map[string]*site{
		"passed":     newSite(t, true, streaming, nil),
		"sent again": newSite(t, true, sends("instance=abaci-app-0"), streaming),
	} {
		resp, err := http.Get(s.edge.URL)
		if err != nil {
			t.Fatal(err)
		}
		line := make(chan string, 1)
		go func() {
			text, _ := bufio.NewReader(resp.Body).ReadString('\n')
			line <- text
		}()
		select {
		case text := <-line:
			if text != "data: 1\n" {
				t.Errorf("%s: got %q", name, text)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%s: nothing came while the answer was open", name)
		}
		release <- struct{}{}
		resp.Body.Close()
	}
}

func TestHalfAnAnswerOfThePrimaryIsNotAWholeOne(t *testing.T) {
	// Of an answer that says its length a visitor sees it anyway.
	for _, length := range []string{"100", ""} {
		s := newSite(t, true, sends("instance=abaci-app-0"), http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			if length != "" {
				rw.Header().Set("Content-Length", length)
			}
			_, _ = rw.Write([]byte("half"))
			rw.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}))
		resp, err := http.Get(s.edge.URL)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		if err == nil {
			t.Errorf("the cut answer of length %q looked complete", length)
		}
	}
}

func TestEarlyHintsDoNotDecide(t *testing.T) {
	s := newSite(t, true, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Link", "</a.css>; rel=preload")
		rw.WriteHeader(http.StatusEarlyHints)
		rw.Header().Set("Fly-Replay", "instance=abaci-app-0")
		rw.WriteHeader(http.StatusOK)
	}), http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("primary")) }))
	if resp, body := s.do(t, "GET", "/", nil, nil); body != "primary" || resp.StatusCode != http.StatusOK {
		t.Errorf("got %d %q", resp.StatusCode, body)
	}
}

func TestAConfigurationThatLeadsElsewhereIsRefused(t *testing.T) {
	for name, config := range map[string]*Config{
		"no set":     {Service: "s", Port: 8080, AnswerTimeout: 1},
		"no service": {StatefulSet: "a", Port: 8080, AnswerTimeout: 1},
		"pattern":    {StatefulSet: ".*", Service: "s", Port: 8080, AnswerTimeout: 1},
		"address":    {StatefulSet: "a", Service: "x@198.51.100.1", Port: 8080, AnswerTimeout: 1},
		"port":       {StatefulSet: "a", Service: "s", Port: 0, AnswerTimeout: 1},
		"timeout":    {StatefulSet: "a", Service: "s", Port: 8080},
		"primary":    {StatefulSet: "a", Service: "s", Port: 8080, AnswerTimeout: 1, Replay: true, PrimaryService: "a/b", PrimaryPort: 80},
		"its port":   {StatefulSet: "a", Service: "s", Port: 8080, AnswerTimeout: 1, Replay: true, PrimaryService: "a", PrimaryPod: "a-0", PrimaryPort: 0},
		"its pod":    {StatefulSet: "a", Service: "s", Port: 8080, AnswerTimeout: 1, Replay: true, PrimaryService: "a", PrimaryPort: 80},
	} {
		if _, err := New(context.Background(), http.NotFoundHandler(), config, "test"); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// pool is an edge before several pods that are asked in turn, as Traefik's load balancer does, and the primary's Service.
type pool struct {
	*site
	made  *middleware
	taken []string // the pods that Traefik connected to, or tried to
	lines []string // of the log
	count atomic.Int64
}

// newPool has a pod for each URL; primary nil means that the Service has no address.
func newPool(t *testing.T, settings *Config, primary http.Handler, pods ...*url.URL) *pool {
	t.Helper()
	p := &pool{site: &site{}}
	var mutex sync.Mutex
	var proxies []http.Handler
	for _, pod := range pods {
		proxy := httputil.NewSingleHostReverseProxy(pod)
		proxy.FlushInterval = -1
		proxy.ErrorLog = log.New(io.Discard, "", 0)
		proxy.Transport = &http.Transport{DialContext: func(_ context.Context, network, address string) (net.Conn, error) {
			mutex.Lock()
			p.taken = append(p.taken, address)
			mutex.Unlock()
			return net.Dial(network, address)
		}}
		proxies = append(proxies, proxy)
	}
	turn := 0
	next := http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		p.count.Add(1)
		mutex.Lock()
		chosen := proxies[turn%len(proxies)]
		turn++
		mutex.Unlock()
		chosen.ServeHTTP(rw, req)
	})
	made, err := New(context.Background(), next, settings, "test")
	if err != nil {
		t.Fatal(err)
	}
	p.made = made.(*middleware)
	p.made.journal.write = func(line string) { p.lines = append(p.lines, line) }
	p.made.lookup = func(context.Context, string) ([]string, error) { return nil, errors.New("no such host") }
	var service string
	if primary != nil {
		service = serve(t, primary).Host
	}
	p.made.transport.DialContext = func(_ context.Context, network, address string) (net.Conn, error) {
		mutex.Lock()
		p.dialed = append(p.dialed, address)
		mutex.Unlock()
		if service == "" {
			return nil, errors.New("no route to host")
		}
		return net.Dial(network, service)
	}
	p.edge = httptest.NewServer(made)
	t.Cleanup(p.edge.Close)
	return p
}

func reading() *Config {
	settings := CreateConfig()
	settings.StatefulSet, settings.Service, settings.Replay = "abaci-app", "pods.example", true
	settings.PrimaryService, settings.PrimaryPod = "primary.example", "abaci-app-0"
	settings.ForwardPaths = []string{"/api/auth/callback*", "/a.b"}
	settings.StaticPaths = []string{"/_next/static/"}
	return settings
}

// answers says its status and a name, and counts.
func answers(status int, name string, asked *atomic.Int64) http.HandlerFunc {
	return func(rw http.ResponseWriter, req *http.Request) {
		asked.Add(1)
		rw.Header().Set("X-From", name)
		rw.Header().Set("X-"+name, "yes")
		rw.WriteHeader(status)
		if req.Method != http.MethodHead {
			_, _ = rw.Write([]byte(name))
		}
	}
}

func TestAVisitorOfASiteThatCannotAnswerIsShownThePage(t *testing.T) {
	const page = "<h1>Back in a minute</h1>"
	browser := map[string]string{"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
	settings := reading()
	settings.UnavailablePage = page
	var asked atomic.Int64
	for name, pod := range map[string]*url.URL{"away": closed(t), "503": serve(t, answers(503, "pod", &asked))} {
		for _, method := range []string{"GET", "HEAD"} {
			p := newPool(t, settings, nil, pod)
			resp, body := p.do(t, method, "/", nil, browser)
			shown := map[string]string{"GET": page, "HEAD": ""}[method]
			if resp.StatusCode < 502 || body != shown || resp.Header.Get("Retry-After") == "" ||
				resp.Header.Get("Cache-Control") != "no-store" || resp.ContentLength != int64(len(page)) ||
				resp.Header.Get("Content-Type") != "text/html; charset=utf-8" {
				t.Errorf("%s %s: %d %q %v", name, method, resp.StatusCode, body, resp.Header)
			}
		}
		p := newPool(t, settings, nil, pod)
		for _, other := range []struct {
			method string
			accept string
		}{{"GET", "application/json"}, {"GET", "*/*"}, {"POST", browser["Accept"]}} {
			_, body := p.do(t, other.method, "/", nil, map[string]string{"Accept": other.accept})
			if strings.Contains(body, page) {
				t.Errorf("%s: %s %s was shown the page", name, other.method, other.accept)
			}
		}
	}
}

func TestThePageStandsForNoAnswerOfTheApplication(t *testing.T) {
	settings := reading()
	settings.UnavailablePage = "<h1>Back in a minute</h1>"
	for _, status := range []int{200, 404, 500, 503} {
		own := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "text/html")
			rw.WriteHeader(status)
			_, _ = rw.Write([]byte("its own"))
		})
		p := newPool(t, settings, own, serve(t, own))
		resp, body := p.do(t, "GET", "/", nil, map[string]string{"Accept": "text/html"})
		if resp.StatusCode != status || body != "its own" {
			t.Errorf("%d: got %d %q", status, resp.StatusCode, body)
		}
	}
}

func TestWhereThePrimaryIsAwayAGetThatWritesShowsThePage(t *testing.T) {
	settings := reading()
	settings.UnavailablePage = "<h1>Back in a minute</h1>"
	p := newPool(t, settings, nil, serve(t, sends("instance=abaci-app-0")))
	resp, body := p.do(t, "GET", "/api/auth/callback", nil, map[string]string{"Accept": "text/html"})
	if resp.StatusCode != 503 || body != settings.UnavailablePage {
		t.Errorf("got %d %q", resp.StatusCode, body)
	}
}

// closed is an address that refuses connections.
func closed(t *testing.T) *url.URL {
	t.Helper()
	server := httptest.NewServer(http.NotFoundHandler())
	address, _ := url.Parse(server.URL)
	server.Close()
	return address
}

func isFrom(t *testing.T, resp *http.Response, status int, name string) {
	t.Helper()
	if resp.StatusCode != status || resp.Header.Get("X-From") != name {
		t.Errorf("want %d from %s, got %d %v", status, name, resp.StatusCode, resp.Header)
	}
}

func TestAReadThatAPodCannotAnswerIsAnsweredByThePrimary(t *testing.T) {
	for _, status := range []int{0, 500, 502, 503, 504, 599} {
		for _, method := range []string{"GET", "HEAD"} {
			var pod, primary atomic.Int64
			address := closed(t)
			if status > 0 {
				address = serve(t, answers(status, "pod", &pod))
			}
			p := newPool(t, reading(), answers(404, "primary", &primary), address)
			resp, body := p.do(t, method, "/page?x=1", nil, nil)
			isFrom(t, resp, 404, "primary")
			if resp.Header.Get("X-Pod") != "" || (method == "GET" && body != "primary") {
				t.Errorf("%d %s: something of the dropped answer is left: %v %q", status, method, resp.Header, body)
			}
			if primary.Load() != 1 || len(p.dialed) != 1 || p.dialed[0] != "primary.example:80" {
				t.Errorf("%d %s: the primary was asked %d times, dialed %v", status, method, primary.Load(), p.dialed)
			}
		}
	}
}

func TestWhatIsAnAnswerOrMayNotRunTwicePassesAsItIs(t *testing.T) {
	off, writing, upgrade := reading(), reading(), map[string]string{"Connection": "Upgrade", "Upgrade": "websocket"}
	off.PrimaryService = ""
	writing.Replay = false
	for name, c := range map[string]struct {
		settings *Config
		method   string
		path     string
		body     string
		headers  map[string]string
		status   int
	}{
		"a limit":                    {reading(), "GET", "/", "", nil, 429},
		"not there":                  {reading(), "GET", "/", "", nil, 404},
		"not there, nearly":          {reading(), "GET", "/_next/staticx", "", nil, 404},
		"a write there":              {reading(), "POST", "/_next/static/a.js", "", nil, 404},
		"a limit there":              {reading(), "GET", "/_next/static/a.js", "", nil, 429},
		"a write":                    {reading(), "POST", "/", "", nil, 502},
		"a write that failed":        {reading(), "POST", "/", "", nil, 500},
		"another method":             {reading(), "OPTIONS", "/", "", nil, 502},
		"with a body":                {reading(), "GET", "/", "x", nil, 502},
		"a GET that writes":          {reading(), "GET", "/api/auth/callback/google", "", nil, 502},
		"a GET that writes, exactly": {reading(), "GET", "/a.b", "", nil, 504},
		"a WebSocket":                {reading(), "GET", "/", "", upgrade, 503},
		"switched off":               {off, "GET", "/", "", nil, 502},
		"on the writing route":       {writing, "GET", "/", "", nil, 502},
	} {
		var pod, primary atomic.Int64
		p := newPool(t, c.settings, answers(200, "primary", &primary), serve(t, answers(c.status, "pod", &pod)))
		var body io.Reader
		if c.body != "" {
			body = strings.NewReader(c.body)
		}
		resp, _ := p.do(t, c.method, c.path, body, c.headers)
		isFrom(t, resp, c.status, "pod")
		if pod.Load() != 1 || primary.Load() != 0 {
			t.Errorf("%s: asked the pod %d times, the primary %d times", name, pod.Load(), primary.Load())
		}
	}
	var pod, primary atomic.Int64
	p := newPool(t, reading(), answers(200, "primary", &primary), serve(t, answers(502, "pod", &pod)))
	for _, path := range []string{"/aXb", "/x/api/auth/callback", "/a.b/c"} {
		resp, _ := p.do(t, "GET", path, nil, nil)
		isFrom(t, resp, 200, "primary")
	}
}

func TestAFileOfAnotherBuildIsAskedOfThePrimaryAndThenOfAnotherPod(t *testing.T) {
	for name, c := range map[string]struct {
		pod, primary, other int
		from                string
		status              int
		asked               [3]int64 // the first pod, the primary, the other pod
	}{
		"of the old build":  {404, 200, 404, "primary", 200, [3]int64{1, 1, 0}},
		"of the new build":  {404, 404, 200, "other", 200, [3]int64{1, 1, 1}},
		"of none":           {404, 404, 404, "pod", 404, [3]int64{3, 1, 2}},
		"the primary fails": {404, 500, 200, "other", 200, [3]int64{1, 1, 1}},
		"it is there":       {200, 404, 404, "pod", 200, [3]int64{1, 0, 0}},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			var pod, primary, other atomic.Int64
			p := newPool(t, reading(), answers(c.primary, "primary", &primary),
				serve(t, answers(c.pod, "pod", &pod)), serve(t, answers(c.other, "other", &other)))
			// Which is not asked for: a file that caches keep carries nobody's cookie.
			p.made.cookiePath = "/health"
			resp, _ := p.do(t, method, "/_next/static/chunks/a.js", nil, nil)
			isFrom(t, resp, c.status, c.from)
			if got := [3]int64{pod.Load(), primary.Load(), other.Load()}; got != c.asked {
				t.Errorf("%s, %s: asked %v", name, method, got)
			}
		}
	}
}

func TestAFileThatOnePodAloneHasIsFoundWhicheverIsAskedFirst(t *testing.T) {
	var old, primary, fresh atomic.Int64
	lacks := answers(404, "primary", &primary)
	p := newPool(t, reading(), lacks, serve(t, lacks), serve(t, answers(404, "old", &old)), serve(t, answers(200, "fresh", &fresh)))
	for i := 0; i < 12; i++ {
		resp, _ := p.do(t, "GET", "/_next/static/chunks/new.js", nil, nil)
		isFrom(t, resp, 200, "fresh")
	}
}

func TestFilesThatAreNowhereLeaveTheReadsTheirSecondTry(t *testing.T) {
	var pod, primary atomic.Int64
	files := newPool(t, reading(), answers(404, "primary", &primary), serve(t, answers(404, "pod", &pod)))
	for i := 0; i < 2*budgetBurst; i++ {
		files.do(t, "GET", "/_next/static/nowhere.js", nil, nil)
	}
	if got := primary.Load() + pod.Load(); got < 3*budgetBurst || got > 3*budgetBurst+budgetBurst+50 {
		t.Errorf("asked %d times", got)
	}
	if !files.made.budget.take() || files.made.budget.tokens < budgetBurst-2 {
		t.Errorf("what is left for reads that fail: %v", files.made.budget.tokens)
	}
}

func TestAnErrorOfThePrimaryItselfIsItsOwnWord(t *testing.T) {
	var pod, primary atomic.Int64
	p := newPool(t, reading(), answers(500, "primary", &primary), serve(t, answers(500, "pod", &pod)))
	resp, body := p.do(t, "GET", "/", nil, nil)
	isFrom(t, resp, 500, "primary")
	if body != "primary" || pod.Load() != 1 || primary.Load() != 1 {
		t.Errorf("%q: asked the pod %d times, the primary %d times", body, pod.Load(), primary.Load())
	}
	asked := ""
	p.made.lookup = func(_ context.Context, name string) ([]string, error) {
		asked = name
		return []string{"192.0.2.1", "127.0.0.1"}, nil
	}
	resp, _ = p.do(t, "GET", "/", nil, nil)
	isFrom(t, resp, 500, "pod")
	if asked != "abaci-app-0.pods.example" || primary.Load() != 1 {
		t.Errorf("looked up %q, the primary was asked %d times", asked, primary.Load())
	}
	// One that could not answer is asked once more, whoever it is: its proxy stood in for it.
	q := newPool(t, reading(), answers(200, "primary", &primary), serve(t, answers(502, "pod", &pod)))
	q.made.lookup = p.made.lookup
	resp, _ = q.do(t, "GET", "/", nil, nil)
	isFrom(t, resp, 200, "primary")
}

func TestWhereThePrimaryIsAwayAnErrorOfAReplicaGetsOneMoreTry(t *testing.T) {
	var bad, worse atomic.Int64
	p := newPool(t, reading(), nil, serve(t, answers(500, "bad", &bad)), serve(t, answers(500, "worse", &worse)))
	resp, _ := p.do(t, "GET", "/", nil, nil)
	isFrom(t, resp, 500, "worse")
	if bad.Load() != 1 || worse.Load() != 1 {
		t.Errorf("asked %d and %d times", bad.Load(), worse.Load())
	}
}

func TestAGetThatWritesIsStillSentToThePodNamed(t *testing.T) {
	var primary atomic.Int64
	p := newPool(t, reading(), answers(201, "primary", &primary), serve(t, sends("instance=abaci-app-0")))
	resp, _ := p.do(t, "GET", "/api/auth/callback/google", nil, nil)
	isFrom(t, resp, 201, "primary")
	if len(p.dialed) != 1 || p.dialed[0] != "abaci-app-0.pods.example:8080" {
		t.Errorf("dialed %v", p.dialed)
	}
}

// wrote answers as LiteFS's proxy on a primary does: only a write by method gets the cookie, here OPTIONS of /health.
func wrote(status int, asked *atomic.Int64) http.HandlerFunc {
	return func(rw http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodOptions && req.URL.Path == "/health" {
			asked.Add(1)
			rw.Header().Add("Set-Cookie", "other=1")
			rw.Header().Add("Set-Cookie", "__txid=0000000000000007; Path=/; HttpOnly")
			rw.WriteHeader(http.StatusNoContent)
			return
		}
		rw.Header().Set("Set-Cookie", "session=s")
		rw.WriteHeader(status)
	}
}

func TestAVisitorWhoseGetWroteGetsTheCookieByWhichReplicasWaitForIt(t *testing.T) {
	with := reading()
	with.CookiePath = "/health"
	for name, one := range map[string]struct {
		path   string
		pod    func(http.Handler) http.Handler
		status int
		asked  int64
	}{
		"sent on by a replica":       {"/api/auth/callback/x", func(http.Handler) http.Handler { return sends("instance=abaci-app-0") }, 302, 1},
		"by the primary at once":     {"/api/auth/callback/x", func(primary http.Handler) http.Handler { return primary }, 302, 1},
		"refused by a replica":       {"/guest", func(http.Handler) http.Handler { return answers(500, "pod", &atomic.Int64{}) }, 200, 1},
		"a read":                     {"/page", func(http.Handler) http.Handler { return answers(200, "pod", &atomic.Int64{}) }, 200, 0},
		"that failed there, too":     {"/api/auth/callback/x", func(http.Handler) http.Handler { return sends("instance=abaci-app-0") }, 500, 0},
		"that failed at the primary": {"/api/auth/callback/x", func(primary http.Handler) http.Handler { return primary }, 503, 0},
	} {
		var asked atomic.Int64
		primary := wrote(one.status, &asked)
		p := newPool(t, with, primary, serve(t, one.pod(primary)))
		resp, _ := p.do(t, "GET", one.path, nil, nil)
		if resp.StatusCode != one.status || asked.Load() != one.asked {
			t.Errorf("%s: got %d, the cookie was asked for %d times", name, resp.StatusCode, asked.Load())
		}
		cookies := strings.Join(resp.Header.Values("Set-Cookie"), " | ")
		if strings.Contains(cookies, "__txid=0000000000000007; Path=/; HttpOnly") != (one.asked > 0) || strings.Contains(cookies, "other") {
			t.Errorf("%s: the cookies are %s", name, cookies)
		}
		if one.asked > 0 && one.path != "/guest" && !strings.Contains(cookies, "session=s") {
			t.Errorf("%s: the application's cookie is gone: %s", name, cookies)
		}
	}
}

func TestACookieThatDoesNotComeFailsNothing(t *testing.T) {
	with := reading()
	with.CookiePath = "/health"
	var pod atomic.Int64
	p := newPool(t, with, nil, serve(t, answers(302, "pod", &pod)))
	resp, _ := p.do(t, "GET", "/api/auth/callback/x", nil, nil)
	isFrom(t, resp, 302, "pod")
}

func TestWhereThePrimaryIsAwayAnotherPodIsAsked(t *testing.T) {
	var bad, good atomic.Int64
	p := newPool(t, reading(), nil, serve(t, answers(502, "bad", &bad)), serve(t, answers(200, "good", &good)))
	for range 3 {
		resp, body := p.do(t, "GET", "/", nil, nil)
		isFrom(t, resp, 200, "good")
		if body != "good" || resp.Header.Get("X-Bad") != "" {
			t.Errorf("got %q %v", body, resp.Header)
		}
	}
	if len(p.dialed) != 1 {
		t.Errorf("a primary that was away a moment ago was dialled again: %v", p.dialed)
	}
	p.made.pods.known[p.made.primary].until = time.Now()
	_, _ = p.do(t, "GET", "/", nil, nil)
	if len(p.dialed) != 2 {
		t.Errorf("after a while the primary is asked again: %v", p.dialed)
	}
}

func TestAPrimaryThatCannotAnswerLeavesTheLastWordToAnotherPod(t *testing.T) {
	var bad, good, primary atomic.Int64
	for name, handler := range map[string]http.Handler{"503": answers(503, "primary", &primary), "moving": sends("instance=abaci-app-1")} {
		p := newPool(t, reading(), handler, serve(t, answers(502, "bad", &bad)), serve(t, answers(200, "good", &good)))
		resp, _ := p.do(t, "GET", "/", nil, nil)
		t.Log(name)
		isFrom(t, resp, 200, "good")
	}
	bad.Store(0)
	primary.Store(0)
	p := newPool(t, reading(), answers(503, "primary", &primary), serve(t, answers(502, "bad", &bad)))
	resp, body := p.do(t, "GET", "/", nil, nil)
	isFrom(t, resp, 502, "bad")
	if body != "bad" || bad.Load() != 2 || primary.Load() != 1 {
		t.Errorf("%q: asked %d times, the primary %d times", body, bad.Load(), primary.Load())
	}
}

func TestAnApplicationThatFailsEverywhereIsNotAskedTwiceForEver(t *testing.T) {
	var pod, primary atomic.Int64
	p := newPool(t, reading(), answers(503, "primary", &primary), serve(t, answers(503, "pod", &pod)))
	begin := time.Now()
	for range 4 * budgetBurst {
		_, _ = p.do(t, "GET", "/", nil, nil)
	}
	most := int64(budgetBurst + budgetRefill*(time.Since(begin).Seconds()+1))
	if got := primary.Load(); got < budgetBurst || got > most {
		t.Errorf("the primary was asked %d times, want %d to %d", got, budgetBurst, most)
	}
	if got := pod.Load(); got > 4*budgetBurst+most {
		t.Errorf("the pod was asked %d times", got)
	}
	// The budget comes back with time.
	before := primary.Load()
	p.made.budget.filled = p.made.budget.filled.Add(-2 * time.Second)
	for range 50 {
		_, _ = p.do(t, "GET", "/", nil, nil)
	}
	if got := primary.Load() - before; got < 2*budgetRefill || got > 4*budgetRefill {
		t.Errorf("after 2 s the primary was asked %d times", got)
	}
}

func TestAskingAgainIsFreeWhereItHelps(t *testing.T) {
	var pod, other, primary atomic.Int64
	p := newPool(t, reading(), answers(200, "primary", &primary), serve(t, answers(502, "pod", &pod)))
	q := newPool(t, reading(), nil, serve(t, answers(502, "pod", &pod)), serve(t, answers(200, "other", &other)))
	for range 3 * budgetBurst {
		resp, _ := p.do(t, "GET", "/", nil, nil)
		isFrom(t, resp, 200, "primary")
		resp, _ = q.do(t, "GET", "/", nil, nil)
		isFrom(t, resp, 200, "other")
	}
}

func TestAPodWithoutAConnectionIsPassedOverForAWhile(t *testing.T) {
	var one, two, primary atomic.Int64
	dead := closed(t)
	p := newPool(t, reading(), answers(200, "primary", &primary), dead, serve(t, answers(200, "pod", &one)), serve(t, answers(200, "pod", &two)))
	resp, _ := p.do(t, "GET", "/", nil, nil)
	isFrom(t, resp, 200, "primary")
	for range 30 {
		resp, _ := p.do(t, "GET", "/", nil, nil)
		isFrom(t, resp, 200, "pod")
	}
	if primary.Load() != 1 || one.Load()+two.Load() != 30 {
		t.Errorf("the primary was asked %d times, the pods %d", primary.Load(), one.Load()+two.Load())
	}
	p.made.pods.known[dead.Host].until = time.Now()
	for range 3 {
		_, _ = p.do(t, "GET", "/", nil, nil)
	}
	if primary.Load() != 2 {
		t.Errorf("after a while it is tried again: the primary was asked %d times", primary.Load())
	}
}

func TestWhereEveryPodIsAwayOneIsStillTried(t *testing.T) {
	p := newPool(t, reading(), nil, closed(t), closed(t))
	begin := time.Now()
	for range 3 {
		resp, _ := p.do(t, "GET", "/", nil, nil)
		if resp.StatusCode != http.StatusBadGateway {
			t.Errorf("got %d", resp.StatusCode)
		}
	}
	if len(p.taken) < 4 || time.Since(begin) > awayFor/2 {
		t.Errorf("after %v, dialled %v", time.Since(begin), p.taken)
	}
}

func TestAReadThatWaitsForAPodThatDiedIsAnsweredByThePrimary(t *testing.T) {
	waiting, over := make(chan struct{}), make(chan struct{})
	defer close(over)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		waiting <- struct{}{}
		<-over
	}))
	address, _ := url.Parse(server.URL)
	var primary atomic.Int64
	p := newPool(t, reading(), answers(200, "primary", &primary), address)
	first := make(chan *http.Response, 1)
	go func() {
		resp, err := http.Get(p.edge.URL + "/slow")
		if err != nil {
			t.Error(err)
		}
		first <- resp
	}()
	<-waiting
	select {
	case <-first:
		t.Fatal("a slow answer alone is no sign of anything")
	case <-time.After(200 * time.Millisecond):
	}
	server.Listener.Close() // the connection stays, as to a node without power; a new one finds nothing
	resp, _ := p.do(t, "GET", "/", nil, nil)
	isFrom(t, resp, 200, "primary")
	select {
	case resp := <-first:
		isFrom(t, resp, 200, "primary")
		resp.Body.Close()
	case <-time.After(5 * time.Second):
		t.Error("the first read still waits")
	}
}

// alone is a reading route before a handler that stands for Traefik and all pods; the primary is away.
func alone(next http.HandlerFunc) *middleware {
	settings := reading()
	made, err := New(context.Background(), next, settings, "test")
	if err != nil {
		panic(err)
	}
	m := made.(*middleware)
	m.journal.write = func(string) {}
	m.pods.lose(m.primary)
	return m
}

// HTTP/2 has no Transfer-Encoding: there a body that does not say its length is known by -1 alone.
func TestABodyOfUnknownLengthIsNotAskedAgain(t *testing.T) {
	asked := 0
	m := alone(func(rw http.ResponseWriter, _ *http.Request) {
		asked++
		rw.WriteHeader(502)
	})
	req := httptest.NewRequest("GET", "/", strings.NewReader("x"))
	req.ContentLength = -1
	got := httptest.NewRecorder()
	m.ServeHTTP(got, req)
	if got.Code != 502 || asked != 1 {
		t.Errorf("got %d, asked %d times", got.Code, asked)
	}
}

func TestAVisitorWhoLeavesSaysNothingAboutThePodAndIsNotServedTwice(t *testing.T) {
	for _, status := range []int{499, 502} {
		asked := 0
		m := alone(func(rw http.ResponseWriter, req *http.Request) {
			asked++
			httptrace.ContextClientTrace(req.Context()).GetConn("192.0.2.1:8080")
			<-req.Context().Done()
			rw.WriteHeader(status)
		})
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(20*time.Millisecond, cancel)
		got := httptest.NewRecorder()
		m.ServeHTTP(got, httptest.NewRequest("GET", "/", nil).WithContext(ctx))
		if got.Code != status || asked != 1 || m.pods.isAway("192.0.2.1:8080") || len(m.pods.known) != 1 {
			t.Errorf("got %d, asked %d times, known %v", got.Code, asked, m.pods.known)
		}
	}
}

func TestAReadWhosePodIsLostIsAskedAgainWhateverTheBudgetButNotAfterItsLastTry(t *testing.T) {
	tries := 0
	var m *middleware
	m = alone(func(rw http.ResponseWriter, req *http.Request) {
		tries++
		trace := httptrace.ContextClientTrace(req.Context())
		trace.GetConn("192.0.2.1:8080")
		trace.GotConn(httptrace.GotConnInfo{Reused: true})
		m.pods.lose("192.0.2.1:8080")
		if req.Context().Err() != nil {
			rw.WriteHeader(499)
			return
		}
		rw.WriteHeader(200)
	})
	m.budget.tokens = 0
	line := ""
	m.journal.write = func(text string) { line = text }
	got := httptest.NewRecorder()
	m.ServeHTTP(got, httptest.NewRequest("GET", "/", nil))
	// Lost once, passed over until none is left to pass over, and the last try is waited for.
	if got.Code != 200 || tries != 1+maxPassed+1 {
		t.Errorf("got %d after %d tries", got.Code, tries)
	}
	if !strings.Contains(line, "504, then 200 from another pod") {
		t.Errorf("the log says %q", line)
	}
}

func TestHeadersOfADroppedAnswerAreGoneAndThoseOfOthersStay(t *testing.T) {
	tries := 0
	m := alone(func(rw http.ResponseWriter, _ *http.Request) {
		tries++
		if tries == 1 {
			rw.Header().Set("X-Early", "1")
			rw.WriteHeader(502)
			rw.Header().Set("X-Late", "1")
			return
		}
		rw.WriteHeader(200)
	})
	got := httptest.NewRecorder()
	got.Header().Set("X-Outer", "1")
	m.ServeHTTP(got, httptest.NewRequest("GET", "/", nil))
	if h := got.Result().Header; got.Code != 200 || h.Get("X-Outer") == "" || h.Get("X-Early")+h.Get("X-Late") != "" {
		t.Errorf("%d %v", got.Code, h)
	}
}

func TestAnAnswerThatIsBrokenOffLeavesNothingBehind(t *testing.T) {
	m := alone(func(_ http.ResponseWriter, req *http.Request) {
		trace := httptrace.ContextClientTrace(req.Context())
		trace.GetConn("192.0.2.1:8080")
		trace.GotConn(httptrace.GotConnInfo{})
		panic(http.ErrAbortHandler)
	})
	func() {
		defer func() { _ = recover() }()
		m.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	}()
	if len(m.pods.known) != 1 {
		t.Errorf("known %v", m.pods.known)
	}
}

func TestWhatAConnectionSaysAboutAPod(t *testing.T) {
	p := &pods{known: map[string]*pod{}}
	visitor := func() *visit { return &visit{visitor: context.Background(), cancel: func() {}} }
	p.lose("192.0.2.1:1")
	kept := visitor()
	p.enter(kept, "192.0.2.1:1")
	p.connected(kept, true)
	if !p.isAway("192.0.2.1:1") {
		t.Error("one that was kept says nothing")
	}
	p.leave(kept)
	before := p.known["192.0.2.1:1"].until
	over := visitor()
	over.passOver = true
	p.enter(over, "192.0.2.1:1")
	p.leave(over)
	if !over.over || p.known["192.0.2.1:1"].until != before {
		t.Error("passing over says nothing, either")
	}
	fresh := visitor()
	p.enter(fresh, "192.0.2.1:1")
	p.connected(fresh, false)
	if p.isAway("192.0.2.1:1") {
		t.Error("a new one shows that the pod is there")
	}
	// Go goes on to another connection where a kept one turns out dead.
	p.enter(fresh, "192.0.2.2:1")
	p.connected(fresh, false)
	p.leave(fresh)
	if len(p.known) != 0 {
		t.Errorf("known %v", p.known)
	}
}

func TestTheBudgetDoesNotPileUp(t *testing.T) {
	b := &budget{tokens: budgetBurst, filled: time.Now().Add(-time.Hour)}
	if !b.take() || b.tokens > budgetBurst {
		t.Errorf("%v tokens", b.tokens)
	}
}

func TestNothingIsAskedAgainOnceSomethingHasGoneOut(t *testing.T) {
	var primary atomic.Int64
	p := newPool(t, reading(), answers(200, "primary", &primary), serve(t, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", "100")
		_, _ = rw.Write([]byte("half"))
		rw.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})))
	resp, err := http.Get(p.edge.URL)
	if err == nil {
		defer resp.Body.Close()
		_, err = io.ReadAll(resp.Body)
	}
	if err == nil || primary.Load() != 0 {
		t.Errorf("%v, the primary was asked %d times", err, primary.Load())
	}
}

func TestTheLogSaysWhichPathWithoutItsQueryAndNotMoreThanOnceASecond(t *testing.T) {
	var pod, primary atomic.Int64
	p := newPool(t, reading(), answers(200, "primary", &primary), serve(t, answers(502, "pod", &pod)))
	for range 20 {
		_, _ = p.do(t, "GET", "/p%0Aage?code=secret", nil, nil)
	}
	if len(p.lines) != 1 || strings.Contains(p.lines[0], "secret") || strings.Contains(p.lines[0], "\n") {
		t.Fatalf("got %q", p.lines)
	}
	for _, word := range []string{"GET", `"/p\nage"`, "502", "200", "the primary"} {
		if !strings.Contains(p.lines[0], word) {
			t.Errorf("%s is missing in %q", word, p.lines[0])
		}
	}
	p.made.journal.last = time.Now().Add(-2 * logEvery)
	_, _ = p.do(t, "GET", "/"+strings.Repeat("x", 5000), nil, nil)
	if len(p.lines) != 2 || !strings.Contains(p.lines[1], " 20 asked again") || len(p.lines[1]) > 400 {
		t.Errorf("got %q", p.lines)
	}
}

func TestAPrimaryThatHangsIsGivenUp(t *testing.T) {
	over := make(chan struct{})
	defer close(over)
	hang := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-over })
	settings := reading()
	settings.AnswerTimeout = 1
	p := newPool(t, settings, hang, serve(t, sends("instance=abaci-app-0")))
	begin := time.Now()
	resp, body := p.do(t, "GET", "/api/auth/callback", nil, nil)
	isUnavailable(t, resp, body, "GET")
	if time.Since(begin) > 5*time.Second {
		t.Errorf("after %v", time.Since(begin))
	}
}

func TestWhatIsKnownOfPodsDoesNotGrow(t *testing.T) {
	p := &pods{known: map[string]*pod{}}
	for _, address := range []string{"192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"} {
		v := &visit{visitor: context.Background(), cancel: func() {}}
		p.enter(v, address)
		p.leave(v)
		p.known[address].until = time.Now().Add(-time.Second)
	}
	v := &visit{visitor: context.Background(), cancel: func() {}}
	p.enter(v, "192.0.2.9:1")
	p.connected(v, false)
	p.leave(v)
	p.lose("192.0.2.4:1")
	if len(p.known) != 1 {
		t.Errorf("known %v", p.known)
	}
}
