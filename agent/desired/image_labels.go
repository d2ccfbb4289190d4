package desired

import (
	"fmt"
	"maps"
	"slices"

	"netguard/agent/config"
	"netguard/agent/docker"
	"netguard/netpolicy"
	"netguard/shaper"
)

// trusting gives a view in which labels count wherever they come from, for containers of
// images that the operator trusts.
func trusting(v docker.View, trusted config.Globs) docker.View {
	if len(trusted) == 0 {
		return v
	}
	own := false
	for id, c := range v.Containers {
		if c.Unproven == "" && len(c.Inherited) == 0 || !trusted.MatchImage(c.Image) {
			continue
		}
		if !own { // the view was handed out
			v.Containers, own = maps.Clone(v.Containers), true
		}
		c.Inherited, c.Unproven = nil, ""
		v.Containers[id] = c
	}
	return v
}

// imageWhy says why labels of a container do not count where something opens.
func imageWhy(c docker.Container) string {
	if c.Unproven != "" {
		return c.Unproven
	}
	return "the image has the same, and an image opens nothing"
}

// imageRemedy says what to do for labels to count.
func imageRemedy(c docker.Container) string {
	return fmt.Sprintf("give the container a label of its own, with another value than the image's, or add the image to trust_image_labels of the configuration (docker lists it as %.200q)", c.Image)
}

// uncounted notes the labels that policies name in what they allow, and that do not
// count there.
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

// ownBandwidth gives a container's labels about bandwidth but for those of its image,
// and tells whether there are such.
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

// atMost keeps labels of images from giving more bandwidth than there is without them.
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
