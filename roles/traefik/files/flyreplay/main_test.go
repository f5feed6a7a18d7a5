package flyreplay

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
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
	s := newSite(t, true, sends("instance=abaci-app-0"), http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", "100")
		_, _ = rw.Write([]byte("half"))
		rw.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}))
	resp, err := http.Get(s.edge.URL)
	if err == nil {
		defer resp.Body.Close()
		_, err = io.ReadAll(resp.Body)
	}
	if err == nil {
		t.Error("the cut answer looked complete")
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
		"no set":     {Service: "s", Port: 8080},
		"no service": {StatefulSet: "a", Port: 8080},
		"pattern":    {StatefulSet: ".*", Service: "s", Port: 8080},
		"address":    {StatefulSet: "a", Service: "x@198.51.100.1", Port: 8080},
		"port":       {StatefulSet: "a", Service: "s", Port: 0},
	} {
		if _, err := New(context.Background(), http.NotFoundHandler(), config, "test"); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
