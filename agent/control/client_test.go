package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func networks(s Status) string {
	var list []string
	for _, e := range s.Endpoints {
		list = append(list, e.Container+"/"+e.Network)
	}
	return strings.Join(list, " ")
}

func TestClient_asks_for_some(t *testing.T) {
	client := NewClient(start(t, always(shop)).socket)
	for name, test := range map[string]struct {
		names []string
		want  string
	}{
		"all":                           {nil, "shop-web-1/front shop-db-1/back shop-db-1/admin aa/back"},
		"by_name":                       {[]string{"shop-db-1"}, "shop-db-1/back shop-db-1/admin"},
		"by_name_as_docker_writes_it":   {[]string{"/shop-web-1"}, "shop-web-1/front"},
		"by_beginning_of_id":            {[]string{"bb"}, "shop-db-1/back shop-db-1/admin"},
		"by_id_in_capitals":             {[]string{"BB22"}, "shop-db-1/back shop-db-1/admin"},
		"by_sharer":                     {[]string{"sidecar"}, "shop-web-1/front"},
		"a_name_wins_over_an_id":        {[]string{"aa"}, "aa/back"},
		"several_in_the_status's_order": {[]string{"aa", "shop-web-1", "aa"}, "shop-web-1/front aa/back"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := client.Status(t.Context(), test.names...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, networks(got)); diff != "" {
				t.Error(diff)
			}
			if !got.InSync || got.Mode != "enforce" {
				t.Error("what is said of the host is lost")
			}
		})
	}
	for name, test := range map[string]struct {
		names []string
		want  string
	}{
		"a_typing_mistake":   {[]string{"shop-wbe-1"}, `no endpoint of a container "shop-wbe-1" (did you mean "shop-web-1"?): `},
		"a_stranger":         {[]string{"shop-db-1", "zzzzzzz"}, `no endpoint of a container "zzzzzzz": `},
		"nothing":            {[]string{""}, `no endpoint of a container "": `},
		"a_control_sequence": {[]string{"\x1b[2J"}, `no endpoint of a container "\x1b[2J": `},
		"many":               {[]string{"z1", "z2", "z3", "z4", "z5"}, `"z1", "z2", "z3", 2 more: `},
	} {
		t.Run("knows_not/"+name, func(t *testing.T) {
			_, err := client.Status(t.Context(), test.names...)
			if !errors.Is(err, ErrUnknownContainer) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %s", err, test.want)
			}
		})
	}
	t.Run("nobody_before_Docker_has_answered", func(t *testing.T) {
		_, err := Status{}.Filter([]string{"shop-db-1"})
		if !errors.Is(err, ErrUnknownContainer) || !strings.Contains(err.Error(), "it is not known whether") {
			t.Error(err)
		}
	})
	t.Run("more_names_than_a_request_holds", func(t *testing.T) {
		names := make([]string, 2*maxHeader/len("shop-db-1"))
		for i := range names {
			names[i] = "shop-db-1"
		}
		got, err := client.Status(t.Context(), names...)
		if err != nil || networks(got) != "shop-db-1/back shop-db-1/admin" {
			t.Errorf("%v, %v", networks(got), err)
		}
		if _, err := client.Status(t.Context(), append(names, "zzzzzzz")...); !errors.Is(err, ErrUnknownContainer) {
			t.Error(err)
		}
	})
}

func TestClient_without_an_agent(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale.sock")
	l, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	for name, test := range map[string]struct{ socket, want string }{
		"no_socket":      {filepath.Join(dir, "no", "ng.sock"), "is the agent running? start it with `systemctl start netguard`"},
		"a_stale_socket": {stale, "the agent that made the socket is dead"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewClient(test.socket).Status(t.Context())
			if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), test.socket) {
				t.Error(err)
			}
		})
	}
	t.Run("no_permission", func(t *testing.T) {
		refused := &net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", syscall.EACCES)}
		err := NewClient("/run/ng.sock").unreachable(t.Context(), refused)
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "as root") {
			t.Error(err)
		}
	})
	t.Run("an_interrupted_question_is_not_an_unreachable_agent", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := NewClient(stale).Status(ctx)
		if errors.Is(err, ErrUnreachable) || !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// impostor answers each connection as the test says.
func impostor(t *testing.T, answer func(net.Conn)) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "x.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			answer(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-ended
	})
	return NewClient(socket)
}

func TestClient_with_a_strange_agent(t *testing.T) {
	say := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			c.Read(make([]byte, 4096))
			io.WriteString(c, text)
		}
	}
	body := func(code int, text string) string {
		return fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Length: %d\r\n\r\n%s", code, http.StatusText(code), len(text), text)
	}
	for name, test := range map[string]struct {
		answer      func(net.Conn)
		unreachable bool
		want        string
	}{
		"that_hangs_up":          {say(""), true, "closed the connection"},
		"that_hangs_up_half_way": {say(body(200, `{"mode": "enf`)[:50]), true, "closed the connection"},
		"that_lists_something":   {say(body(200, `["x"]`)), false, "is it a netguard agent?"},
		"that_counts_endpoints":  {say(body(200, `{"endpoints":3}`)), false, "is it a netguard agent?"},
		"that_speaks_HTML":       {say(body(200, "<html>")), false, "is it a netguard agent?"},
		"that_refuses_in_HTML":   {say(body(403, "<html>")), false, "is it a netguard agent?"},
		"that_is_older":          {say(body(404, `{"code": "unknown_request", "error": "the agent does not know the request"}`)), false, "restart it"},
		"that_speaks_no_HTTP":    {say("SSH-2.0-OpenSSH\r\n"), true, "malformed"},
		"whose_answer_has_no_end": {func(c net.Conn) {
			c.Read(make([]byte, 4096))
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			for spaces := []byte(strings.Repeat(" ", 1<<16)); ; {
				if _, err := c.Write(spaces); err != nil {
					return
				}
			}
		}, false, "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, ask := range []func(*Client) error{
				func(c *Client) error { _, err := c.Status(t.Context()); return err },
				func(c *Client) error { _, err := c.StatusText(t.Context()); return err },
			} {
				client := impostor(t, test.answer)
				client.most = 1 << 20
				if err := ask(client); err == nil || errors.Is(err, ErrUnreachable) != test.unreachable || !strings.Contains(err.Error(), test.want) {
					t.Error(err)
				}
			}
		})
	}
	t.Run("that_is_newer", func(t *testing.T) {
		got, err := impostor(t, say(body(200, `{"mode": "monitor", "novelty": {"x": 1}}`))).Status(t.Context())
		if err != nil || got.Mode != "monitor" || got.Endpoints == nil {
			t.Error(got, err)
		}
	})
	t.Run("that_does_not_answer", func(t *testing.T) {
		client := impostor(t, func(c net.Conn) { io.Copy(io.Discard, c) }) // until the client leaves
		client.http.Timeout = 20 * time.Millisecond
		if _, err := client.Status(t.Context()); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "in time") {
			t.Error(err)
		}
	})
}
