package agent

import "time"

// check says what is to be compared with the kernel, and when.
type check struct {
	at    time.Time
	all   bool
	links map[int]struct{} // by ifindex, of veths and IFBs
	took  time.Duration    // the last one
	put   time.Time        // since when it has been put off; zero if it is not
}

func (c *check) within(d time.Duration) {
	c.by(time.Now().Add(max(d, verifyShare*c.took)))
}

// due tells whether the moment has come. While containers start it is put off, since
// each look takes a lock of the kernel's that they, and those who set them up, need.
func (c *check) due(now, came time.Time) bool {
	if now.Before(c.at) {
		return false
	}
	if calm := came.Add(settle); now.Before(calm) {
		if c.put.IsZero() {
			c.put = now
		}
		if most := c.put.Add(settleMost); now.Before(most) {
			c.at = calm
			if most.Before(calm) {
				c.at = most
			}
			return false
		}
	}
	return true
}

// by is within, for a moment that was set before.
func (c *check) by(at time.Time) {
	if c.at.IsZero() || at.Before(c.at) {
		c.at = at
	}
}

// mark has a link looked at.
func (c *check) mark(index int) {
	if c.links == nil {
		c.links = map[int]struct{}{}
	}
	c.links[index] = struct{}{}
}
