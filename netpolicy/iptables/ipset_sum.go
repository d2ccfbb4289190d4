package iptables

import "hash/maphash"

// sum gives the sum of the members of a set, without keeping them.
func (s sets) sum(name string) (sum uint64, err error) {
	err = s.each(name, func() { sum = 0 }, func(e element) { sum += hash(e.Member) })
	return sum, err
}

// sums are the sums of the members in each message of the last list of all sets, by a hash of the
// message. Where nothing changed, the kernel sends the same messages again, and they are not parsed.
type sums map[uint64]uint64

// whole hands on all sets of the namespace, each before the sums of its members.
func (l *sums) whole(s sets, start func(), head func(setHeader), each func(uint64)) error {
	now := sums{}
	err := s.messages(setRequest(""), func() { clear(now); start() }, func(m []byte) {
		if h := parseSetHeader(m); h.typ != "" {
			head(h)
		}
		key := maphash.Bytes(seed, m)
		sum, known := (*l)[key]
		if !known {
			parseMembers(m, func(e element) { sum += hash(e.Member) })
		}
		now[key] = sum
		each(sum)
	})
	*l = now
	return err
}
