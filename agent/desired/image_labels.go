package desired

import (
	"fmt"
	"slices"

	"netguard/agent/config"
	"netguard/agent/docker"
	"netguard/netpolicy"
	"netguard/shaper"
)

// trust makes all labels of an endpoint's containers count where the operator trusts the
// container's image.
func (d *Endpoint) trust(images config.Globs) {
	if len(images) == 0 {
		return
	}
	d.Container = trusting(d.Container, images)
	d.Sharers = slices.Clone(d.Sharers)
	for i, c := range d.Sharers {
		d.Sharers[i] = trusting(c, images)
	}
}

// trusting gives a container whose labels all count if the operator trusts its image.
func trusting(c docker.Container, images config.Globs) docker.Container {
	if images.MatchImage(c.Image) {
		c.Inherited, c.Unproven = nil, ""
	}
	return c
}

// imageWhy says why a container's label does not count if it would open something.
func imageWhy(c docker.Container) string {
	if c.Unproven != "" {
		return c.Unproven
	}
	return "the image has the same, and an image opens nothing"
}

// imageRemedy says how to make labels count.
func imageRemedy(c docker.Container) string {
	return fmt.Sprintf("give the container a label of its own, with another value than the image's, or add the image to trust_image_labels of the configuration (docker lists it as %.200q)", c.Image)
}

// uncounted notes the labels that a policy's allow names, but that do not count there.
func (d *Endpoint) uncounted(found []netpolicy.Uncounted) {
	for _, n := range netpolicy.Notices(found) {
		remedy := "give that container labels of its own, or add its image to trust_image_labels of the configuration"
		if c, its := d.named(n.Container); its {
			remedy = imageRemedy(c)
		}
		d.notes = append(slices.Clip(d.notes), n.Text+"; "+remedy)
	}
}

// named gives the container of that name, if it is one of the endpoint's.
func (d *Endpoint) named(name string) (docker.Container, bool) {
	for _, c := range d.containers() {
		if c.Name == name {
			return c, true
		}
	}
	return docker.Container{}, false
}

// ownBandwidth gives a container's bandwidth labels without those of its image. images says
// that its image has some.
func ownBandwidth(c docker.Container) (labels map[string]string, images bool) {
	for label := range c.Labels {
		images = images || shaper.Claims(label) && !c.Counts(label)
	}
	if !images {
		return c.Labels, false
	}
	labels = map[string]string{}
	for label, value := range c.Labels {
		if shaper.Claims(label) && c.Counts(label) {
			labels[label] = value
		}
	}
	return labels, true
}

// atMost lowers the limits to those without the labels of images: an image must not give more
// bandwidth.
func (d *Endpoint) atMost(without shaper.Limits) {
	for _, dir := range shaper.Directions {
		with, most := &d.Limits.Limit[dir], without.Limit[dir]
		if most.Rate == 0 || with.Rate != 0 && with.Rate < most.Rate || *with == most {
			continue
		}
		d.notes = append(slices.Clip(d.notes), fmt.Sprintf("%s: %v (%s) applies and not what %s says: %s; %s",
			dir, most.Rate, most.Source, with.Source, imageWhy(d.Container), imageRemedy(d.Container)))
		*with = most
	}
}
