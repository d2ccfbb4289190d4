package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/network"

	"netguard/internal/changed"
)

// The engine's answer about a network lists all attachments, and most of them are as in the
// answer before. So cut takes the list out before the client decodes the answer. Then decode
// reads only what is new in the list.

// members are what is attached to a network, as it was listed last.
type members struct {
	raw  bytes.Buffer // the answer
	text []byte       // the list in it; nil if the client decodes it
	// known has each by its text: its key and what it is.
	known map[string]*member
	round int
	all   []*Attachment
}

type member struct {
	*Attachment     // nil for what does not count
	round       int // the last one that it was listed in
}

// network asks the engine for a network.
func (c *caller) network(ctx context.Context, id string, m *members) (Network, error) {
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, cutting{}, m), callTimeout)
	defer cancel()
	m.text = nil
	i, err := c.NetworkInspect(ctx, id, network.InspectOptions{})
	switch {
	case err != nil:
		return Network{}, err
	case i.ID != id:
		return Network{}, fmt.Errorf("%w: it is about %.70q", errWrongAnswer, i.ID)
	}
	n := newNetwork(i)
	if m.text != nil {
		if err := m.decode(n.Name); err != nil {
			return Network{}, err
		}
		n.Endpoints = m.all
	}
	return n, nil
}

// cutting is the key of the members in the context of a question.
type cutting struct{}

// cut takes the list of attachments out of an answer about a network. If it does not understand
// the answer, it leaves the whole answer to the client.
func cut(r *http.Request, response *http.Response) error {
	m, ok := r.Context().Value(cutting{}).(*members)
	if !ok {
		return nil
	}
	m.raw.Reset()
	if _, err := m.raw.ReadFrom(response.Body); err != nil {
		return err
	}
	raw, lists := m.raw.Bytes(), 0
	before, after := raw, raw[:0]
	whole := parts(raw, func(from, to int) {
		const key = `"Containers":`
		if value, ok := bytes.CutPrefix(raw[from:to], []byte(key)); ok && bytes.HasPrefix(value, []byte("{")) {
			m.text, before, after = value, raw[:from+len(key)], raw[to:]
			lists++
		} else if name, _, _ := bytes.Cut(raw[from:to], []byte(":")); bytes.ContainsRune(name, '\\') || bytes.EqualFold(name, []byte(`"Containers"`)) {
			lists = 2 // the client would take this key for the list too: leave all to it
		}
	})
	body := io.MultiReader(bytes.NewReader(before), strings.NewReader("{}"), bytes.NewReader(after))
	if !whole || lists != 1 {
		m.text, body = nil, bytes.NewReader(raw)
	}
	response.Body = struct {
		io.Reader
		io.Closer
	}{body, response.Body}
	return nil
}

// parts calls do for each part of a JSON object: a key with its value, text[from:to]. It gives
// false if text is something else, or has spaces between keys and values.
func parts(text []byte, do func(from, to int)) bool {
	depth, from := 0, 1
	for i := 0; i < len(text) && text[0] == '{'; i++ {
		switch text[i] {
		case '"':
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
		case ' ', '\t', '\r', '\n':
			return false
		case ',', '}', ']':
			if depth == 1 && i > from {
				do(from, i)
				from = i + 1
			}
			if text[i] == ',' {
				break
			}
			if depth--; depth == 0 {
				return len(bytes.TrimSpace(text[i+1:])) == 0
			}
		}
	}
	return false
}

// decode brings m.all to the list of the last answer. network is the name of the network.
func (m *members) decode(network string) error {
	if m.known == nil { // then nobody would find who of m.all went
		m.known, m.all = map[string]*member{}, nil
	}
	m.round++
	listed, came, ids := 0, map[string]*Attachment{}, map[string]bool{}
	twice := false // an ID or a key
	var failed error
	parts(m.text, func(from, to int) {
		one := m.known[string(m.text[from:to])]
		if one == nil {
			var err error
			if one, err = newMember(network, m.text[from:to]); err != nil {
				failed = fmt.Errorf("%w: %w", errWrongAnswer, err)
				return
			}
			m.known[string(m.text[from:to])] = one
			if one.Attachment != nil {
				came[one.ID] = one.Attachment
			}
		}
		twice = twice || one.round == m.round || one.Attachment != nil && ids[one.ID]
		one.round = m.round
		listed++
		if one.Attachment != nil {
			ids[one.ID] = true
		}
	})
	if failed != nil {
		*m = members{}
		return failed
	}
	if twice {
		return m.decodeWhole(network)
	}
	for text, one := range m.known {
		if listed == len(m.known) {
			break // nothing went
		}
		if one.round == m.round {
			continue
		}
		delete(m.known, text)
		if one.Attachment != nil && came[one.ID] == nil {
			came[one.ID] = nil
		}
	}
	m.all = changed.With(m.all, came)
	return nil
}

// decodeWhole decodes the list as the client does.
func (m *members) decodeWhole(of string) error {
	var all map[string]network.EndpointResource
	if err := json.Unmarshal(m.text, &all); err != nil {
		*m = members{}
		return fmt.Errorf("%w: %w", errWrongAnswer, err)
	}
	m.known, m.all = nil, newNetwork(network.Inspect{Name: of, Containers: all}).Endpoints
	return nil
}

func newMember(of string, text []byte) (*member, error) {
	var one map[string]network.EndpointResource
	if err := json.Unmarshal(slices.Concat([]byte("{"), text, []byte("}")), &one); err != nil {
		return nil, err
	}
	m := &member{}
	for key, r := range one {
		m.Attachment = newAttachment(of, key, r)
	}
	return m, nil
}
