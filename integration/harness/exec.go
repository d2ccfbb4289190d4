package harness

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
)

// Exec runs a program of the image inside the container, as docker exec does,
// to its end. [Container.Inside] is faster if only the network matters.
func (c *Container) Exec(command ...string) Result {
	c.e.tb.Helper()
	ctx, cancel := context.WithTimeout(life(c.e.tb), longest)
	defer cancel()
	made, err := c.e.Client.ContainerExecCreate(ctx, c.ID, container.ExecOptions{
		Cmd: command, AttachStdout: true, AttachStderr: true,
	})
	c.e.must(err, "exec in container %s", c.Name)
	stream, err := c.e.Client.ContainerExecAttach(ctx, made.ID, container.ExecAttachOptions{})
	c.e.must(err, "exec in container %s", c.Name)
	defer stream.Close()
	var out, errOut bytes.Buffer
	_, err = stdcopy.StdCopy(&out, &errOut, stream.Reader)
	c.e.must(err, "read output of %v", command)
	i, err := c.e.Client.ContainerExecInspect(ctx, made.ID)
	c.e.must(err, "inspect exec of %v", command)
	return Result{Command: strings.Join(command, " "), Stdout: out.String(), Stderr: errOut.String(), Code: i.ExitCode}
}

// Logs returns what the container has printed, standard output and error.
func (c *Container) Logs() string {
	c.e.tb.Helper()
	var out bytes.Buffer
	c.do("read logs of", func(ctx context.Context) error {
		r, err := c.follow(ctx, false)
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = stdcopy.StdCopy(&out, &out, r)
		return err
	})
	return out.String()
}

func (c *Container) follow(ctx context.Context, follow bool) (io.ReadCloser, error) {
	return c.e.Client.ContainerLogs(ctx, c.ID, container.LogsOptions{ShowStdout: true, ShowStderr: true, Follow: follow})
}

// AwaitLog waits until the container has printed a line with this text, and
// returns the line. Lines of earlier runs of the same container count.
func (c *Container) AwaitLog(text string) string {
	c.e.tb.Helper()
	var line string
	c.do("wait for "+fmt.Sprintf("%q", text)+" of", func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		r, err := c.follow(ctx, true)
		if err != nil {
			return err
		}
		defer r.Close()
		read, write := io.Pipe()
		defer read.Close()
		go func() {
			_, err := stdcopy.StdCopy(write, write, r)
			write.CloseWithError(err)
		}()
		lines := bufio.NewScanner(read)
		lines.Buffer(nil, maxOutput)
		for lines.Scan() {
			if line = lines.Text(); strings.Contains(line, text) {
				return nil
			}
		}
		if err := lines.Err(); err != nil {
			return err
		}
		return fmt.Errorf("it ended without printing that; it printed:\n%s", c.Logs())
	})
	return line
}

// Inside returns the container's network namespace: this machine's programs run
// in it, with all rights there. It is valid until the container stops.
func (c *Container) Inside() Netns {
	c.e.tb.Helper()
	n := c.e.Netns
	n.file = fmt.Sprintf("/proc/%d/ns/net", c.PID())
	n.env = nil
	return n
}
